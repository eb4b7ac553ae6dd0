//! nftables by netfilter's own library, in this process.
//!
//! It is loaded when it is first needed, so that a machine without it can still say what it lacks.
//! Each run has a thread and a context of its own, in the namespace of who asks, and the thread has
//! descriptors of its own: the library watches its socket by select(2), which ends the process where
//! the socket's number is 1024 or more, and opens it so that programs which are started inherit it.

use crate::descriptors;
use crate::error::Error;
use crate::kernel::ChangeListener;
use crate::netlink::{Socket, Transaction, generation};
use libloading::Library;
use std::collections::VecDeque;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

const LIBRARY: &str = "libnftables.so.1";
/// What is listed has the handles by which it can be named.
const SHOW_HANDLES: c_uint = 1 << 3;
/// Runs whose context is being closed: they wait at the same time for the same.
const ENDING: usize = 16;

type New = unsafe extern "C" fn(c_uint) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void);
type Flags = unsafe extern "C" fn(*mut c_void, c_uint);
type Switch = unsafe extern "C" fn(*mut c_void) -> c_int;
type Run = unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int;
type Text = unsafe extern "C" fn(*mut c_void) -> *const c_char;

/// The library's functions. They stay valid as long as `_library` is loaded.
struct Functions {
    new: New,
    free: Free,
    output_flags: Flags,
    buffer_output: Switch,
    buffer_error: Switch,
    run: Run,
    output: Text,
    error: Text,
    _library: Library,
}

/// The loaded library, and what is closed where nobody waits for it.
///
/// To close a socket to netfilter waits for the kernel's grace period of everything that was deleted
/// in the namespace, 5 to 20 ms.
#[derive(Clone)]
pub(crate) struct Nftables {
    functions: Arc<Functions>,
    /// The threads of the last runs: they answer first and close then.
    ending: Arc<Mutex<VecDeque<JoinHandle<()>>>>,
    closing: mpsc::Sender<Socket>,
}

/// The rules of a namespace, and their generation when they were last changed from here.
pub(crate) struct Rules {
    nftables: Nftables,
    /// `None`: it is being closed.
    socket: Option<Socket>,
    /// Who is told of the generations that we make.
    listener: Option<ChangeListener>,
    /// `None`: not known, because somebody else changed rules at the same time.
    generation: Option<u32>,
}

struct Context {
    pointer: NonNull<c_void>,
    functions: Arc<Functions>,
}

impl Nftables {
    /// Loads the library.
    pub(crate) fn load() -> Result<Self, Error> {
        // SAFETY: netfilter's library runs no code of its own when it is loaded, and the types are
        // those of its header, nftables/libnftables.h.
        let functions = unsafe { load() }.map_err(Error::Library)?;
        let (closing, closed) = mpsc::channel::<Socket>();
        // It ends with the last sender.
        thread::Builder::new()
            .name("nft-close".to_owned())
            .spawn(move || closed.into_iter().for_each(drop))
            .map_err(|source| Error::system("start a thread", source))?;
        Ok(Self { functions: Arc::new(functions), ending: Arc::default(), closing })
    }

    /// Opens the rules of the thread's namespace.
    pub(crate) fn open(&self) -> Result<Rules, Error> {
        let socket = Some(Socket::netfilter()?);
        Ok(Rules { nftables: self.clone(), socket, listener: None, generation: None })
    }

    /// Runs commands in the thread's namespace and returns what they print.
    fn run(&self, text: &str) -> Result<String, Error> {
        let (reply, answer) = mpsc::sync_channel(1);
        let (functions, text) = (Arc::clone(&self.functions), text.to_owned());
        let work = move || {
            let opened = descriptors::leave().and_then(|()| Context::open(&functions));
            let (context, ran) = match opened {
                Ok(context) => {
                    let ran = context.run(&text);
                    (Some(context), ran)
                }
                Err(error) => (None, Err(error)),
            };
            // Whoever asks waits for the answer, but not until the context is closed.
            drop(reply.send(ran));
            drop(context);
        };
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        if ending.len() >= ENDING
            && let Some(first) = ending.pop_front()
        {
            drop(first.join());
        }
        // A thread begins in the namespace of the one that starts it.
        let thread = thread::Builder::new().name("nft".to_owned()).spawn(work);
        ending.push_back(thread.map_err(|source| Error::system("start a thread", source))?);
        drop(ending);
        answer.recv().map_err(|_ended| Error::Context)?
    }
}

