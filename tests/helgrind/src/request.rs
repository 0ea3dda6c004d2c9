//! Valgrind's client requests, which do nothing anywhere else. The instructions are those of
//! `valgrind.h`, the numbers those of `helgrind.h` (3.19 to 3.24), where they are an enumeration that
//! only ever grew at its end.

/// `VG_USERREQ_TOOL_BASE('H','G') + 256`.
const FIRST: usize = ((b'H' as usize) << 24 | (b'G' as usize) << 16) + 256;

/// What helgrind is told.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
pub(crate) enum Request {
    LockMade = FIRST + 14,
    LockGoes = FIRST + 15,
    LockTaken = FIRST + 17,
    LockReleased = FIRST + 18,
    HappensBefore = FIRST + 33,
    HappensAfter = FIRST + 34,
    Untracked = FIRST + 39,
}

/// Tells it of the object at `address`.
#[cfg(target_arch = "x86_64")]
pub(crate) fn tell(request: Request, address: usize, argument: usize) {
    let arguments = [request as usize, address, argument, 0, 0, 0];
    // SAFETY: outside valgrind the rotations of `rdi` add up to 128 bits, so to none, and the exchange
    // of `rbx` with itself is none; inside it reads the six words that `rax` points to and sets `rdx`.
    unsafe {
        std::arch::asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") arguments.as_ptr(),
            inout("rdx") 0_usize => _,
        );
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn tell(_: Request, _: usize, _: usize) {}
