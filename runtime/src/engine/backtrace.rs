//! The functions of a guest in which an error happened.

use wasmtime::{FrameInfo, WasmBacktrace};

/// The most functions in a backtrace. The innermost are kept.
const FRAMES_MAX: usize = 20;
/// The most functions to read. The innermost ones of a panic do not belong to the guest's author.
pub(super) const TAKEN_MAX: usize = 2 * FRAMES_MAX;
/// The most bytes of a backtrace.
const BYTES_MAX: usize = 2 << 10;
/// The most bytes of the name of a function.
const NAME_MAX: usize = 200;

/// Returns the functions that the guest was in, one a line. The innermost comes first. `None` if it was in none.
pub(super) fn of(error: &wasmtime::Error) -> Option<String> {
    let frames: Vec<String> = error.downcast_ref::<WasmBacktrace>()?.frames().iter().map(name).collect();
    let mut text = String::new();
    for name in own(&frames).iter().take(FRAMES_MAX) {
        if text.len() + name.len() + 1 > BYTES_MAX {
            break;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(name);
    }
    (!text.is_empty()).then_some(text)
}

/// Skips the innermost functions, which only carry out a panic. Returns all functions if no others are left.
fn own(frames: &[String]) -> &[String] {
    match frames.iter().position(|name| !is_of_panics(name)) {
        Some(first) => &frames[first..],
        None => frames,
    }
}

/// Returns `true` if a function only carries out a panic. Such functions belong to Rust's runtime or the SDK.
fn is_of_panics(name: &str) -> bool {
    const RUNTIME: [&str; 5] = ["core::", "alloc::", "std::", "__rustc::", "panic_abort::"];
    const WORDS: [&str; 6] = ["panic", "abort", "unwind", "_fail", "handle_alloc_error", "short_backtrace"];
    const PLAIN: [&str; 5] = ["abort", "rust_panic", "rust_begin_unwind", "__rust_start_panic", "__rust_abort"];
    const SDK: [&str; 2] = ["pcluster_sdk::report::install::", "pcluster_sdk::host::fail"];
    let path = name.trim_start_matches('<');
    PLAIN.contains(&name)
        || SDK.iter().any(|own| path.starts_with(own))
        || RUNTIME.iter().any(|crate_| path.starts_with(crate_)) && WORDS.iter().any(|word| path.contains(word))
}

/// Returns the name of a function as its author wrote it. Without a name, it is the number.
fn name(frame: &FrameInfo) -> String {
    match frame.func_name() {
        Some(name) => readable(name),
        None => format!("function {}", frame.func_index()),
    }
}

/// Returns a name as one line of readable text. The name section comes from the plugin and may hold anything.
fn readable(name: &str) -> String {
    // The alternate form leaves out the hash.
    let name = format!("{:#}", rustc_demangle::demangle(name));
    let mut readable: String = name.chars().filter(|character| !character.is_control()).collect();
    if readable.len() > NAME_MAX {
        readable.truncate(readable.floor_char_boundary(NAME_MAX - '…'.len_utf8()));
        readable.push('…');
    }
    readable
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::limits::Limits;
    use crate::engine::testing::{LIMITS, run, task};
    use crate::run::failure::FailureKind;

    /// Returns the backtrace of a task `t` that calls `$inner`.
    async fn backtrace(inner: &str, limits: Limits) -> (FailureKind, Option<String>) {
        let task = task(
            &format!(
                r#"(module
                (import "pcluster_v1" "emit" (func $emit (param i32 i32)))
                (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
                (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
                (memory (export "memory") 1)
                (func $_ZN4deep5inner17h0123456789abcdefE (param $depth i32) {inner})
                (func $task (export "pcluster_task:t") (param i32 i32) (result i32)
                  (call $_ZN4deep5inner17h0123456789abcdefE (i32.const 100)) (i32.const 0))
                (func (export "pcluster_alloc") (param i32) (result i32) (i32.const 16)))"#
            ),
            limits,
        );
        let failure = run(&task).await.expect_err("a failure");
        (failure.kind, failure.backtrace)
    }

    #[tokio::test]
    async fn a_failure_tells_the_functions_that_the_guest_was_in() {
        let both = || Some("deep::inner\ntask".to_owned());
        let brief = Limits { timeout: Duration::from_millis(50), ..LIMITS };
        // At offset 64 is a subscription to a clock, 10 s from now.
        let sleep = "(i64.store (i32.const 88) (i64.const 10000000000)) (i32.store (i32.const 80) (i32.const 1))
            (drop (call $poll (i32.const 64) (i32.const 256) (i32.const 1) (i32.const 0)))";
        for (inner, limits, kind) in [
            ("unreachable", LIMITS, FailureKind::Trap),
            ("(drop (i32.load (i32.const -4)))", LIMITS, FailureKind::Trap),
            ("(call $exit (i32.const 0))", LIMITS, FailureKind::Trap),
            ("(call $emit (i32.const -1) (i32.const 5))", LIMITS, FailureKind::Trap),
            ("(call $emit (i32.const 0) (i32.const 0))", LIMITS, FailureKind::Output),
            ("(drop (memory.grow (i32.const 100))) unreachable", LIMITS, FailureKind::Memory),
            ("(loop $again (br $again))", brief, FailureKind::Timeout),
            (sleep, brief, FailureKind::Timeout),
        ] {
            assert_eq!(backtrace(inner, limits).await, (kind, both()), "{inner}");
        }
    }

    #[tokio::test]
    async fn a_deep_backtrace_is_cut_to_the_innermost_functions() {
        let call = "(call $_ZN4deep5inner17h0123456789abcdefE (i32.sub (local.get $depth) (i32.const 1)))";
        let inner = format!("(if (local.get $depth) (then {call}) (else unreachable))");
        let (_, backtrace) = backtrace(&inner, LIMITS).await;
        assert_eq!(backtrace.expect("a backtrace"), ["deep::inner"; FRAMES_MAX].join("\n"));
    }

    #[test]
    fn a_backtrace_begins_where_the_guest_panicked() {
        for (frames, first) in [
            (&["abort", "std::process::abort", "__rustc::rust_panic", "a::b"][..], "a::b"),
            (
                &["__rustc::__rust_start_panic", "core::panicking::panic_fmt", "core::option::unwrap_failed", "a::b"],
                "a::b",
            ),
            (&["std::panicking::panic_handler::{closure#0}", "a::panic_now", "core::panicking::panic"], "a::panic_now"),
            (&["core::str::slice_error_fail", "a::abort::it"], "a::abort::it"),
            (&["core::slice::sort::merge", "a::b"], "core::slice::sort::merge"),
            (&["std::thread::functions::sleep", "a::b"], "std::thread::functions::sleep"),
            (&["function 7", "core::panicking::panic"], "function 7"),
            // A backtrace of only such functions is kept.
            (&["abort", "core::panicking::panic"], "abort"),
        ] {
            let frames: Vec<String> = frames.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(own(&frames)[0], first, "{frames:?}");
        }
    }

    #[test]
    fn names_are_as_their_author_wrote_them_and_cannot_break_lines() {
        for (name, shown) in [
            ("_ZN5probe8behavior4trap17h0123456789abcdefE", "probe::behavior::trap"),
            ("_RNvNtCs1234_5probe8behavior4trap", "probe::behavior::trap"),
            ("main", "main"),
            ("a\nb\x1b[31mc", "ab[31mc"),
        ] {
            assert_eq!(readable(name), shown);
        }
        let long = readable(&"ä".repeat(NAME_MAX));
        assert!(long.len() <= NAME_MAX && long.ends_with("ä…"), "{long}");
    }
}
