//! The x86-64 signal frame: what a handler finds on its stack, and how `rt_sigreturn(2)` takes it back.
//!
//! Layout, from the handler's `rsp` up: return address (the restorer), `ucontext`, `siginfo`; above
//! them, 64-byte aligned, the XSAVE area and its closing magic.

use abi::signal::{SigAction, SigAltStack, SigInfo, SigSet, Signal};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::action::{SA_ONSTACK, SA_RESTORER};

/// Bytes below `rsp` that a function may use without moving it.
const RED_ZONE: u64 = 128;
/// `UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS`.
const UC_FLAGS: u64 = 7;
/// `FP_XSTATE_MAGIC1`.
const MAGIC1: u32 = 0x4650_5853;
/// `FP_XSTATE_MAGIC2`.
const MAGIC2: u32 = 0x4650_5845;
/// Where in the legacy area the description of the extended one stands.
const SW_BYTES: usize = 464;
/// `SS_ONSTACK`.
pub const SS_ONSTACK: u32 = 1;
/// `SS_DISABLE`.
pub const SS_DISABLE: u32 = 2;
/// `SS_AUTODISARM`.
pub const SS_AUTODISARM: u32 = 1 << 31;

/// `struct sigcontext`; also the registers a frame is built from and gives back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[allow(missing_docs)] // The field names are the registers' own.
pub struct SigContext {
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rsp: u64,
    pub rip: u64,
    pub rflags: u64,
    pub cs: u16,
    pub gs: u16,
    pub fs: u16,
    pub ss: u16,
    pub err: u64,
    pub trapno: u64,
    pub oldmask: u64,
    pub cr2: u64,
    pub fpstate: u64,
    pub reserved: [u64; 8],
}

/// `struct ucontext`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UContext {
    /// `UC_*`.
    pub flags: u64,
    /// Unused.
    pub link: u64,
    /// The alternate stack.
    pub stack: SigAltStack,
    /// Registers.
    pub context: SigContext,
    /// The mask to go back to.
    pub mask: SigSet,
}

/// `struct rt_sigframe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RtFrame {
    /// Where the handler returns to.
    pub restorer: u64,
    /// State to go back to.
    pub ucontext: UContext,
    /// Why.
    pub info: SigInfo,
}

/// What a frame is made of.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The signal.
    pub signal: Signal,
    /// Its record.
    pub info: SigInfo,
    /// Its action, which has a handler.
    pub action: SigAction,
    /// Registers at the interruption (`fpstate` is filled in).
    pub context: SigContext,
    /// The mask to go back to.
    pub mask: SigSet,
    /// The task's alternate stack.
    pub stack: SigAltStack,
    /// XSAVE area, at least the 512 bytes of the legacy region.
    pub fp: &'a [u8],
    /// `XCR0`.
    pub xcr0: u64,
}

/// Bytes to write, and what the handler starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// Where the frame goes; the handler's `rsp`, its `rdx` and `rsi` point into it.
    pub sp: u64,
    /// The frame proper.
    pub frame: RtFrame,
    /// Where the floating-point state goes.
    pub fp_at: u64,
    /// It, with its magics.
    pub fp: Vec<u8>,
}

impl Built {
    /// Address of the `siginfo` (second argument).
    pub fn info_at(&self) -> u64 {
        self.sp + 8 + size_of::<UContext>() as u64
    }

    /// Address of the `ucontext` (third argument).
    pub fn ucontext_at(&self) -> u64 {
        self.sp + 8
    }
}

/// Does `sp` lie on the alternate stack?
pub fn on_stack(stack: &SigAltStack, sp: u64) -> bool {
    stack.flags & SS_AUTODISARM == 0 && sp > stack.sp && sp - stack.sp <= stack.size
}

