//! A plugin of pcluster, on the header for C.

const std = @import("std");
const pcluster = @import("pcluster");

/// The state: a large table in practice.
var meanings = std.mem.zeroes(pcluster.pcluster_writer);
var isMade = false;

/// Makes the state, once. Each item starts with a copy of it, which costs nothing.
fn load() callconv(.c) pcluster.pcluster_status {
    const config = pcluster.pcluster_config();
    if (!pcluster.pcluster_has(&config, "meanings")) {
        const reason = "the `config` of the stage has no meanings";
        return pcluster.pcluster_fail_text(pcluster.PCLUSTER_FATAL, reason, reason.len);
    }
    var given = pcluster.pcluster_field(&config, "meanings");
    pcluster.pcluster_put_value(&meanings, &given);
    return pcluster.PCLUSTER_DONE;
}

/// Adds the meaning of a word.
fn explain(item: [*c]pcluster.pcluster_reader) callconv(.c) pcluster.pcluster_status {
    const word = pcluster.pcluster_field_text(item, "word");
    const known = pcluster.pcluster_read_written(&meanings);
    var meaning = pcluster.pcluster_field_of(&known, word);
    var out = std.mem.zeroes(pcluster.pcluster_writer);
    pcluster.pcluster_put_map(&out, 2);
    pcluster.pcluster_put_text(&out, "word");
    pcluster.pcluster_put_span(&out, word);
    pcluster.pcluster_put_text(&out, "meaning");
    if (pcluster.pcluster_kind_of(&meaning) == pcluster.PCLUSTER_TEXT) {
        pcluster.pcluster_put_span(&out, pcluster.pcluster_read_text(&meaning));
    } else {
        pcluster.pcluster_put_null(&out);
    }
    pcluster.pcluster_emit(&out);
    return pcluster.PCLUSTER_DONE;
}

fn init() callconv(.c) i32 {
    return pcluster.pcluster_init(load, &isMade);
}

fn run(item: [*c]u8, size: usize) callconv(.c) i32 {
    return pcluster.pcluster_run(item, size, explain, load, &isMade);
}

comptime {
    @export(&pcluster.pcluster_alloc, .{ .name = "pcluster_alloc" });
    @export(&init, .{ .name = "pcluster_init:task_name" });
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

test "a state needs meanings" {
    try std.testing.expect(runOn("eg") == pcluster.PCLUSTER_FATAL);
}

test "a word is explained from the state" {
    var config = std.mem.zeroes(pcluster.pcluster_writer);
    pcluster.pcluster_put_map(&config, 1);
    pcluster.pcluster_put_text(&config, "meanings");
    pcluster.pcluster_put_map(&config, 1);
    pcluster.pcluster_put_text(&config, "eg");
    pcluster.pcluster_put_text(&config, "for example");
    pcluster.pcluster_test_config(&config);
    try std.testing.expect(runOn("eg") == pcluster.PCLUSTER_DONE);
    const output = pcluster.pcluster_test_output(0);
    try std.testing.expect(pcluster.pcluster_is(pcluster.pcluster_field_text(&output, "meaning"), "for example"));
}
