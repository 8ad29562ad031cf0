//! The signal frame a stopped thread rests on, as the kernel lays it out on x86-64.

use platform::Registers;

use crate::layout::{
    ACTION, IDLE, MAILBOX, MAILBOX_LEN, OFF_FS, OFF_GIVE, OFF_GS, OFF_NEW_FP, OFF_NEW_UC, OFF_SPIN,
    OFF_STACK, OFF_STATE, OFF_UC, SLOT,
};
use crate::raw::mailbox::Mailbox;

/// What `rax` holds while a call is handled.
pub(crate) const MINUS_ENOSYS: u64 = -38i64 as u64;

const UC_STACK: usize = 16;
const GREGS: usize = 40;
const SEGMENTS: usize = 184;
const ERR: usize = 192;
const TRAPNO: usize = 200;
const CR2: usize = 216;
const FPSTATE: usize = 224;
const SIGMASK: usize = 296;
/// Bytes of a `ucontext` as the kernel reads it.
const UC_LEN: usize = 304;
/// Offset of the software-reserved bytes in a floating-point state.
const SW_RESERVED: usize = 464;
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;

/// One slot and where in it the frame is. Offsets come from registers and are checked; contents may
/// change under us and are only ever the guest's own registers.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    mailbox: &'a Mailbox,
    slot: usize,
    /// Offset of the `ucontext` in the slot.
    uc: usize,
}

impl<'a> Frame<'a> {
    /// The frame whose `ucontext` is at guest address `uc`, when that lies in the slot's stack.
    pub(crate) fn at(mailbox: &'a Mailbox, slot: usize, uc: u64) -> Option<Self> {
        let base = MAILBOX + slot as u64 * SLOT;
        let offset = usize::try_from(uc.checked_sub(base)?).ok()?;
        let fits = offset >= OFF_STACK && offset % 8 == 0 && offset + UC_LEN + 128 <= SLOT as usize;
        fits.then_some(Self { mailbox, slot, uc: offset })
    }

    /// Builds a fresh frame with reset floating-point state and makes the stub return to it.
    pub(crate) fn fresh(mailbox: &'a Mailbox, slot: usize) -> Self {
        let frame = Self { mailbox, slot, uc: OFF_NEW_UC };
        mailbox.write(slot, OFF_NEW_UC, &[0; UC_LEN]);
        mailbox.store(slot, OFF_STATE, IDLE);
        mailbox.store(slot, OFF_SPIN, 0);
        // Of a thread that ended before it took it.
        mailbox.set(slot, OFF_GIVE + 8, 0);
        frame.set_bases(0, 0);
        mailbox.set(slot, OFF_NEW_UC, 6); // UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS
        frame
    }

    /// The bases it returns with. A guest that has no GS base has the slot there, by which the stub finds it.
    pub(crate) fn set_bases(&self, fs_base: u64, gs_base: u64) {
        let gs_base = if visible(gs_base) == 0 { MAILBOX + self.slot as u64 * SLOT } else { gs_base };
        self.mailbox.set(self.slot, OFF_FS, canonical(fs_base));
        self.mailbox.set(self.slot, OFF_GS, canonical(gs_base));
    }

    /// Address of the `ucontext`.
    pub(crate) fn address(&self) -> u64 {
        MAILBOX + self.slot as u64 * SLOT + self.uc as u64
    }

    fn get(&self, offset: usize) -> u64 {
        self.mailbox.get(self.slot, self.uc + offset)
    }

    fn set(&self, offset: usize, value: u64) {
        self.mailbox.set(self.slot, self.uc + offset, value);
    }

    /// The registers; bases as they were set.
    pub(crate) fn registers(&self) -> Registers {
        let g = |i: usize| self.get(GREGS + i * 8);
        let mut regs = Registers {
            r8: g(0),
            r9: g(1),
            r10: g(2),
            r11: g(3),
            r12: g(4),
            r13: g(5),
            r14: g(6),
            r15: g(7),
            rdi: g(8),
            rsi: g(9),
            rbp: g(10),
            rbx: g(11),
            rdx: g(12),
            rax: g(13),
            rcx: g(14),
            rsp: g(15),
            rip: g(16),
            rflags: g(17),
            orig_rax: u64::MAX,
            fs_base: self.mailbox.get(self.slot, OFF_FS),
            gs_base: visible(self.mailbox.get(self.slot, OFF_GS)),
            ..Registers::default()
        };
        regs.sanitise();
        regs
    }

    /// Replaces the registers.
    pub(crate) fn set_registers(&self, regs: &Registers) {
        let mut r = *regs;
        r.sanitise();
        let values = [
            r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.rdi, r.rsi, r.rbp, r.rbx, r.rdx, r.rax,
            r.rcx, r.rsp, r.rip, r.rflags,
        ];
        for (i, value) in values.into_iter().enumerate() {
            self.set(GREGS + i * 8, value);
        }
        self.set_bases(r.fs_base, r.gs_base);
    }

    /// Where it goes on.
    pub(crate) fn ip(&self) -> u64 {
        self.get(GREGS + 16 * 8)
    }

