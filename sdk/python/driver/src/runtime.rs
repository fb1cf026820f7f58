//! The interpreter as one task: what is imported, what is called for each item, and what becomes of an exception.

use alloc::vec::Vec;
use core::cell::{Cell, OnceCell, RefCell};

use crate::cbor::{Keys, Known, Reader, Writer};
use crate::python::{
    Object, Ptr, PyErr_Clear, PyErr_GetRaisedException, PyErr_Occurred, PyGILState_Ensure, PyIter_Next, PyList_Append,
    PyList_New, PyLong_AsLongLongAndOverflow, PyMemoryView_FromMemory, PyObject_CallNoArgs, PyObject_CallOneArg,
    Raised, done, kind, text_of,
};
use crate::{host, keep, stack, wasi};

/// The item is handled.
pub const DONE: i32 = 0;
/// Another attempt may succeed.
const FAILED: i32 = 1;

/// Where an exception was raised.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// In the author's code, or in a file that is imported.
    Task = 0,
    /// While the item was read.
    Item = 1,
    /// While an output was written.
    Output = 2,
}

impl From<Raised> for Fault {
    fn from(_: Raised) -> Self {
        Self::Task
    }
}

/// The state of an instance.
pub struct Runtime {
    pub known: Known,
    pub keys: RefCell<Keys>,
    /// The SDK's module in the interpreter.
    sdk: Object,
    /// Renews what a snapshot must not freeze.
    renew: Object,
    /// The task's number, and its function of an item.
    task: RefCell<Option<(usize, Object)>>,
    is_renewed: Cell<bool>,
    /// Outputs are written, and given to nobody: an example runs.
    is_muted: Cell<bool>,
    output: RefCell<Vec<u8>>,
}

/// A value of the one thread.
struct Single<T>(T);

// SAFETY: there is one thread.
unsafe impl<T> Sync for Single<T> {}

static RUNTIME: Single<OnceCell<Runtime>> = Single(OnceCell::new());

/// Returns the state. `None` before the first call.
pub fn current() -> Option<&'static Runtime> {
    RUNTIME.0.get()
}

/// Where the author's files are, and their size. `pcluster.build` writes both into the module.
#[allow(non_upper_case_globals, reason = "it is an export")]
#[unsafe(no_mangle)]
pub static mut pcluster_files: [usize; 2] = [0x7a11_f11e, 0];

/// Runs a task on an item in a buffer of [`crate::pcluster_alloc`], and frees it. Returns the status.
pub fn run(task: usize, item: *mut u8, length: usize) -> i32 {
    let status = handle(task, unsafe { core::slice::from_raw_parts(item, length) });
    unsafe { crate::python::free(item) };
    status
}

/// Runs a task on one item after the other, until the node has no more.
pub fn run_each(task: usize) -> i32 {
    let (mut item, mut status) = (Vec::new(), DONE);
    while host::take_next(status, &mut item) {
        status = handle(task, &item);
    }
    DONE
}

fn handle(task: usize, item: &[u8]) -> i32 {
    conclude(prepare(task).map_err(Fault::from).and_then(|runtime| runtime.handle(item)))
}

/// Makes a task ready for a snapshot. Returns the status.
pub fn initialize(task: usize) -> i32 {
    conclude(prepare(task).and_then(Runtime::settle).map_err(Fault::from))
}

fn conclude(ran: Result<(), Fault>) -> i32 {
    match ran {
        Ok(()) => DONE,
        Err(fault) => tell(fault),
    }
}

/// Returns the state with this task.
fn prepare(task: usize) -> Result<&'static Runtime, Raised> {
    if current().is_none() {
        unsafe { PyGILState_Ensure() };
        if !stack::bound() {
            // The build of the interpreter has not been tried.
            core::arch::wasm32::unreachable();
        }
        // It cannot be set yet: nothing that starts it calls back.
        _ = RUNTIME.0.set(Runtime::start()?);
    }
    let runtime = current().ok_or(Raised)?;
    let is_loaded = runtime.task.borrow().as_ref().is_some_and(|(number, _)| *number == task);
    if !is_loaded {
        let number = Object::integer(task as i64)?;
        let function = runtime.sdk.attribute(c"load")?.call(&[number.as_ptr()])?;
        runtime.task.replace(Some((task, function)));
    }
    Ok(runtime)
}

impl Runtime {
    /// Hands the author's files to the interpreter.
    fn start() -> Result<Self, Raised> {
        /// `PyBUF_READ`.
        const READ: i32 = 0x100;
        let engine = Object::import(c"pcluster_engine")?;
        host::offer(&engine)?;
        // Written into the module after it was compiled.
        let [place, size] = unsafe { core::ptr::read_volatile(&raw const pcluster_files) };
        let files = Object::own(unsafe { PyMemoryView_FromMemory(place as *const u8, size as isize, READ) })?;
        let variables = variables()?;
        let sdk = engine.attribute(c"start")?.call(&[files.as_ptr(), variables.as_ptr()])?;
        Ok(Self {
            known: Known::find(&sdk)?,
            keys: RefCell::new(Keys::new()),
            renew: sdk.attribute(c"renew")?,
            sdk,
            task: RefCell::new(None),
            is_renewed: Cell::new(false),
            is_muted: Cell::new(false),
            output: RefCell::new(Vec::with_capacity(4096)),
        })
    }

