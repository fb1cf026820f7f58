//! Files, folders, sockets and names: there are none.

use super::{handle, put};

/// `no-entry` of `wasi:filesystem`.
const NO_ENTRY: u8 = 20;
/// `not-supported` of `wasi:sockets`.
const NOT_SUPPORTED: u8 = 2;
/// `name-unresolvable` of `wasi:sockets`.
const NO_NAME: u8 = 18;

/// Writes an error of one byte, which stands at this offset of the result.
unsafe fn fail(result: *mut u8, offset: usize, error: u8) {
    unsafe {
        put(result, 0, 1_u8);
        put(result, offset, error);
    }
}

#[unsafe(export_name = "wasi:filesystem/preopens/get-directories")]
unsafe extern "C" fn directories(result: *mut u8) {
    unsafe {
        put(result, 0, core::ptr::dangling::<u32>());
        put(result, 4, 0_usize);
    }
}

// The interpreter was built with folders that are gone.
#[unsafe(export_name = "wasi:filesystem/types/[method]descriptor.open-at")]
unsafe extern "C" fn open_at(_: i32, _: i32, _: i32, _: i32, _: i32, _: i32, result: *mut u8) {
    unsafe { fail(result, 4, NO_ENTRY) }
}

#[unsafe(export_name = "wasi:filesystem/types/[method]descriptor.stat-at")]
unsafe extern "C" fn stat_at(_: i32, _: i32, _: i32, _: i32, result: *mut u8) {
    unsafe { fail(result, 8, NO_ENTRY) }
}

#[unsafe(export_name = "wasi:filesystem/types/[method]descriptor.readlink-at")]
unsafe extern "C" fn readlink_at(_: i32, _: i32, _: i32, result: *mut u8) {
    unsafe { fail(result, 4, NO_ENTRY) }
}

#[unsafe(export_name = "wasi:filesystem/types/[method]descriptor.create-directory-at")]
unsafe extern "C" fn create_directory_at(_: i32, _: i32, _: i32, result: *mut u8) {
    unsafe { fail(result, 1, NO_ENTRY) }
}

#[unsafe(export_name = "wasi:filesystem/types/[method]descriptor.remove-directory-at")]
unsafe extern "C" fn remove_directory_at(_: i32, _: i32, _: i32, result: *mut u8) {
    unsafe { fail(result, 1, NO_ENTRY) }
}

#[unsafe(export_name = "wasi:filesystem/types/[method]descriptor.unlink-file-at")]
unsafe extern "C" fn unlink_file_at(_: i32, _: i32, _: i32, result: *mut u8) {
    unsafe { fail(result, 1, NO_ENTRY) }
}

#[unsafe(export_name = "wasi:sockets/tcp-create-socket/create-tcp-socket")]
unsafe extern "C" fn create_tcp_socket(_: i32, result: *mut u8) {
    unsafe { fail(result, 4, NOT_SUPPORTED) }
}

#[unsafe(export_name = "wasi:sockets/udp-create-socket/create-udp-socket")]
unsafe extern "C" fn create_udp_socket(_: i32, result: *mut u8) {
    unsafe { fail(result, 4, NOT_SUPPORTED) }
}

#[unsafe(export_name = "wasi:sockets/ip-name-lookup/resolve-addresses")]
unsafe extern "C" fn resolve_addresses(_: i32, _: i32, _: i32, result: *mut u8) {
    unsafe { fail(result, 4, NO_NAME) }
}

#[unsafe(export_name = "wasi:sockets/instance-network/instance-network")]
extern "C" fn network() -> i32 {
    handle::NETWORK
}
