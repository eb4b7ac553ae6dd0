//! The way to the kernel, where it comes in, and where it is left.

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;

#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "mov rdi, rsp", "and rsp, -16", "call begin", "ud2");
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x0, sp", "bl begin", "brk #1");

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    exit(255)
}

/// The compiled `core` names it; nothing here unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// Ends the program.
pub fn exit(code: i32) -> ! {
    loop {
        // SAFETY: a plain number.
        unsafe { call(number::EXIT_GROUP, [code as usize, 0, 0, 0]) };
    }
}

/// Makes a system call; below zero is an error.
///
/// # Safety
///
/// The arguments are what the call wants, see its page in section 2 of the manual.
#[cfg(target_arch = "x86_64")]
pub unsafe fn call(number: usize, [first, second, third, fourth]: [usize; 4]) -> isize {
    let answer;
    // SAFETY: the kernel keeps every register but these.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => answer,
            in("rdi") first, in("rsi") second, in("rdx") third, in("r10") fourth,
            lateout("rcx") _, lateout("r11") _,
            // clone(2) has a fifth.
            in("r8") 0_usize,
            options(nostack),
        );
    }
    answer
}

/// Makes a system call; below zero is an error.
///
/// # Safety
///
/// The arguments are what the call wants, see its page in section 2 of the manual.
#[cfg(target_arch = "aarch64")]
pub unsafe fn call(number: usize, [first, second, third, fourth]: [usize; 4]) -> isize {
    let answer;
    // SAFETY: the kernel keeps every register but the first.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number, inlateout("x0") first => answer,
            in("x1") second, in("x2") third, in("x3") fourth,
            // clone(2) has a fifth.
            in("x4") 0_usize,
            options(nostack),
        );
    }
    answer
}

/// Numbers of system calls.
#[cfg(target_arch = "x86_64")]
pub mod number {
    pub const WRITE: usize = 1;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const IOCTL: usize = 16;
    pub const GETPID: usize = 39;
    pub const CLONE: usize = 56;
    pub const EXECVE: usize = 59;
    pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;
    pub const SETPGID: usize = 109;
    pub const RT_SIGTIMEDWAIT: usize = 128;
    pub const EXIT_GROUP: usize = 231;
}

/// Numbers of system calls.
#[cfg(target_arch = "aarch64")]
pub mod number {
    pub const IOCTL: usize = 29;
    pub const WRITE: usize = 64;
    pub const EXIT_GROUP: usize = 94;
    pub const KILL: usize = 129;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const RT_SIGTIMEDWAIT: usize = 137;
    pub const SETPGID: usize = 154;
    pub const GETPID: usize = 172;
    pub const CLONE: usize = 220;
    pub const EXECVE: usize = 221;
    pub const WAIT4: usize = 260;
}