    /// Runs the task on an item.
    fn handle(&self, bytes: &[u8]) -> Result<(), Fault> {
        if !self.is_renewed.replace(true) {
            Object::own(unsafe { PyObject_CallNoArgs(self.renew.as_ptr()) })?;
        }
        let item = Reader::new(bytes, &self.known, &mut self.keys.borrow_mut()).item().map_err(|_| Fault::Item)?;
        let task = self.task.borrow().as_ref().map(|(_, function)| function.as_ptr()).ok_or(Raised)?;
        let result = Object::own(unsafe { PyObject_CallOneArg(task, item.as_ptr()) })?;
        drop(item);
        if result.as_ptr() == self.known.none.as_ptr() {
            return Ok(());
        }
        if kind(result.as_ptr()) != self.known.generator.as_ptr() {
            return self.give(result.as_ptr());
        }
        while let Some(output) = next(&result)? {
            self.give(output.as_ptr())?;
        }
        Ok(())
    }

    fn give(&self, output: Ptr) -> Result<(), Fault> {
        if kind(output) != self.known.topic.as_ptr() {
            self.write(output)?;
            if !self.is_muted.get() {
                host::give(&self.output.borrow(), None);
            }
            return Ok(());
        }
        let output = Object::share(output);
        let (value, topic) = (output.attribute(c"value")?, output.attribute(c"topic")?);
        self.write(value.as_ptr())?;
        if !self.is_muted.get() {
            host::give(&self.output.borrow(), Some(unsafe { text_of(topic.as_ptr()) }?));
        }
        Ok(())
    }

    fn write(&self, value: Ptr) -> Result<(), Fault> {
        Writer::new(&self.known, &mut self.output.borrow_mut()).item(value).map_err(|_| Fault::Output)
    }

    /// Runs the examples, and then makes what is there stay.
    fn settle(&self) -> Result<(), Raised> {
        self.is_muted.set(true);
        let ran = self.examples();
        self.is_muted.set(false);
        ran?;
        self.is_renewed.set(false);
        self.keys.borrow_mut().close();
        let objects = Object::own(unsafe { PyObject_CallNoArgs(self.sdk.attribute(c"settle")?.as_ptr()) })?;
        keep::immortal(objects.as_ptr());
        drop(objects);
        // Empties CPython's lists of free objects, which lie anywhere.
        Object::own(unsafe { PyObject_CallNoArgs(self.sdk.attribute(c"collect")?.as_ptr()) })?;
        keep::fill_holes();
        Ok(())
    }

    fn examples(&self) -> Result<(), Raised> {
        let examples = Object::own(unsafe { PyObject_CallNoArgs(self.sdk.attribute(c"examples")?.as_ptr()) })?;
        let mut bytes = Vec::new();
        while let Some(item) = next(&examples)? {
            Writer::new(&self.known, &mut bytes).item(item.as_ptr())?;
            self.handle(&bytes).map_err(|_| Raised)?;
        }
        Ok(())
    }
}

/// Returns the next value of a generator. `None` at its end.
fn next(generator: &Object) -> Result<Option<Object>, Raised> {
    let output = unsafe { PyIter_Next(generator.as_ptr()) };
    if !output.is_null() {
        return Object::own(output).map(Some);
    }
    if unsafe { PyErr_Occurred() }.is_null() { Ok(None) } else { Err(Raised) }
}

/// Returns the stage's environment variables as a list of `bytes`.
fn variables() -> Result<Object, Raised> {
    let list = Object::own(unsafe { PyList_New(0) })?;
    for variable in wasi::variables() {
        let variable = Object::bytes(variable)?;
        done(unsafe { PyList_Append(list.as_ptr(), variable.as_ptr()) })?;
    }
    Ok(list)
}

/// Tells the node about the exception. Returns the status.
fn tell(fault: Fault) -> i32 {
    let told = Object::own(unsafe { PyErr_GetRaisedException() }).and_then(|exception| {
        // Without the SDK, if its own import has failed.
        let sdk = Object::import(c"pcluster_engine")?;
        let fault = Object::integer(fault as i64)?;
        let status = sdk.attribute(c"failed")?.call(&[exception.as_ptr(), fault.as_ptr()])?;
        Ok(unsafe { PyLong_AsLongLongAndOverflow(status.as_ptr(), &mut 0) } as i32)
    });
    told.unwrap_or_else(|Raised| {
        unsafe { PyErr_Clear() };
        host::say_why(b"the task failed, and so did telling why");
        FAILED
    })
}
