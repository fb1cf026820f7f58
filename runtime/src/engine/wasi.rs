//! The operating system of a guest: WASI preview 1 (`wasi_snapshot_preview1`) with clocks, random bytes, standard output, sleep
//! and the environment variables of its stage. Guests have no files, arguments or network, and no call that opens them.
//!
//! The `wasmtime-wasi` crate is not used: without files and sockets little of it is left, its context costs more than a fresh
//! instance, and its preview 1 brings the whole component model (2.5 CPU minutes of a clean build, measured with version 48).
//!
//! Numbers and layouts follow the specification (WASI preview 1, `witx/wasi_snapshot_preview1.witx`).

mod clock;
mod last;
mod poll;
pub(super) mod state;

use pcluster_abi::Level;
use wasmtime::{Caller, Linker};

use super::host::{Host, parts, range};
use state::Exit;

/// The import module.
const MODULE: &str = "wasi_snapshot_preview1";
/// The most bytes of a line of standard output. Longer lines are cut.
const LINE_MAX: usize = 16 << 10;

/// The most bytes that one call writes. A guest must not keep the host busy. The call returns how many it wrote.
const WRITE_MAX: usize = 64 << 10;
/// The most buffers or subscriptions of one call, for the same reason.
const LIST_MAX: usize = 1 << 10;
/// The most random bytes of one call, for the same reason.
const RANDOM_MAX: usize = 1 << 20;

const SUCCESS: i32 = 0;
const BAD_DESCRIPTOR: i32 = 8;
const FAULT: i32 = 21;
const INVALID: i32 = 28;
const NOT_SUPPORTED: i32 = 58;
const CANNOT_SEEK: i32 = 70;

const STDIN: i32 = 0;
const STDOUT: i32 = 1;
const STDERR: i32 = 2;

impl Host {
    fn print(&mut self, descriptor: i32, bytes: &[u8]) {
        self.wasi.is_worldly = true;
        let stream = usize::from(descriptor == STDERR);
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let line = &mut self.wasi.output[stream];
            let room = LINE_MAX.saturating_sub(line.len());
            line.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                self.finish_line(stream);
            }
        }
    }

    fn finish_line(&mut self, stream: usize) {
        let mut line = std::mem::take(&mut self.wasi.output[stream]);
        while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            line.pop();
        }
        if stream == 1 {
            self.wasi.last.push(&line);
        }
        self.log(if stream == 0 { Level::Info } else { Level::Warn }, &line);
    }

    /// Logs printed text that does not end in a line break.
    pub(super) fn flush_output(&mut self) {
        for stream in 0..2 {
            if !self.wasi.output[stream].is_empty() {
                self.finish_line(stream);
            }
        }
    }
}

/// Guest memory with checked access. A call with an address outside of it fails.
struct Guest<'a>(&'a mut [u8]);

/// The result of a call. The error is a number of the specification.
type Answer<T> = Result<T, i32>;

impl Guest<'_> {
    fn read<const N: usize>(&self, pointer: i32, offset: usize) -> Answer<[u8; N]> {
        let start = (pointer.cast_unsigned() as usize).checked_add(offset).ok_or(FAULT)?;
        let bytes = self.0.get(start..start.saturating_add(N)).ok_or(FAULT)?;
        bytes.try_into().map_err(|_| FAULT)
    }

    fn read_i32(&self, pointer: i32, offset: usize) -> Answer<i32> {
        self.read(pointer, offset).map(i32::from_le_bytes)
    }

    fn write(&mut self, pointer: i32, offset: usize, bytes: &[u8]) -> Answer<()> {
        let start = (pointer.cast_unsigned() as usize).checked_add(offset).ok_or(FAULT)?;
        let target = self.0.get_mut(start..start.saturating_add(bytes.len())).ok_or(FAULT)?;
        target.copy_from_slice(bytes);
        Ok(())
    }

    fn write_len(&mut self, pointer: i32, length: usize) -> Answer<()> {
        self.write(pointer, 0, &u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes())
    }
}

