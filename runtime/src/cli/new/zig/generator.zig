//! A plugin of pcluster, on the header for C.

const std = @import("std");
const pcluster = @import("pcluster");

/// Splits a text into its words.
fn split(item: [*c]pcluster.pcluster_reader) callconv(.c) pcluster.pcluster_status {
    const text = pcluster.pcluster_field_text(item, "text");
    var words = std.mem.tokenizeAny(u8, text.start[0..text.length], " ,.;:!?-\t\r\n");
    while (words.next()) |word| emitWord(word);
    return pcluster.PCLUSTER_DONE;
}

/// Emits a word. Letters of ASCII become small ones.
fn emitWord(word: []const u8) void {
    const memory = pcluster.pcluster_allocate(word.len);
    defer pcluster.free(memory);
    const small = std.ascii.lowerString(memory[0..word.len], word);
    var out = std.mem.zeroes(pcluster.pcluster_writer);
    pcluster.pcluster_put_map(&out, 1);
    pcluster.pcluster_put_text(&out, "word");
    pcluster.pcluster_put_text_of(&out, small.ptr, small.len);
    pcluster.pcluster_emit(&out);
}

fn run(item: [*c]u8, size: usize) callconv(.c) i32 {
    return pcluster.pcluster_run(item, size, split, null, null);
}

comptime {
    @export(&pcluster.pcluster_alloc, .{ .name = "pcluster_alloc" });
    @export(&run, .{ .name = "pcluster_task:task_name" });
}

/// Runs the task on a text, and returns how many items come of it.
fn outputsOf(text: [*c]const u8) usize {
    var item = std.mem.zeroes(pcluster.pcluster_writer);
    pcluster.pcluster_put_map(&item, 1);
    pcluster.pcluster_put_text(&item, "text");
    pcluster.pcluster_put_text(&item, text);
    if (pcluster.pcluster_test_run(run, &item) != pcluster.PCLUSTER_DONE) return 0;
    return pcluster.pcluster_test_outputs();
}

test "a text is split into its words" {
    try std.testing.expect(outputsOf(" A größe, of TWO ") == 4);
    const output = pcluster.pcluster_test_output(3);
    try std.testing.expect(pcluster.pcluster_is(pcluster.pcluster_field_text(&output, "word"), "two"));
    try std.testing.expect(outputsOf(" ") == 0);
}
