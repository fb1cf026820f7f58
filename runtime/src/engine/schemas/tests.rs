//! Plugins that tell schemas, and those that only try.

use serde_json::json;

use super::*;

/// Returns a plugin with a task `t` and a function with this body that tells its schemas. It has this section.
fn plugin(body: &str, section: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (import "pcluster_v1" "fail" (func $fail (param i32 i32)))
            (import "pcluster_v1" "emit" (func $emit (param i32 i32)))
            (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ (param i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 64) "{TOLD}")
            (func (export "pcluster_alloc") (param i32) (result i32) (i32.const 16))
            (func (export "pcluster_task:t") (param i32 i32) (result i32) (i32.const 0))
            (func $deep (result i64) (call $deep))
            (func (export "pcluster_schema:t") (result i64) {body})
            (@custom "pcluster" {section:?}))"#,
    );
    wat::parse_str(text).expect("a module")
}

const TOLD: &str = r#"{\"input\":{\"type\":\"string\"}}"#;
/// Tells all of the text.
const TELL: &str = "(i64.const 0x1b_0000_0040)";
const LINE: &str = "{\"abi\":1,\"name\":\"t\",\"doc\":\"Tells.\",\"own\":7}\n";

fn refused(body: &str) -> String {
    inspect(&plugin(body, LINE)).expect_err("refused").to_string()
}

#[test]
fn what_a_plugin_tells_is_read_and_kept_in_its_section() {
    let bytes = plugin(TELL, LINE);
    assert!(inspect::inspect(&bytes).expect("a plugin").tasks[0].schema.is_empty());
    let told = inspect(&bytes).expect("told");
    assert_eq!(told.tasks[0].schema.input, Some(json!({ "type": "string" })));
    let (written, inspection) = kept(bytes.clone()).expect("kept");
    assert_eq!(inspection.tasks[0].schema, told.tasks[0].schema);
    assert_eq!(inspection.tasks[0].doc, "Tells.");
    let has = |text: &str| written.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(has("\"own\":7") && has("\"schema\":{\"input\""));
    // It is not asked again, and the same comes of the same.
    let (again, _) = kept(written.clone()).expect("kept");
    assert!(again == written && kept(bytes).expect("kept").0 == written);
    // A plugin without a section gets one.
    assert_eq!(kept(plugin(TELL, "")).expect("kept").1.tasks[0].schema, told.tasks[0].schema);
    assert!(kept(plugin("(i64.const 0)", LINE)).expect("kept").1.tasks[0].schema.is_empty());
    // What the section says counts.
    let said = "{\"abi\":1,\"name\":\"t\",\"schema\":{\"output\":true}}\n";
    assert_eq!(inspect(&plugin("unreachable", said)).expect("read").tasks[0].schema.output, Some(json!(true)));
}

#[test]
fn chance_and_environment_are_nothing() {
    let body = format!(
        "(i64.store (i32.const 0) (i64.const -1)) (drop (call $random (i32.const 0) (i32.const 8)))
         (if (i64.ne (i64.load (i32.const 0)) (i64.const 0)) (then unreachable))
         (i64.store (i32.const 0) (i64.const -1))
         (if (call $environ (i32.const 0) (i32.const 4)) (then unreachable))
         (if (i64.ne (i64.load (i32.const 0)) (i64.const 0)) (then unreachable)) {TELL}"
    );
    inspect(&plugin(&body, LINE)).expect("told");
}

#[test]
fn what_does_not_tell_is_refused_with_the_reason() {
    for (body, reason) in [
        ("unreachable", "wasm `unreachable` instruction executed"),
        ("(loop $l (br $l)) (i64.const 0)", "it takes too long"),
        ("(call $deep)", "call stack exhausted"),
        (
            "(call $emit (i32.const 0) (i32.const 0)) (i64.const 0)",
            "unknown import: `pcluster_v1::emit` has not been defined",
        ),
        ("(call $fail (i32.const 66) (i32.const 5)) unreachable", "input"),
        ("(call $fail (i32.const -1) (i32.const -1)) unreachable", "wasm `unreachable` instruction executed"),
        ("(i64.const 0x10_0000_0040)", "EOF while parsing"),
        ("(i64.const 0x10_0001_0000)", "it lies outside of the plugin's memory"),
        ("(i64.const -1)", "it is longer than 1.0 MiB"),
        (
            "(drop (memory.grow (i32.const 60000))) (i64.store (i32.const 3000000) (i64.const 0)) (i64.const 0)",
            "out of bounds",
        ),
    ] {
        let told = refused(body);
        assert!(told.contains(reason) && told.contains("of its task `t`: "), "{body}: {told}");
    }
}
