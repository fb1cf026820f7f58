//! Calls every function of the host, with wild arguments and from everywhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use pcluster_abi::Level;

use super::{GUEST, Guest, IMPORTS, assert_failed, assert_unharmed, neighbor};
use crate::engine::inspect::OFFERED;
use crate::engine::testing::{ITEM, LIMITS, run, run_on, task};
use crate::run::failure::FailureKind;

const WASI: &str = "wasi_snapshot_preview1";

/// The outcome of a call whose arguments are all -1.
#[derive(Clone, Copy, PartialEq)]
enum Comes {
    /// Returns this error number of WASI.
    Number(i32),
    /// Returns without an error.
    Nothing,
    /// Traps with this reason.
    Trap(&'static str),
}
use Comes::{Nothing, Number, Trap};

const SUCCESS: i32 = 0;
const BAD_DESCRIPTOR: i32 = 8;
const FAULT: i32 = 21;
const INVALID: i32 = 28;

/// All functions of the host.
const ALL: [(&str, &[(&str, Comes)]); 2] = [
    (
        "pcluster_v1",
        &[
            ("emit", Trap("`emit` was called with a pointer or length outside of the guest's memory")),
            ("emit_to", Trap("`emit_to` was called with a pointer or length outside of the guest's memory")),
            ("fail", Trap("`fail` was called with a pointer or length outside of the guest's memory")),
            ("log", Trap("`log` was called with a pointer or length outside of the guest's memory")),
            ("context_len", Nothing),
            ("context_read", Trap("`context_read` was called with a pointer or length outside of the guest's memory")),
            ("next", Nothing),
            ("call", Trap("`call` was called with a pointer or length outside of the guest's memory")),
            ("call_read", Trap("`call_read` was called with a pointer or length outside of the guest's memory")),
            ("retry_after", Nothing),
            ("item_read", Trap("`item_read` was called with a pointer or length outside of the guest's memory")),
        ],
    ),
    (
        WASI,
        &[
            ("args_get", Number(SUCCESS)),
            ("args_sizes_get", Number(FAULT)),
            ("clock_res_get", Number(INVALID)),
            ("clock_time_get", Number(INVALID)),
            ("environ_get", Number(FAULT)),
            ("environ_sizes_get", Number(FAULT)),
            ("fd_advise", Number(BAD_DESCRIPTOR)),
            ("fd_allocate", Number(BAD_DESCRIPTOR)),
            ("fd_close", Number(BAD_DESCRIPTOR)),
            ("fd_datasync", Number(BAD_DESCRIPTOR)),
            ("fd_fdstat_get", Number(BAD_DESCRIPTOR)),
            ("fd_fdstat_set_flags", Number(BAD_DESCRIPTOR)),
            ("fd_fdstat_set_rights", Number(BAD_DESCRIPTOR)),
            ("fd_filestat_get", Number(BAD_DESCRIPTOR)),
            ("fd_filestat_set_size", Number(BAD_DESCRIPTOR)),
            ("fd_filestat_set_times", Number(BAD_DESCRIPTOR)),
            ("fd_pread", Number(BAD_DESCRIPTOR)),
            ("fd_prestat_dir_name", Number(BAD_DESCRIPTOR)),
            ("fd_prestat_get", Number(BAD_DESCRIPTOR)),
            ("fd_pwrite", Number(BAD_DESCRIPTOR)),
            ("fd_read", Number(BAD_DESCRIPTOR)),
            ("fd_readdir", Number(BAD_DESCRIPTOR)),
            ("fd_renumber", Number(BAD_DESCRIPTOR)),
            ("fd_seek", Number(BAD_DESCRIPTOR)),
            ("fd_sync", Number(BAD_DESCRIPTOR)),
            ("fd_tell", Number(BAD_DESCRIPTOR)),
            ("fd_write", Number(BAD_DESCRIPTOR)),
            ("path_create_directory", Number(BAD_DESCRIPTOR)),
            ("path_filestat_get", Number(BAD_DESCRIPTOR)),
            ("path_filestat_set_times", Number(BAD_DESCRIPTOR)),
            ("path_link", Number(BAD_DESCRIPTOR)),
            ("path_open", Number(BAD_DESCRIPTOR)),
            ("path_readlink", Number(BAD_DESCRIPTOR)),
            ("path_remove_directory", Number(BAD_DESCRIPTOR)),
            ("path_rename", Number(BAD_DESCRIPTOR)),
            ("path_symlink", Number(BAD_DESCRIPTOR)),
            ("path_unlink_file", Number(BAD_DESCRIPTOR)),
            ("poll_oneoff", Number(INVALID)),
            ("proc_exit", Trap("the task ended the program with exit status -1")),
            ("proc_raise", Number(58)),
            ("random_get", Number(FAULT)),
            ("sched_yield", Number(SUCCESS)),
            ("sock_accept", Number(BAD_DESCRIPTOR)),
            ("sock_recv", Number(BAD_DESCRIPTOR)),
            ("sock_send", Number(BAD_DESCRIPTOR)),
            ("sock_shutdown", Number(BAD_DESCRIPTOR)),
        ],
    ),
];

/// A function that a guest can call.
struct Import {
    module: &'static str,
    name: &'static str,
    comes: Comes,
    parameters: Vec<&'static str>,
    has_result: bool,
}

/// Returns all functions, with the signatures that the host offers.
fn imports() -> Vec<Import> {
    let listed: BTreeMap<String, _> = ALL
        .iter()
        .flat_map(|(module, functions)| functions.iter().map(move |each| (module, each)))
        .map(|(module, (name, comes))| (format!("{module}::{name}"), (*module, *name, *comes)))
        .collect();
    let names = |names: Vec<&String>| names.into_iter().cloned().collect::<Vec<_>>();
    assert_eq!(names(listed.keys().collect()), names(OFFERED.keys().collect()), "list each import that there is");
    OFFERED
        .iter()
        .map(|(full, signature)| {
            let (module, name, comes) = listed[full];
            let (parameters, results) = signature.split_once(" -> ").expect("a signature");
            let parameters = parameters.trim_matches(['(', ')']).split(", ").filter(|each| !each.is_empty());
            Import { module, name, comes, parameters: parameters.collect(), has_result: results != "()" }
        })
        .collect()
}

impl Import {
    fn field(&self) -> String {
        let (parameters, result) = (self.parameters.join(" "), if self.has_result { "(result i32)" } else { "" });
        let Self { module, name, .. } = self;
        format!(r#"(import "{module}" "{name}" (func $call (param {parameters}) {result}))"#)
    }

    /// Returns a call with the same number for all arguments.
    fn call(&self, number: i64) -> String {
        let arguments: String = self.parameters.iter().map(|kind| format!("({kind}.const {number})")).collect();
        let call = format!("(call $call {arguments})");
        if self.has_result { format!("(drop {call})") } else { call }
    }

    /// Returns a task that outputs the result as a byte string. It reads the arguments from its item, eight bytes each.
    fn task(&self) -> String {
        let argument = |(kind, position): (&&str, usize)| {
            let load = format!("(i64.load offset={} (local.get $pointer))", position * 8);
            if *kind == "i32" { format!("(i32.wrap_i64 {load})") } else { load }
        };
        let arguments: String = self.parameters.iter().zip(0..).map(argument).collect();
        let call = format!("(call $call {arguments})");
        let call = if self.has_result { format!("(local.set $result {call})") } else { call };
        format!(
            "(local $result i32) {call}
             (i32.store8 (i32.const 0) (i32.const 0x44)) (i32.store offset=1 (i32.const 0) (local.get $result))
             (call $emit (i32.const 0) (i32.const 5)) (i32.const 0)"
        )
    }
}

/// Numbers at limits, for pointers, lengths and descriptors. The memory has one page.
const WILD: [i64; 16] = [
    0,
    1,
    2,
    3,
    1024,
    0xfff8,
    0xffff,
    0x1_0000,
    0x1_0001,
    0x7fff_ffff,
    -0x8000_0000,
    -0x7fff_fff8,
    -1,
    -8,
    i64::MAX,
    i64::MIN,
];

/// Returns lists of arguments: the same number for all, and mixtures.
fn arguments(count: usize) -> Vec<Vec<i64>> {
    let mut lists: Vec<Vec<i64>> = WILD.iter().map(|number| vec![*number; count]).collect();
    // A xorshift generator gives the same numbers in each run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut pick = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        WILD[usize::try_from(state % 16).expect("small")]
    };
    lists.extend((0..50).map(|_| (0..count).map(|_| pick()).collect()));
    lists
}

#[tokio::test]
async fn no_call_with_wild_arguments_harms_anyone() {
    let neighbor = neighbor();
    for import in imports() {
        let imports = import.field() + r#"(import "pcluster_v1" "emit" (func $emit (param i32 i32)))"#;
        let task = task(&Guest { imports: &imports, task: &import.task(), ..GUEST }.wat(), LIMITS);
        for list in arguments(import.parameters.len()) {
            let what = format!("`{}` with {list:x?}", import.name);
            let item: Vec<u8> = list.iter().flat_map(|number| number.to_le_bytes()).collect();
            match run_on(&task, &item, &Arc::default()).await {
                Ok(outputs) => {
                    let last = outputs.last().expect("the result");
                    let number = i32::from_le_bytes(last[1..5].try_into().expect("four bytes"));
                    // The host passes the items itself, so there is none to take.
                    let lowest = if import.name == "next" { -1 } else { 0 };
                    // A call that is denied gives the length of its failure.
                    let is_denied = import.name == "call" && number < -1;
                    assert!(is_denied || (lowest..=76).contains(&number), "{what} gave {number}");
                    if let (Number(expected), true) = (import.comes, list.iter().all(|each| *each == -1)) {
                        assert_eq!(number, expected, "{what}");
                    }
                }
                Err(failure) => {
                    assert!(matches!(import.comes, Trap(_)), "{what}: {}", failure.reason);
                    assert!(matches!(failure.kind, FailureKind::Trap | FailureKind::Output), "{what}: {failure:?}");
                    assert!(!failure.reason.is_empty() && failure.backtrace.is_some(), "{what}: {failure:?}");
                }
            }
        }
        assert_unharmed(&neighbor, import.name).await;
    }
}

#[tokio::test]
async fn a_call_from_anywhere_comes_to_what_it_should() {
    let neighbor = neighbor();
    for import in imports() {
        let (imports, call) = (import.field(), import.call(-1));
        let alloc = format!("{call} (i32.const 1024)");
        let start = format!("(func $start {call}) (start $start)");
        let guest = Guest { imports: &imports, ..GUEST };
        for (place, guest) in [
            ("initialize", Guest { initialize: &call, ..guest }),
            ("alloc", Guest { alloc: &alloc, ..guest }),
            ("start", Guest { more: &start, ..guest }),
        ] {
            let what = format!("`{}` in {place}", import.name);
            let ended = run(&task(&guest.wat(), LIMITS)).await;
            match import.comes {
                Trap(says) => assert_failed(ended, FailureKind::Trap, says, &what),
                Number(_) | Nothing => assert_eq!(ended.expect(&what), Vec::<&[u8]>::new(), "{what}"),
            }
        }
        assert_unharmed(&neighbor, import.name).await;
    }
}

/// Returns a task whose body leaves a WASI error number. It outputs the result as a byte string.
fn number_of(call: &str) -> String {
    format!(
        "(local $result i32) (local.set $result {call})
         (i32.store8 (i32.const 0) (i32.const 0x44)) (i32.store offset=1 (i32.const 0) (local.get $result))
         (call $emit (i32.const 0) (i32.const 5)) (i32.const 0)"
    )
}

#[tokio::test]
async fn no_call_makes_the_host_work_or_remember_without_bounds() {
    // The memory has sixteen pages. A list of two million buffers or subscriptions lies only partly in it.
    let memory = r#"(memory (export "memory") 16)"#;
    for (call, number) in [
        ("(call $random (i32.const 0) (i32.const -1))", FAULT),
        ("(call $random (i32.const 0) (i32.const 0x100000))", SUCCESS),
        ("(call $random (i32.const 1) (i32.const 0x100000))", FAULT),
        // The buffers are empty, and only the first thousand are read.
        ("(call $write (i32.const 1) (i32.const 0) (i32.const -1) (i32.const 0))", SUCCESS),
        ("(call $write (i32.const 1) (i32.const 0xffffc) (i32.const 1) (i32.const 0))", FAULT),
        ("(call $write (i32.const 1) (i32.const -8) (i32.const 2) (i32.const 0))", FAULT),
        ("(call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 0xffffe))", FAULT),
        ("(call $poll (i32.const 0) (i32.const 0) (i32.const -1) (i32.const 0))", INVALID),
        ("(call $poll (i32.const 0) (i32.const 0) (i32.const 1025) (i32.const 0))", INVALID),
        ("(call $poll (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))", INVALID),
        ("(call $poll (i32.const 0xfffff) (i32.const 0) (i32.const 1) (i32.const 0))", FAULT),
        ("(call $poll (i32.const 0) (i32.const 0xffff0) (i32.const 1) (i32.const 0))", FAULT),
        // The subscriptions and the events share their memory.
        ("(call $poll (i32.const 2048) (i32.const 2048) (i32.const 1024) (i32.const 0))", SUCCESS),
    ] {
        let guest = Guest { imports: IMPORTS, memory, task: &number_of(call), ..GUEST };
        let outputs = run(&task(&guest.wat(), LIMITS)).await.expect(call);
        assert_eq!(outputs[0][1..], number.to_le_bytes(), "{call}");
    }
}

#[tokio::test]
async fn printed_text_is_cut_and_cannot_be_anything_but_text() {
    let memory = r#"(memory (export "memory") 16) (data (i32.const 0) "\20\00\00\00\ff\ff\0f\00")"#;
    // The buffer reaches from 32 to the end, and its bytes are not UTF-8. One call writes 64 KiB of it, and a line holds 16.
    let body = "(memory.fill (i32.const 32) (i32.const 0xff) (i32.const 1000000))
        (i32.store (i32.const 4) (i32.const 1000000))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
        (if (i32.ne (i32.load (i32.const 8)) (i32.const 65536)) (then unreachable))
        (call $log (i32.const -7) (i32.const 32) (i32.const 1000000))
        (call $fail (i32.const 32) (i32.const 1000000))
        (i32.const 1)";
    let lines = Arc::default();
    let task = task(&Guest { imports: IMPORTS, memory, task: body, ..GUEST }.wat(), LIMITS);
    let failure = run_on(&task, ITEM, &lines).await.expect_err("a failure");
    let most = 16 << 10;
    assert_eq!(failure.reason, "\u{fffd}".repeat(most) + "…");
    let lines = lines.all();
    assert_eq!(lines.iter().map(|(level, _)| *level).collect::<Vec<_>>(), [Level::Error, Level::Info]);
    assert_eq!(lines[0].1, "\u{fffd}".repeat(most) + "…");
    assert_eq!(lines[1].1, "\u{fffd}".repeat(most));
}
