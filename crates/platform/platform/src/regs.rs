//! The general registers of x86-64, laid out as `struct user_regs_struct` (`ptrace(2)`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// General registers, segments and the two bases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[allow(missing_docs)] // The field names are the registers' own.
pub struct Registers {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// The number of the system call the thread is in, or `-1`.
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
}

/// User code segment selector of 64-bit mode.
pub const USER_CS: u64 = 0x33;
/// User data segment selector.
pub const USER_SS: u64 = 0x2b;
/// `RFLAGS` bits a guest may choose: arithmetic flags, trap, direction, alignment check, id.
pub const USER_RFLAGS: u64 = 0x0024_4dd5;
/// `RFLAGS` bits that are always set in user mode: the reserved bit 1 and interrupts on.
pub const FIXED_RFLAGS: u64 = 0x202;

impl Registers {
    /// What a new program starts with: everything zero but where it begins and its stack.
    pub fn entry(rip: u64, rsp: u64) -> Self {
        Self {
            rip,
            rsp,
            cs: USER_CS,
            ss: USER_SS,
            rflags: FIXED_RFLAGS,
            orig_rax: u64::MAX,
            ..Self::default()
        }
    }

    /// Arguments of the system call, in ABI order.
    pub fn syscall_args(&self) -> [u64; 6] {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9]
    }

    /// Forces segments and privileged flag bits to what user mode has, whatever a guest put there.
    pub fn sanitise(&mut self) {
        self.cs = USER_CS;
        self.ss = USER_SS;
        self.rflags = (self.rflags & USER_RFLAGS) | FIXED_RFLAGS;
    }
}