impl Frame<'_> {
    /// Lays the frame out. `None` when there is no room (the alternate stack would overflow, or there
    /// is no restorer): the task gets `SIGSEGV`.
    pub fn build(&self) -> Option<Built> {
        if self.action.flags & SA_RESTORER == 0 {
            return None;
        }
        let stack = self.stack;
        let nested = on_stack(&stack, self.context.rsp);
        let switch = self.action.flags & SA_ONSTACK != 0
            && !nested
            && stack.flags & SS_DISABLE == 0
            && stack.size != 0;
        let top = if switch {
            stack.sp.checked_add(stack.size)?
        } else {
            self.context.rsp.checked_sub(RED_ZONE)?
        };
        let fp = self.fp_image();
        let fp_at = top.checked_sub(fp.len() as u64)? & !63;
        // As after a call: rsp + 8 is a multiple of 16.
        let sp = (fp_at.checked_sub(size_of::<RtFrame>() as u64)? & !15).checked_sub(8)?;
        if (switch || nested) && !(sp > stack.sp && sp - stack.sp <= stack.size) {
            return None;
        }
        let fpstate = if fp.is_empty() { 0 } else { fp_at };
        let context = SigContext { fpstate, oldmask: self.mask.0, ..self.context };
        let ucontext = UContext { flags: UC_FLAGS, link: 0, stack, context, mask: self.mask };
        let frame = RtFrame { restorer: self.action.restorer, ucontext, info: self.info };
        Some(Built { sp, frame, fp_at, fp })
    }

    /// The XSAVE area with its description in the unused legacy bytes and the magic behind it.
    fn fp_image(&self) -> Vec<u8> {
        let mut fp = self.fp.to_vec();
        let size = fp.len() as u32;
        let mut describe = |at: usize, bytes: &[u8]| {
            if let Some(slot) = fp.get_mut(at..at + bytes.len()) {
                slot.copy_from_slice(bytes);
            }
        };
        describe(SW_BYTES, &MAGIC1.to_le_bytes());
        describe(SW_BYTES + 4, &(size + 4).to_le_bytes());
        describe(SW_BYTES + 8, &self.xcr0.to_le_bytes());
        describe(SW_BYTES + 16, &size.to_le_bytes());
        if !fp.is_empty() {
            fp.extend_from_slice(&MAGIC2.to_le_bytes());
        }
        fp
    }
}

/// What `rt_sigreturn(2)` finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Registers, as the guest left them: to be sanitised.
    pub context: SigContext,
    /// The mask, without what cannot be blocked.
    pub mask: SigSet,
    /// The alternate stack.
    pub stack: SigAltStack,
}

impl Restored {
    /// Where the `ucontext` is when `rt_sigreturn` is called with this `rsp`: the return address has
    /// been popped.
    pub const fn ucontext_at(rsp: u64) -> u64 {
        rsp
    }
}

impl From<UContext> for Restored {
    fn from(uc: UContext) -> Self {
        Self { context: uc.context, mask: uc.mask.difference(SigSet::UNBLOCKABLE), stack: uc.stack }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(rsp: u64, flags: u64, stack: SigAltStack, fp: &[u8]) -> Option<Built> {
        let action = SigAction { handler: 0x1000, flags, restorer: 0x2000, mask: SigSet::EMPTY };
        let signal = Signal::SIGUSR1;
        let context = SigContext { rsp, ..SigContext::default() };
        let info = SigInfo::new(signal, 0);
        Frame { signal, info, action, context, mask: SigSet::EMPTY, stack, fp, xcr0: 7 }.build()
    }

    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!(size_of::<SigContext>(), 256);
        assert_eq!(size_of::<UContext>(), 304);
        assert_eq!(size_of::<RtFrame>(), 440);
        assert_eq!(core::mem::offset_of!(SigContext, fpstate), 184);
        assert_eq!(core::mem::offset_of!(SigContext, rip), 128);
        assert_eq!(core::mem::offset_of!(UContext, context), 40);
        assert_eq!(core::mem::offset_of!(UContext, mask), 296);
        assert_eq!(core::mem::offset_of!(RtFrame, info), 312);
    }

    #[test]
    fn frames_are_aligned_and_spare_the_red_zone() {
        for rsp in 0x7000_0000..0x7000_0040 {
            let built = frame(rsp, SA_RESTORER, SigAltStack::default(), &[0; 832]).expect("fits");
            assert_eq!(built.sp % 16, 8);
            assert_eq!(built.fp_at % 64, 0);
            assert!(built.fp_at + built.fp.len() as u64 <= rsp - 128);
            assert!(built.sp + size_of::<RtFrame>() as u64 <= built.fp_at);
            assert_eq!(&built.fp[832..], &MAGIC2.to_le_bytes());
            assert_eq!(&built.fp[464..468], &MAGIC1.to_le_bytes());
        }
    }

    #[test]
    fn the_alternate_stack_is_used_once_and_not_overrun() {
        let stack = SigAltStack { sp: 0x1_0000, flags: 0, pad: 0, size: 0x2000 };
        let flags = SA_RESTORER | SA_ONSTACK;
        let first = frame(0x7000_0000, flags, stack, &[0; 832]).expect("fits");
        assert!(on_stack(&stack, first.sp));
        let second = frame(first.sp, flags, stack, &[0; 832]).expect("fits");
        assert!(second.sp < first.sp && on_stack(&stack, second.sp));
        assert_eq!(frame(0x1_0200, flags, stack, &[0; 832]), None);
    }

    #[test]
    fn a_handler_without_restorer_is_refused() {
        assert_eq!(frame(0x7000_0000, 0, SigAltStack::default(), &[]), None);
    }
}