    /// Replaces that.
    pub(crate) fn set_ip(&self, ip: u64) {
        self.set(GREGS + 16 * 8, ip);
    }

    /// Register `r11`.
    pub(crate) fn r11(&self) -> u64 {
        self.get(GREGS + 3 * 8)
    }

    /// Replaces the registers that are the arguments of a call.
    pub(crate) fn set_args(&self, args: [u64; 6]) {
        for (register, value) in [8, 9, 12, 2, 0, 1].into_iter().zip(args) {
            self.set(GREGS + register * 8, value);
        }
    }

    /// Makes it look as if it were in the call it is about to make again, whose instruction ends at `ip`.
    pub(crate) fn enter_call(&self, ip: u64) {
        // A call that is not restarted (from the vsyscall page, or number -1) is past it already.
        if self.ip() == ip.wrapping_sub(2) {
            self.set_ip(ip);
        }
        self.set_rax(MINUS_ENOSYS);
    }

    /// Replaces `rax` only.
    pub(crate) fn set_rax(&self, value: u64) {
        self.set(GREGS + 13 * 8, value);
    }

    /// The trap number, error code and faulting address.
    pub(crate) fn fault(&self) -> (u64, u64, u64) {
        (self.get(TRAPNO), self.get(ERR), self.get(CR2))
    }

    /// Readies it for the stub's `rt_sigreturn`: mask, stack and segments as they must be.
    pub(crate) fn seal(&self) {
        self.mailbox.set(self.slot, OFF_UC, self.address());
        self.set(SIGMASK, 0);
        self.set(SEGMENTS, 0x33 | 0x2b << 48);
        self.set(UC_STACK, MAILBOX + self.slot as u64 * SLOT + OFF_STACK as u64);
        self.set(UC_STACK + 8, 0);
        self.set(UC_STACK + 16, SLOT - OFF_STACK as u64);
    }

    fn fp_offset(&self, size: usize) -> Option<usize> {
        let base = MAILBOX + self.slot as u64 * SLOT;
        let offset = usize::try_from(self.get(FPSTATE).checked_sub(base)?).ok()?;
        (offset >= OFF_STACK && offset.checked_add(size + 4)? <= SLOT as usize).then_some(offset)
    }

    /// The floating-point state, `size` bytes; `None` for the reset state.
    pub(crate) fn fp_state(&self, size: usize) -> Option<Vec<u8>> {
        let offset = self.fp_offset(size)?;
        let mut bytes = vec![0; size];
        self.mailbox.read(self.slot, offset, &mut bytes);
        Some(bytes)
    }

    /// Replaces it, forcing what the kernel would refuse.
    pub(crate) fn set_fp_state(&self, state: &[u8], size: usize, xcr0: u64) {
        if state.len() != size || size < 576 {
            return self.reset_fp_state();
        }
        let mut bytes = state.to_vec();
        let mut put = |at: usize, value: &[u8]| {
            if let Some(to) = bytes.get_mut(at..at + value.len()) {
                to.copy_from_slice(value);
            }
        };
        put(SW_RESERVED, &MAGIC1.to_le_bytes());
        put(SW_RESERVED + 4, &(size as u32 + 4).to_le_bytes());
        put(SW_RESERVED + 8, &xcr0.to_le_bytes());
        put(SW_RESERVED + 16, &(size as u32).to_le_bytes());
        put(SW_RESERVED + 20, &[0; 28]);
        put(520, &[0; 56]);
        let word =
            |at: usize| state.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
        put(512, &(word(512) & xcr0).to_le_bytes());
        put(24, &((word(24) as u32) & 0xffff).to_le_bytes());
        self.mailbox.write(self.slot, OFF_NEW_FP, &bytes);
        self.mailbox.write(self.slot, OFF_NEW_FP + size, &MAGIC2.to_le_bytes());
        self.set(FPSTATE, MAILBOX + self.slot as u64 * SLOT + OFF_NEW_FP as u64);
        self.set(0, 7);
    }

    /// Back to the reset state: no area at all, which the kernel takes for that.
    pub(crate) fn reset_fp_state(&self) {
        self.set(FPSTATE, 0);
        self.set(0, 6);
    }
}

/// The GS base as the guest sees it.
fn visible(gs_base: u64) -> u64 {
    if (MAILBOX..MAILBOX + MAILBOX_LEN).contains(&gs_base) { 0 } else { gs_base }
}

/// Only canonical user addresses may go to `wrfsbase`.
fn canonical(base: u64) -> u64 {
    if base < 1 << 47 { base } else { 0 }
}

/// Bytes of one action in a list.
pub(crate) fn encode(action: [u64; 7]) -> [u8; ACTION] {
    let mut bytes = [0; ACTION];
    for (to, from) in bytes.chunks_exact_mut(8).zip(action) {
        to.copy_from_slice(&from.to_le_bytes());
    }
    bytes
}

/// The reset state in the layout of a frame.
pub(crate) fn reset_state(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    for (at, value) in [(0, 0x7f), (1, 3), (24, 0x80), (25, 0x1f)] {
        if let Some(to) = bytes.get_mut(at) {
            *to = value;
        }
    }
    bytes
}
