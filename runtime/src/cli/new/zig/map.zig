//! A plugin of pcluster, on the header for C.

const std = @import("std");
const pcluster = @import("pcluster");

/// Counts the letters of a word.
fn measure(item: [*c]pcluster.pcluster_reader) callconv(.c) pcluster.pcluster_status {
    const word = pcluster.pcluster_field_text(item, "word");
    // The SDK has checked that it is UTF-8.
    const letters = std.unicode.utf8CountCodepoints(word.start[0..word.length]) catch unreachable;
    const config = pcluster.pcluster_config();
    if (pcluster.pcluster_has(&config, "most") and letters > pcluster.pcluster_field_integer(&config, "most")) {
        // No later attempt can succeed: the item becomes a dead letter at once.
        return fail("the word is too long");
    }
    var out = std.mem.zeroes(pcluster.pcluster_writer);
    pcluster.pcluster_put_map(&out, 2);
    pcluster.pcluster_put_text(&out, "word");
    pcluster.pcluster_put_span(&out, word);
    pcluster.pcluster_put_text(&out, "letters");
    pcluster.pcluster_put_unsigned(&out, letters);
    pcluster.pcluster_emit(&out);
    return pcluster.PCLUSTER_DONE;
}

/// Fails the item for good.
fn fail(reason: []const u8) pcluster.pcluster_status {
    return pcluster.pcluster_fail_text(pcluster.PCLUSTER_FATAL, reason.ptr, reason.len);
}

fn run(item: [*c]u8, size: usize) callconv(.c) i32 {
    return pcluster.pcluster_run(item, size, measure, null, null);
}

comptime {
    @export(&pcluster.pcluster_alloc, .{ .name = "pcluster_alloc" });
    @export(&run, .{ .name = "pcluster_task:task_name" });
}

/// Runs the task on a word.
fn runOn(word: [*c]const u8) pcluster.pcluster_status {
    var item = std.mem.zeroes(pcluster.pcluster_writer);
    pcluster.pcluster_put_map(&item, 1);
    pcluster.pcluster_put_text(&item, "word");
    pcluster.pcluster_put_text(&item, word);
    return pcluster.pcluster_test_run(run, &item);
}

test "letters are counted" {
    try std.testing.expect(runOn("größe") == pcluster.PCLUSTER_DONE);
    const output = pcluster.pcluster_test_output(0);
    try std.testing.expect(pcluster.pcluster_field_integer(&output, "letters") == 5);
}

test "a word that is too long fails for good" {
    var config = std.mem.zeroes(pcluster.pcluster_writer);
    pcluster.pcluster_put_map(&config, 1);
    pcluster.pcluster_put_text(&config, "most");
    pcluster.pcluster_put_unsigned(&config, 4);
    pcluster.pcluster_test_config(&config);
    try std.testing.expect(runOn("größe") == pcluster.PCLUSTER_FATAL);
}