/// Runs a call and returns its error number, or zero.
fn answer(
    caller: &mut Caller<'_, Host>,
    function: &'static str,
    call: impl FnOnce(&mut Guest<'_>, &mut Host) -> Answer<()>,
) -> wasmtime::Result<i32> {
    let (memory, host) = parts(caller, function)?;
    Ok(call(&mut Guest(memory), host).err().unwrap_or(SUCCESS))
}

/// Defines the functions of this module for guests.
pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    link_environment(linker)?;
    clock::link(linker)?;
    poll::link(linker)?;
    link_output(linker)?;
    link_process(linker)?;
    link_nothing(linker)
}

fn link_environment(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap(MODULE, "args_sizes_get", |mut caller: Caller<'_, Host>, count: i32, size: i32| {
        answer(&mut caller, "args_sizes_get", |guest, _| {
            guest.write_len(count, 0)?;
            guest.write_len(size, 0)
        })
    })?;
    linker.func_wrap(MODULE, "args_get", |_: i32, _: i32| SUCCESS)?;
    linker.func_wrap(MODULE, "environ_sizes_get", |mut caller: Caller<'_, Host>, count: i32, size: i32| {
        answer(&mut caller, "environ_sizes_get", |guest, host| {
            let variables = host.environment();
            guest.write_len(count, variables.len())?;
            guest.write_len(size, variables.iter().map(|variable| variable.len() + 1).sum())
        })
    })?;
    linker.func_wrap(MODULE, "environ_get", |mut caller: Caller<'_, Host>, pointers: i32, mut text: i32| {
        answer(&mut caller, "environ_get", |guest, host| {
            for (variable, position) in host.environment().iter().zip(0..) {
                guest.write(pointers, position * 4, &text.to_le_bytes())?;
                guest.write(text, 0, variable.as_bytes())?;
                guest.write(text, variable.len(), b"\0")?;
                let length = i32::try_from(variable.len() + 1).map_err(|_| FAULT)?;
                text = text.wrapping_add(length);
            }
            Ok(())
        })
    })?;
    Ok(())
}

fn link_output(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap(
        MODULE,
        "fd_write",
        |mut caller: Caller<'_, Host>, descriptor: i32, vectors: i32, count: i32, written: i32| {
            answer(&mut caller, "fd_write", |guest, host| {
                if !matches!(descriptor, STDOUT | STDERR) {
                    return Err(BAD_DESCRIPTOR);
                }
                let mut total = 0;
                for position in 0..(count.cast_unsigned() as usize).min(LIST_MAX) {
                    let pointer = guest.read_i32(vectors, position * 8)?;
                    let length = guest.read_i32(vectors, position * 8 + 4)?;
                    let bytes = guest.0.get(range(pointer, length)).ok_or(FAULT)?;
                    let bytes = &bytes[..bytes.len().min(WRITE_MAX - total)];
                    host.print(descriptor, bytes);
                    total += bytes.len();
                    if total == WRITE_MAX {
                        break;
                    }
                }
                guest.write_len(written, total)
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "fd_read",
        |mut caller: Caller<'_, Host>, descriptor: i32, _: i32, _: i32, read: i32| {
            answer(&mut caller, "fd_read", |guest, _| match descriptor {
                STDIN => guest.write_len(read, 0),
                _ => Err(BAD_DESCRIPTOR),
            })
        },
    )?;
    linker.func_wrap(MODULE, "fd_fdstat_get", |mut caller: Caller<'_, Host>, descriptor: i32, pointer: i32| {
        answer(&mut caller, "fd_fdstat_get", |guest, _| {
            /// Bit 1 allows reading, bit 6 writing.
            const RIGHTS: [u64; 3] = [1 << 1, 1 << 6, 1 << 6];
            let rights = usize::try_from(descriptor).ok().and_then(|each| RIGHTS.get(each)).ok_or(BAD_DESCRIPTOR)?;
            let mut status = [0; 24];
            status[0] = CHARACTER_DEVICE;
            status[8..16].copy_from_slice(&rights.to_le_bytes());
            guest.write(pointer, 0, &status)
        })
    })?;
    linker.func_wrap(MODULE, "fd_filestat_get", |mut caller: Caller<'_, Host>, descriptor: i32, pointer: i32| {
        answer(&mut caller, "fd_filestat_get", |guest, _| {
            standard(descriptor)?;
            let mut status = [0; 64];
            status[16] = CHARACTER_DEVICE;
            guest.write(pointer, 0, &status)
        })
    })?;
    linker.func_wrap(MODULE, "fd_close", |descriptor: i32| standard(descriptor).err().unwrap_or(SUCCESS))?;
    linker.func_wrap(MODULE, "fd_seek", |descriptor: i32, _: i64, _: i32, _: i32| cannot_seek(descriptor))?;
    linker.func_wrap(MODULE, "fd_tell", |descriptor: i32, _: i32| cannot_seek(descriptor))?;
    Ok(())
}

