//! The small init of containers: starts a command, hands signals on to it, reaps processes that
//! lost their parent, and ends as the command does.
//!
//! It must run in containers that hold nothing but one program, so it needs neither a C library nor
//! the standard one: `build.rs` makes a static program of a few kilobytes of it, which is mounted
//! where a container asks for an init. `init -- COMMAND ARGUMENT…`
#![no_std]
#![no_main]
// Else the compiler makes calls of the C library of loops over bytes.
#![no_builtins]

mod kernel;

use core::mem::MaybeUninit;
use core::ptr::{null, null_mut};
use kernel::{call, exit, number};

const SIG_BLOCK: usize = 0;
const SIG_SETMASK: usize = 2;
const SIGCHLD: i32 = 17;
const SIGTTIN: i32 = 21;
const SIGTTOU: i32 = 22;
/// SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS: a fault of this program itself.
const FAULTS: u64 = bit(4) | bit(5) | bit(6) | bit(7) | bit(8) | bit(11) | bit(31);
const TIOCSPGRP: usize = 0x5410;
const WNOHANG: usize = 1;
const ENOENT: isize = -2;
const EACCES: isize = -13;
const ENOTDIR: isize = -20;
const ENAMETOOLONG: isize = -36;
const PATH_MAX: usize = 4096;
const SEARCHED: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\0";

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// A text that ends with a zero.
type Text = *const u8;

/// Where the kernel starts it: the stack holds the number of arguments, the arguments, a null, the
/// environment, a null.
///
/// # Safety
///
/// `stack` is the stack as execve(2) leaves it.
#[unsafe(no_mangle)]
unsafe extern "C" fn begin(stack: *const usize) -> ! {
    // SAFETY: the kernel promises this layout, see above.
    let (mut argv, envp) = unsafe {
        let argv: *const Text = stack.add(1).cast();
        (argv.add(1), argv.add(*stack + 1))
    };
    // SAFETY: `argv` goes on to its null.
    unsafe {
        if !(*argv).is_null() && equals(*argv, b"--\0") {
            argv = argv.add(1);
        }
        if (*argv).is_null() {
            complain(b"no command\0".as_ptr(), null());
            exit(127);
        }
    }
    let wanted = !FAULTS;
    let mut before: u64 = 0;
    set_mask(SIG_BLOCK, &wanted, &mut before);
    // SAFETY: a copy of this process, as fork(2) makes it: it has its own memory.
    let child = unsafe { call(number::CLONE, [SIGCHLD as usize, 0, 0, 0]) };
    match child {
        0 => become_command(argv, envp, before),
        1.. => look_after(child as i32, wanted),
        _ => {
            complain(b"cannot start a process\0".as_ptr(), null());
            exit(126)
        }
    }
}

/// Runs the command in a process group of its own, in the foreground of the terminal if there is
/// one: keys that send signals then reach it.
fn become_command(argv: *const Text, envp: *const Text, mask: u64) -> ! {
    // SAFETY: plain numbers, and a pointer to one that lives until the call is over. Without a
    // terminal they fail, which is fine.
    unsafe {
        call(number::SETPGID, [0, 0, 0, 0]);
        let own = call(number::GETPID, [0; 4]) as i32;
        call(number::IOCTL, [0, TIOCSPGRP, &raw const own as usize, 0]);
    }
    set_mask(SIG_SETMASK, &mask, null_mut());
    // SAFETY: both lists are the kernel's own.
    let error = unsafe { execute(argv, envp) };
    // SAFETY: there is a command, see `begin`.
    complain(b"cannot execute \0".as_ptr(), unsafe { *argv });
    exit(if is_missing(error) { 127 } else { 126 })
}

/// Hands signals on and reaps, until the command has ended.
fn look_after(child: i32, wanted: u64) -> ! {
    loop {
        // SAFETY: a pointer to a mask that lives; nothing else is asked for.
        let signal =
            unsafe { call(number::RT_SIGTIMEDWAIT, [&raw const wanted as usize, 0, 0, 8]) } as i32;
        match signal {
            SIGCHLD => reap(child),
            // Of the terminal, to this program alone.
            SIGTTIN | SIGTTOU => {}
            1.. => {
                // SAFETY: plain numbers.
                unsafe { call(number::KILL, [child as usize, signal as usize, 0, 0]) };
            }
            // Interrupted.
            _ => {}
        }
    }
}

