//! nftables by netfilter's own library, in this process.
//!
//! It is loaded when it is first needed, so that a machine without it can still say what it lacks.
//! A context belongs to the namespace that its thread was in when it was opened: it holds a netlink
//! socket there, and keeps the namespace alive. All contexts are used by the one thread that owns
//! the kernel.

use crate::error::Error;
use crate::namespace::Place;
use crate::netlink::{Socket, generation};
use libloading::Library;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr::NonNull;
use std::sync::{Arc, mpsc};
use std::thread;

const LIBRARY: &str = "libnftables.so.1";

type New = unsafe extern "C" fn(c_uint) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void);
type Switch = unsafe extern "C" fn(*mut c_void) -> c_int;
type Run = unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int;
type Text = unsafe extern "C" fn(*mut c_void) -> *const c_char;

/// The library's functions. They stay valid as long as `_library` is loaded.
struct Functions {
    new: New,
    free: Free,
    buffer_output: Switch,
    buffer_error: Switch,
    run: Run,
    output: Text,
    error: Text,
    _library: Library,
}

/// The loaded library, and the thread that closes contexts.
#[derive(Clone)]
pub(crate) struct Nftables {
    functions: Arc<Functions>,
    closing: mpsc::Sender<Context>,
}

/// A context in a namespace, and the generation of the rules there when it last changed them.
pub(crate) struct Rules {
    context: Option<Context>,
    closing: mpsc::Sender<Context>,
    /// `None`: not known, because somebody else changed rules at the same time.
    generation: Option<u32>,
}

struct Context {
    pointer: NonNull<c_void>,
    functions: Arc<Functions>,
}

// SAFETY: the library keeps nothing in thread-local storage, and a context is used by one thread at
// a time, because it has one owner.
unsafe impl Send for Context {}

impl Nftables {
    /// Loads the library.
    pub(crate) fn load() -> Result<Self, Error> {
        // SAFETY: netfilter's library runs no code of its own when it is loaded, and the types are
        // those of its header, nftables/libnftables.h.
        let functions = unsafe { load() }.map_err(Error::Library)?;
        let (closing, closed) = mpsc::channel::<Context>();
        // Closing waits for the kernel's grace period of everything that was deleted, 5 to 20 ms,
        // so it is not done where somebody waits. The thread ends with the last sender.
        thread::Builder::new()
            .name("nft-close".to_owned())
            .spawn(move || closed.into_iter().for_each(drop))
            .map_err(|source| Error::system("start a thread", source))?;
        Ok(Self { functions: Arc::new(functions), closing })
    }

    /// Opens a context in the thread's namespace.
    pub(crate) fn open(&self) -> Result<Rules, Error> {
        let context = Context::open(&self.functions)?;
        Ok(Rules { context: Some(context), closing: self.closing.clone(), generation: None })
    }
}

impl Rules {
    /// Carries out `text` as one transaction: all of it or nothing. The thread must be in the
    /// context's namespace.
    pub(crate) fn apply(&mut self, text: &str) -> Result<(), Error> {
        let mut socket = Socket::netfilter()?;
        let before = generation(&mut socket)?;
        self.generation = None;
        self.run(text)?;
        // Exactly one more: nobody else changed anything in between.
        let after = generation(&mut socket)?;
        self.generation = (after == before.wrapping_add(1)).then_some(after);
        Ok(())
    }

    /// Says whether the rules are as [`Self::apply`] left them. The thread must be in the context's
    /// namespace.
    pub(crate) fn untouched(&self) -> Result<bool, Error> {
        let now = generation(&mut Socket::netfilter()?)?;
        Ok(self.generation == Some(now))
    }

    /// Says whether it is known what the rules are.
    pub(crate) fn known(&self) -> bool {
        self.generation.is_some()
    }

    /// Runs commands and returns what they print.
    pub(crate) fn run(&mut self, text: &str) -> Result<String, Error> {
        self.context.as_ref().ok_or(Error::Context)?.run(text)
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        if let Some(context) = self.context.take() {
            // Without the closing thread it is closed here, on return from `send`.
            drop(self.closing.send(context));
        }
    }
}

/// Replaces the rules of `place` by the transaction `text`, with a context for this once.
pub(crate) fn apply_once(nftables: &Nftables, place: &Place, text: &str) -> Result<(), Error> {
    place.visit(|| nftables.open()?.run(text).map(drop))
}

impl Context {
    fn open(functions: &Arc<Functions>) -> Result<Self, Error> {
        // SAFETY: flag 0 asks for the defaults; the result is checked before use.
        let pointer = NonNull::new(unsafe { (functions.new)(0) }).ok_or(Error::Context)?;
        let context = Self { pointer, functions: Arc::clone(functions) };
        // SAFETY: the context is valid until it is freed in `drop`.
        let refused = unsafe {
            (functions.buffer_output)(pointer.as_ptr()) != 0
                || (functions.buffer_error)(pointer.as_ptr()) != 0
        };
        if refused { Err(Error::Context) } else { Ok(context) }
    }

    fn run(&self, text: &str) -> Result<String, Error> {
        let command = CString::new(text)
            .map_err(|error| Error::Rules { message: format!("{error} in the rules") })?;
        let context = self.pointer.as_ptr();
        // SAFETY: the context is valid, and the library only reads the command, up to its NUL.
        let code = unsafe { (self.functions.run)(context, command.as_ptr()) };
        // SAFETY: both buffers were switched on when the context was opened; they stay valid until
        // the next run, and are copied here.
        let (output, error) = unsafe {
            (copy((self.functions.output)(context)), copy((self.functions.error)(context)))
        };
        if code == 0 {
            return Ok(output);
        }
        let message = error.trim();
        let message = if message.is_empty() { "no reason given" } else { message };
        Err(Error::Rules { message: message.to_owned() })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `new` and is freed once, here.
        unsafe { (self.functions.free)(self.pointer.as_ptr()) }
    }
}

/// Copies a text of the library.
///
/// # Safety
/// `text` is null or points to a text that ends with NUL.
unsafe fn copy(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller says so.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Loads the library and finds its functions.
///
/// # Safety
/// The library at that name must be netfilter's.
unsafe fn load() -> Result<Functions, libloading::Error> {
    // SAFETY: the caller says so; the types are those of the library's header.
    unsafe {
        let library = Library::new(LIBRARY)?;
        Ok(Functions {
            new: *library.get::<New>(b"nft_ctx_new\0")?,
            free: *library.get::<Free>(b"nft_ctx_free\0")?,
            buffer_output: *library.get::<Switch>(b"nft_ctx_buffer_output\0")?,
            buffer_error: *library.get::<Switch>(b"nft_ctx_buffer_error\0")?,
            run: *library.get::<Run>(b"nft_run_cmd_from_buffer\0")?,
            output: *library.get::<Text>(b"nft_ctx_get_output_buffer\0")?,
            error: *library.get::<Text>(b"nft_ctx_get_error_buffer\0")?,
            _library: library,
        })
    }
}