/// The file type of standard input and output.
const CHARACTER_DEVICE: u8 = 2;

fn standard(descriptor: i32) -> Answer<()> {
    if matches!(descriptor, STDIN | STDOUT | STDERR) { Ok(()) } else { Err(BAD_DESCRIPTOR) }
}

fn cannot_seek(descriptor: i32) -> i32 {
    standard(descriptor).err().unwrap_or(CANNOT_SEEK)
}

fn link_process(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap(MODULE, "proc_exit", |status: i32| -> wasmtime::Result<()> { Err(Exit(status).into()) })?;
    linker.func_wrap(MODULE, "proc_raise", |_: i32| NOT_SUPPORTED)?;
    linker.func_wrap_async(MODULE, "sched_yield", |_: Caller<'_, Host>, (): ()| {
        Box::new(async {
            tokio::task::yield_now().await;
            SUCCESS
        })
    })?;
    linker.func_wrap(MODULE, "random_get", |mut caller: Caller<'_, Host>, pointer: i32, length: i32| {
        answer(&mut caller, "random_get", |guest, host| {
            host.wasi.is_worldly = true;
            let target = guest.0.get_mut(range(pointer, length)).ok_or(FAULT)?;
            if target.len() > RANDOM_MAX {
                return Err(INVALID);
            }
            getrandom::fill(target).map_err(|_| NOT_SUPPORTED)
        })
    })?;
    Ok(())
}

/// Defines the rest of preview 1, files and sockets. There are none, so every descriptor is bad.
fn link_nothing(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    macro_rules! none {
        ($($name:literal ($($parameter:ident),*);)*) => {
            $(linker.func_wrap(MODULE, $name, |$(_: $parameter),*| BAD_DESCRIPTOR)?;)*
        };
    }
    none! {
        "fd_advise" (i32, i64, i64, i32);
        "fd_allocate" (i32, i64, i64);
        "fd_datasync" (i32);
        "fd_fdstat_set_flags" (i32, i32);
        "fd_fdstat_set_rights" (i32, i64, i64);
        "fd_filestat_set_size" (i32, i64);
        "fd_filestat_set_times" (i32, i64, i64, i32);
        "fd_pread" (i32, i32, i32, i64, i32);
        "fd_prestat_get" (i32, i32);
        "fd_prestat_dir_name" (i32, i32, i32);
        "fd_pwrite" (i32, i32, i32, i64, i32);
        "fd_readdir" (i32, i32, i32, i64, i32);
        "fd_renumber" (i32, i32);
        "fd_sync" (i32);
        "path_create_directory" (i32, i32, i32);
        "path_filestat_get" (i32, i32, i32, i32, i32);
        "path_filestat_set_times" (i32, i32, i32, i32, i64, i64, i32);
        "path_link" (i32, i32, i32, i32, i32, i32, i32);
        "path_open" (i32, i32, i32, i32, i32, i64, i64, i32, i32);
        "path_readlink" (i32, i32, i32, i32, i32, i32);
        "path_remove_directory" (i32, i32, i32);
        "path_rename" (i32, i32, i32, i32, i32, i32);
        "path_symlink" (i32, i32, i32, i32, i32);
        "path_unlink_file" (i32, i32, i32);
        "sock_accept" (i32, i32, i32);
        "sock_recv" (i32, i32, i32, i32, i32, i32);
        "sock_send" (i32, i32, i32, i32, i32);
        "sock_shutdown" (i32, i32);
    }
    Ok(())
}
