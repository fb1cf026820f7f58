//! A plugin of pcluster, on the header for C.

const std = @import("std");
const pcluster = @import("pcluster");

/// Keeps long words, and drops the others.
fn keep(item: [*c]pcluster.pcluster_reader) callconv(.c) pcluster.pcluster_status {
    const word = pcluster.pcluster_field_text(item, "word");
    // The SDK has checked that it is UTF-8.
    const letters = std.unicode.utf8CountCodepoints(word.start[0..word.length]) catch unreachable;
    const config = pcluster.pcluster_config();
    const least = if (pcluster.pcluster_has(&config, "least")) pcluster.pcluster_field_integer(&config, "least") else 1;
    // A task that emits nothing drops its item.
    if (letters < least) return pcluster.PCLUSTER_DONE;
    var out = std.mem.zeroes(pcluster.pcluster_writer);
    pcluster.pcluster_put_value(&out, item);
    pcluster.pcluster_emit(&out);
    return pcluster.PCLUSTER_DONE;
}

fn run(item: [*c]u8, size: usize) callconv(.c) i32 {
    return pcluster.pcluster_run(item, size, keep, null, null);
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

test "long words are kept" {
    var config = std.mem.zeroes(pcluster.pcluster_writer);
    pcluster.pcluster_put_map(&config, 1);
    pcluster.pcluster_put_text(&config, "least");
    pcluster.pcluster_put_unsigned(&config, 5);
    pcluster.pcluster_test_config(&config);
    try std.testing.expect(runOn("größe") == pcluster.PCLUSTER_DONE);
    try std.testing.expect(pcluster.pcluster_test_outputs() == 1);
    try std.testing.expect(runOn("maß") == pcluster.PCLUSTER_DONE);
    try std.testing.expect(pcluster.pcluster_test_outputs() == 0);
}
