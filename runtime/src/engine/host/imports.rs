//! The functions of the ABI that a guest imports. Each finds its arguments in the guest's memory, and calls the host.

use pcluster_abi as abi;
use wasmtime::{AsContextMut, Caller, Linker};

use super::{FAILURE_MAX, Host, OutOfBounds, calls, cut, parts, range};

/// Defines the functions of the ABI for guests.
pub(in crate::engine) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap(abi::MODULE, abi::EMIT, |mut caller: Caller<'_, Host>, pointer: i32, length: i32| {
        let (memory, host) = parts(&mut caller, abi::EMIT)?;
        let item = memory.get(range(pointer, length)).ok_or(OutOfBounds(abi::EMIT))?;
        host.emit(item)?;
        if host.given.open().is_full() {
            // Makes the guest reach a tick at its next loop or call.
            caller.as_context_mut().set_epoch_deadline(0);
        }
        wasmtime::Result::<()>::Ok(())
    })?;
    linker.func_wrap(
        abi::MODULE,
        abi::EMIT_TO,
        |mut caller: Caller<'_, Host>, topic: i32, topic_length: i32, pointer: i32, length: i32| {
            let (memory, host) = parts(&mut caller, abi::EMIT_TO)?;
            let topic = memory.get(range(topic, topic_length)).ok_or(OutOfBounds(abi::EMIT_TO))?;
            let item = memory.get(range(pointer, length)).ok_or(OutOfBounds(abi::EMIT_TO))?;
            host.emit_to(topic, item)?;
            if host.given.open().is_full() {
                caller.as_context_mut().set_epoch_deadline(0);
            }
            wasmtime::Result::<()>::Ok(())
        },
    )?;
    linker.func_wrap(abi::MODULE, abi::FAIL, |mut caller: Caller<'_, Host>, pointer: i32, length: i32| {
        let (memory, host) = parts(&mut caller, abi::FAIL)?;
        let text = memory.get(range(pointer, length)).ok_or(OutOfBounds(abi::FAIL))?;
        host.failure = Some(cut(text, FAILURE_MAX));
        wasmtime::Result::<()>::Ok(())
    })?;
    linker.func_wrap(
        abi::MODULE,
        abi::LOG,
        |mut caller: Caller<'_, Host>, level: i32, pointer: i32, length: i32| {
            let (memory, host) = parts(&mut caller, abi::LOG)?;
            let line = memory.get(range(pointer, length)).ok_or(OutOfBounds(abi::LOG))?;
            host.wasi.is_worldly = true;
            host.log(abi::Level::from_i32(level), line);
            wasmtime::Result::<()>::Ok(())
        },
    )?;
    linker.func_wrap(abi::MODULE, abi::CONTEXT_LEN, |mut caller: Caller<'_, Host>| {
        i32::try_from(caller.data_mut().context().len()).unwrap_or(i32::MAX)
    })?;
    linker.func_wrap(abi::MODULE, abi::CONTEXT_READ, |mut caller: Caller<'_, Host>, pointer: i32| {
        let (memory, host) = parts(&mut caller, abi::CONTEXT_READ)?;
        let context = host.context();
        let length = i32::try_from(context.len()).unwrap_or(i32::MAX);
        let target = memory.get_mut(range(pointer, length)).ok_or(OutOfBounds(abi::CONTEXT_READ))?;
        target.copy_from_slice(&context);
        wasmtime::Result::<()>::Ok(())
    })?;
    linker.func_wrap(abi::MODULE, abi::NEXT, |mut caller: Caller<'_, Host>, status: i32| {
        caller.data_mut().next(status)
    })?;
    linker.func_wrap(abi::MODULE, abi::ITEM_READ, |mut caller: Caller<'_, Host>, pointer: i32| {
        let (memory, host) = parts(&mut caller, abi::ITEM_READ)?;
        let length = i32::try_from(host.item.len()).unwrap_or(i32::MAX);
        let target = memory.get_mut(range(pointer, length)).ok_or(OutOfBounds(abi::ITEM_READ))?;
        target.copy_from_slice(&host.item);
        wasmtime::Result::<()>::Ok(())
    })?;
    calls::link(linker)
}
