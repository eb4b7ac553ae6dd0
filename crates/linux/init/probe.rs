//! Makes one system call: `probe NUMBER [ARGUMENT…]` ends with 0, or with the error's number. For
//! tests that ask what a container's processes may do.
//!
//! A static program without a C library, as the init of containers is: it runs in any container.
#![no_std]
#![no_main]
#![no_builtins]

#[allow(dead_code, reason = "the init's other calls")]
mod kernel;

/// # Safety
///
/// `stack` is the stack as execve(2) leaves it.
#[unsafe(no_mangle)]
unsafe extern "C" fn begin(stack: *const usize) -> ! {
    // SAFETY: a count, and as many texts, the first of which is the program's name.
    let (count, words) = unsafe { (*stack, stack.add(1).cast::<*const u8>()) };
    let mut numbers = [0; 5];
    for at in 1..count.min(6) {
        // SAFETY: as above.
        numbers[at - 1] = number(unsafe { *words.add(at) });
    }
    let [call, first, second, third, fourth] = numbers;
    // SAFETY: no pointer is given; where one is wanted, the kernel refuses the address.
    let answer = unsafe { kernel::call(call, [first, second, third, fourth]) };
    kernel::exit(if answer < 0 { -answer as i32 } else { 0 })
}

fn number(mut text: *const u8) -> usize {
    let mut value = 0_usize;
    // SAFETY: it ends with a zero, which is no digit.
    while let digit @ b'0'..=b'9' = unsafe { *text } {
        value = value.wrapping_mul(10).wrapping_add((digit - b'0') as usize);
        // SAFETY: as above.
        text = unsafe { text.add(1) };
    }
    value
}