impl Rules {
    /// Tells `listener` of every own change.
    pub(crate) fn heard_by(mut self, listener: ChangeListener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Carries out `text` as one transaction: all of it, or nothing where that fails. Known rules
    /// stay known, and what somebody else has touched stays touched. The thread must be in the
    /// namespace.
    pub(crate) fn apply(&mut self, text: &str) -> Result<(), Error> {
        let before = generation(self.socket()?)?;
        let own = self.carry_out(text, before)?;
        if self.generation == Some(before) {
            self.generation = own;
        }
        Ok(())
    }

    /// The same of a `text` that leaves nothing of what was there: then it is known what the rules
    /// are.
    pub(crate) fn replace(&mut self, text: &str) -> Result<(), Error> {
        let before = generation(self.socket()?)?;
        self.generation = self.carry_out(text, before)?;
        Ok(())
    }

    /// Returns the generation that this made; `None`: somebody else changed rules at the same time.
    fn carry_out(&mut self, text: &str, before: u32) -> Result<Option<u32>, Error> {
        self.run(text)?;
        // Exactly one more: nobody else changed anything in between.
        let now = generation(self.socket()?)?;
        let own = (now == after(before)).then_some(now);
        if let (Some(listener), Some(own)) = (&self.listener, own) {
            listener.expect(own);
        }
        Ok(own)
    }

    /// Carries out `transaction`, unless somebody else has changed rules since the last one. The
    /// thread may be anywhere.
    pub(crate) fn change(&mut self, transaction: Transaction) -> Result<(), Error> {
        let before = self.generation.take().ok_or(Error::Context)?;
        transaction.commit(self.socket()?, before)?;
        self.generation = Some(after(before));
        Ok(())
    }

    /// Takes the rules that are there for known, and returns their generation.
    pub(crate) fn believe(&mut self) -> Result<u32, Error> {
        let now = generation(self.socket()?)?;
        self.generation = Some(now);
        Ok(now)
    }

    /// The generation after the next change; `None` where it is not known what the rules are.
    pub(crate) fn next(&self) -> Option<u32> {
        self.generation.map(after)
    }

    /// Says whether the rules are as we left them.
    pub(crate) fn untouched(&mut self) -> Result<bool, Error> {
        let now = generation(self.socket()?)?;
        Ok(self.generation == Some(now))
    }

    /// Says whether it is known what the rules are.
    pub(crate) fn known(&self) -> bool {
        self.generation.is_some()
    }

    /// The socket to netfilter in the namespace.
    pub(crate) fn socket(&mut self) -> Result<&mut Socket, Error> {
        self.socket.as_mut().ok_or(Error::Context)
    }

    /// Runs commands and returns what they print. The thread must be in the namespace.
    pub(crate) fn run(&self, text: &str) -> Result<String, Error> {
        self.nftables.run(text)
    }
}

/// The generation that a transaction makes. The kernel passes over 0.
fn after(generation: u32) -> u32 {
    generation.wrapping_add(1).max(1)
}

impl Drop for Rules {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.take() {
            // Without the closing thread it is closed here, on return from `send`.
            drop(self.nftables.closing.send(socket));
        }
    }
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
        // SAFETY: as before; the flag is one of the library's header.
        unsafe { (functions.output_flags)(pointer.as_ptr(), SHOW_HANDLES) };
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
            output_flags: *library.get::<Flags>(b"nft_ctx_output_set_flags\0")?,
            buffer_output: *library.get::<Switch>(b"nft_ctx_buffer_output\0")?,
            buffer_error: *library.get::<Switch>(b"nft_ctx_buffer_error\0")?,
            run: *library.get::<Run>(b"nft_run_cmd_from_buffer\0")?,
            output: *library.get::<Text>(b"nft_ctx_get_output_buffer\0")?,
            error: *library.get::<Text>(b"nft_ctx_get_error_buffer\0")?,
            _library: library,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};

    #[test]
    fn rules_stay_known_where_a_change_fails_and_touched_where_others_have_touched_them() {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
        let mut rules = Nftables::load().unwrap().open().unwrap();
        let whole = "table ip own\ndelete table ip own\ntable ip own {\nchain one {\n}\n}";
        rules.replace(whole).unwrap();
        assert!(rules.untouched().unwrap());
        rules.apply("add rule ip others one accept").unwrap_err();
        assert!(rules.untouched().unwrap(), "nothing was changed");
        rules.apply("add rule ip own one accept").unwrap();
        assert!(rules.untouched().unwrap());
        rules.run("flush chain ip own one").unwrap();
        rules.apply("add rule ip own one drop").unwrap();
        assert!(rules.known() && !rules.untouched().unwrap(), "others have changed it before");
        rules.replace(whole).unwrap();
        assert!(rules.untouched().unwrap());
    }
}
