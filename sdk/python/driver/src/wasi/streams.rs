//! Standard input, which is at its end, and standard output and error, which are the log.

use super::{handle, put};

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn fd_write(descriptor: i32, buffers: *const [usize; 2], count: i32, written: *mut usize) -> i32;
}

const STDOUT: i32 = 1;
const STDERR: i32 = 2;
/// The most bytes that a node takes in one call.
const AT_ONCE: u64 = 64 << 10;

#[unsafe(export_name = "wasi:cli/stdin/get-stdin")]
extern "C" fn stdin() -> i32 {
    handle::STDIN
}

#[unsafe(export_name = "wasi:cli/stdout/get-stdout")]
extern "C" fn stdout() -> i32 {
    handle::STDOUT
}

#[unsafe(export_name = "wasi:cli/stderr/get-stderr")]
extern "C" fn stderr() -> i32 {
    handle::STDERR
}

/// Writes that an option has no value.
unsafe fn none(result: *mut u8) {
    unsafe { put(result, 0, 0_u8) };
}

#[unsafe(export_name = "wasi:cli/terminal-stdin/get-terminal-stdin")]
unsafe extern "C" fn terminal_stdin(result: *mut u8) {
    unsafe { none(result) }
}

#[unsafe(export_name = "wasi:cli/terminal-stdout/get-terminal-stdout")]
unsafe extern "C" fn terminal_stdout(result: *mut u8) {
    unsafe { none(result) }
}

#[unsafe(export_name = "wasi:cli/terminal-stderr/get-terminal-stderr")]
unsafe extern "C" fn terminal_stderr(result: *mut u8) {
    unsafe { none(result) }
}

#[unsafe(export_name = "wasi:io/streams/[method]output-stream.check-write")]
unsafe extern "C" fn check_write(_: i32, result: *mut u8) {
    unsafe {
        put(result, 0, 0_u8);
        put(result, 8, AT_ONCE);
    }
}

#[unsafe(export_name = "wasi:io/streams/[method]output-stream.write")]
unsafe extern "C" fn write(stream: i32, pointer: usize, length: usize, result: *mut u8) {
    // A stream that was opened before the snapshot, and is neither, is taken for standard output.
    let descriptor = if stream == handle::STDERR { STDERR } else { STDOUT };
    let mut written = 0;
    unsafe {
        fd_write(descriptor, &[pointer, length], 1, &mut written);
        put(result, 0, 0_u8);
    }
}

#[unsafe(export_name = "wasi:io/streams/[method]output-stream.blocking-write-and-flush")]
unsafe extern "C" fn blocking_write_and_flush(stream: i32, pointer: usize, length: usize, result: *mut u8) {
    unsafe { write(stream, pointer, length, result) }
}

#[unsafe(export_name = "wasi:io/streams/[method]output-stream.blocking-flush")]
unsafe extern "C" fn blocking_flush(_: i32, result: *mut u8) {
    unsafe { put(result, 0, 0_u8) }
}

#[unsafe(export_name = "wasi:io/streams/[method]output-stream.subscribe")]
extern "C" fn subscribe_output(_: i32) -> i32 {
    handle::READY
}

#[unsafe(export_name = "wasi:io/streams/[method]input-stream.subscribe")]
extern "C" fn subscribe_input(_: i32) -> i32 {
    handle::READY
}

/// The end of the stream: `closed`, the second case of the error.
#[unsafe(export_name = "wasi:io/streams/[method]input-stream.read")]
unsafe extern "C" fn read(_: i32, _: u64, result: *mut u8) {
    unsafe {
        put(result, 0, 1_u8);
        put(result, 4, 1_u8);
    }
}