/// Reaps whatever has ended; ends with the command.
fn reap(child: i32) {
    let mut ended = None;
    loop {
        let mut status: i32 = 0;
        // SAFETY: a pointer to a number that lives.
        let pid =
            unsafe { call(number::WAIT4, [usize::MAX, &raw mut status as usize, WNOHANG, 0]) };
        if pid <= 0 {
            break;
        }
        if pid as i32 == child {
            let signal = status & 0x7f;
            ended = Some(if signal == 0 { status >> 8 & 0xff } else { 128 + signal });
        }
    }
    if let Some(code) = ended {
        exit(code);
    }
}

/// execvp(3) without its shell. Returns only if it failed.
///
/// # Safety
///
/// Both are lists of texts that end with a null, and the first has a text.
unsafe fn execute(argv: *const Text, envp: *const Text) -> isize {
    // SAFETY: as the caller promises; `whole` ends with a zero wherever it is used.
    unsafe {
        let command = *argv;
        let run =
            |path: Text| call(number::EXECVE, [path as usize, argv as usize, envp as usize, 0]);
        if *command == 0
            || (0..).map(|at| *command.add(at)).take_while(|it| *it != 0).any(|it| it == b'/')
        {
            return run(command);
        }
        let mut folder = searched(envp);
        let mut outcome = ENOENT;
        loop {
            let mut whole = Path::new();
            while *folder != 0 && *folder != b':' {
                whole.push(*folder);
                folder = folder.add(1);
            }
            if 0 < whole.length {
                whole.push(b'/');
            }
            let mut at = command;
            while *at != 0 {
                whole.push(*at);
                at = at.add(1);
            }
            let error = run(whole.text());
            if error == EACCES {
                outcome = EACCES;
            } else if !is_missing(error) {
                return error;
            }
            if *folder == 0 {
                return outcome;
            }
            folder = folder.add(1);
        }
    }
}

/// Says whether an error means that there is no such program.
fn is_missing(error: isize) -> bool {
    error == ENOENT || error == ENOTDIR || error == ENAMETOOLONG
}

/// A path that is put together. What is too long is cut, and then is not found.
struct Path {
    // Filled with zeroes, it would take a call of the C library.
    bytes: [MaybeUninit<u8>; PATH_MAX],
    length: usize,
}

impl Path {
    fn new() -> Self {
        Self { bytes: [const { MaybeUninit::uninit() }; PATH_MAX], length: 0 }
    }

    fn push(&mut self, byte: u8) {
        if self.length < PATH_MAX - 1 {
            self.bytes[self.length].write(byte);
            self.length += 1;
        }
    }

    fn text(&mut self) -> Text {
        self.bytes[self.length].write(0);
        self.bytes.as_ptr().cast()
    }
}

/// The value of PATH.
///
/// # Safety
///
/// `envp` is a list of texts that ends with a null.
unsafe fn searched(mut envp: *const Text) -> Text {
    // SAFETY: as the caller promises.
    unsafe {
        while !(*envp).is_null() {
            let name = b"PATH=";
            let mut at = 0;
            while at < name.len() && *(*envp).add(at) == name[at] {
                at += 1;
            }
            if at == name.len() {
                return (*envp).add(at);
            }
            envp = envp.add(1);
        }
    }
    SEARCHED.as_ptr()
}

/// Says whether both are the same text. `other` ends with a zero.
///
/// # Safety
///
/// `text` ends with a zero.
unsafe fn equals(text: Text, other: &[u8]) -> bool {
    let mut at = 0;
    // SAFETY: neither is read beyond its zero: they are the same up to there.
    while at < other.len() && unsafe { *text.add(at) } == other[at] {
        at += 1;
    }
    at == other.len()
}

fn set_mask(how: usize, mask: &u64, before: *mut u64) {
    // SAFETY: pointers to masks that live, and their size.
    unsafe {
        call(number::RT_SIGPROCMASK, [how, core::ptr::from_ref(mask) as usize, before as usize, 8])
    };
}

/// Writes to standard error: which program, what, and about what.
fn complain(what: Text, about: Text) {
    for text in [b"docker-init: \0".as_ptr(), what, about, b"\n\0".as_ptr()] {
        let mut length = 0;
        // SAFETY: each is null or ends with a zero.
        unsafe {
            while !text.is_null() && *text.add(length) != 0 {
                length += 1;
            }
            call(number::WRITE, [2, text as usize, length, 0]);
        }
    }
}
