//! A task in Zig, on the C header of the SDK, which `zig translate-c` makes a module of.

const std = @import("std");
const pcluster = @import("pcluster");

/// Turns a text into a map with the text and the number of its letters.
fn letters(item: [*c]pcluster.pcluster_reader) callconv(.c) pcluster.pcluster_status {
    const text = pcluster.pcluster_read_text(item);
    const count = std.unicode.utf8CountCodepoints(text.start[0..text.length]) catch return pcluster.PCLUSTER_FATAL;
    if (count == 0) return fail("there are no letters");
    var out = std.mem.zeroes(pcluster.pcluster_writer);
    pcluster.pcluster_put_map(&out, 2);
    pcluster.pcluster_put_text(&out, "text");
    pcluster.pcluster_put_span(&out, text);
    pcluster.pcluster_put_text(&out, "letters");
    pcluster.pcluster_put_unsigned(&out, count);
    pcluster.pcluster_emit(&out);
    return pcluster.PCLUSTER_DONE;
}

/// Fails the item for good.
fn fail(reason: []const u8) pcluster.pcluster_status {
    return pcluster.pcluster_fail_text(pcluster.PCLUSTER_FATAL, reason.ptr, reason.len);
}

/// The export of the task.
fn run(item: [*c]u8, size: usize) callconv(.c) i32 {
    return pcluster.pcluster_run(item, size, letters, null, null);
}

/// The export through which the host hands over an item.
fn alloc(size: usize) callconv(.c) ?*anyopaque {
    return pcluster.pcluster_allocate(size);
}

comptime {
    @export(&run, .{ .name = "pcluster_task:letters" });
    @export(&alloc, .{ .name = "pcluster_alloc" });
}
