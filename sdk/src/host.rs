//! The imports of the ABI: the functions of the node that runs the guest.
//!
//! In a native build there is no node. Tests then call tasks as plain functions, and reach this module only by calls, which the
//! world of the test answers. This crate's own tests check here what a node would have received.

pub(crate) use imports::*;

#[cfg(target_arch = "wasm32")]
mod imports {
    #![expect(unsafe_code, reason = "this is the border between guest and host")]

    mod raw {
        // The names are those in `pcluster_abi`. An attribute cannot use its constants.
        #[link(wasm_import_module = "pcluster_v1")]
        unsafe extern "C" {
            pub(super) fn emit(pointer: *const u8, length: usize);
            pub(super) fn emit_to(topic: *const u8, topic_length: usize, pointer: *const u8, length: usize);
            pub(super) fn fail(pointer: *const u8, length: usize);
            pub(super) fn log(level: i32, pointer: *const u8, length: usize);
            pub(super) safe fn context_len() -> usize;
            pub(super) fn context_read(pointer: *mut u8);
            pub(super) safe fn next(status: i32) -> i32;
            pub(super) fn item_read(pointer: *mut u8);
            pub(super) fn call(name: *const u8, name_length: usize, pointer: *const u8, length: usize) -> i32;
            pub(super) fn call_read(pointer: *mut u8);
            pub(super) safe fn retry_after(millis: u64);
        }
    }

    /// Emits one output.
    pub(crate) fn emit(item: &[u8]) {
        // SAFETY: the host reads as many bytes as the slice has, and has read them all when the call returns.
        unsafe { raw::emit(item.as_ptr(), item.len()) }
    }

    /// Emits one output with another topic. An empty topic stands for none.
    pub(crate) fn emit_to(topic: &str, item: &[u8]) {
        // SAFETY: as for `emit`, for both slices.
        unsafe { raw::emit_to(topic.as_ptr(), topic.len(), item.as_ptr(), item.len()) }
    }

    /// Sets the reason of a failure.
    pub(crate) fn fail(message: &str) {
        // SAFETY: as for `emit`.
        unsafe { raw::fail(message.as_ptr(), message.len()) }
    }

    /// Writes a log line.
    pub(crate) fn log(level: i32, message: &str) {
        // SAFETY: as for `emit`.
        unsafe { raw::log(level, message.as_ptr(), message.len()) }
    }

    /// Ends an item with this status, and reads the next into the buffer. The buffer grows if needed. Returns the length of the
    /// item, or `None` if there is no other.
    pub(crate) fn next(status: i32, buffer: &mut Vec<u8>) -> Option<usize> {
        let length = usize::try_from(raw::next(status)).ok()?;
        if buffer.len() < length {
            buffer.resize(length, 0);
        }
        // SAFETY: the host writes as many bytes as it has announced, and the buffer has that many.
        unsafe { raw::item_read(buffer.as_mut_ptr()) };
        Some(length)
    }

    /// Returns the context as CBOR.
    pub(crate) fn context() -> Vec<u8> {
        let mut bytes = vec![0; raw::context_len()];
        // SAFETY: the host writes as many bytes as it has announced, and the vector has that many.
        unsafe { raw::context_read(bytes.as_mut_ptr()) };
        bytes
    }

    /// Calls the host. Returns the response, or the failure.
    pub(crate) fn call(name: &str, request: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
        // SAFETY: as for `emit`.
        let result = unsafe { raw::call(name.as_ptr(), name.len(), request.as_ptr(), request.len()) };
        let length = if result < 0 { !result } else { result };
        let mut answer = vec![0; usize::try_from(length).unwrap_or_default()];
        // SAFETY: the host writes as many bytes as it has announced, and the vector has that many.
        unsafe { raw::call_read(answer.as_mut_ptr()) };
        if result < 0 { Err(answer) } else { Ok(answer) }
    }

    /// Sets how long the next attempt waits.
    pub(crate) fn retry_after(millis: u64) {
        raw::retry_after(millis);
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod imports {
    use std::cell::RefCell;

    /// The node of a native test.
    #[derive(Default)]
    pub(crate) struct Recorded {
        pub(crate) items: Vec<Vec<u8>>,
        /// The topics of items that have another, with their numbers.
        pub(crate) topics: Vec<(usize, String)>,
        pub(crate) failure: Option<String>,
        pub(crate) lines: Vec<(i32, String)>,
        /// How long the next attempt waits, in milliseconds.
        pub(crate) retry_after: Option<u64>,
        /// The statuses of the items that were taken.
        pub(crate) statuses: Vec<i32>,
        waiting: Vec<Vec<u8>>,
        context: Vec<u8>,
    }

    thread_local! {
        static RECORDED: RefCell<Recorded> = RefCell::default();
    }

    pub(crate) fn emit(item: &[u8]) {
        RECORDED.with_borrow_mut(|recorded| recorded.items.push(item.to_vec()));
    }

    pub(crate) fn emit_to(topic: &str, item: &[u8]) {
        RECORDED.with_borrow_mut(|recorded| recorded.topics.push((recorded.items.len(), topic.to_owned())));
        emit(item);
    }

    pub(crate) fn fail(message: &str) {
        RECORDED.with_borrow_mut(|recorded| recorded.failure = Some(message.to_owned()));
    }

    pub(crate) fn log(level: i32, message: &str) {
        RECORDED.with_borrow_mut(|recorded| recorded.lines.push((level, message.to_owned())));
    }

    pub(crate) fn next(status: i32, buffer: &mut Vec<u8>) -> Option<usize> {
        RECORDED.with_borrow_mut(|recorded| {
            recorded.statuses.push(status);
            let item = recorded.waiting.pop()?;
            buffer.splice(..item.len().min(buffer.len()), item.iter().copied());
            Some(item.len())
        })
    }

    pub(crate) fn context() -> Vec<u8> {
        RECORDED.with_borrow(|recorded| recorded.context.clone())
    }

    /// Calls the world of the test. Fails if there is none.
    pub(crate) fn call(name: &str, request: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
        crate::testing::answer(name, request)
    }

    pub(crate) fn retry_after(millis: u64) {
        RECORDED.with_borrow_mut(|recorded| recorded.retry_after = Some(millis));
    }

    /// Returns the calls recorded on this thread, and clears them.
    #[cfg(test)]
    pub(crate) fn recorded() -> Recorded {
        RECORDED.take()
    }

    /// Sets the items that [`next`] returns on this thread, the last first.
    #[cfg(test)]
    pub(crate) fn set_waiting(items: Vec<Vec<u8>>) {
        RECORDED.with_borrow_mut(|recorded| recorded.waiting = items);
    }

    /// Sets the context that [`context`] returns on this thread.
    #[cfg(test)]
    pub(crate) fn set_context(context: Vec<u8>) {
        RECORDED.with_borrow_mut(|recorded| recorded.context = context);
    }
}
