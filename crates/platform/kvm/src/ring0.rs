//! Every byte that the processor reads in ring 0.
//!
//! There is no code but `hlt`. An exception makes the processor push its frame onto the stack in its page and go to
//! the entry of its vector, where it stops: the address tells which, the frame in memory what was interrupted.

use abi::Errno;

use crate::layout::{ENTRIES, ENTRY, GDT, PAGE, RING0_CS, TASK};

/// `hlt`.
const HLT: u8 = 0xf4;
/// Vectors there are.
const VECTORS: u64 = 256;
/// What user code may raise by `int`: breakpoints. Any other number is a protection fault.
const RAISED_BY_USER: u64 = 3;

/// The entries: a page of `hlt`.
pub(crate) fn entries() -> Vec<u8> {
    vec![HLT; PAGE as usize]
}

/// The gate where `syscall` enters ring 0: the same.
pub(crate) fn gate() -> Vec<u8> {
    entries()
}

/// Interrupt gates to the entries (SDM volume 3, 6.14.1).
pub(crate) fn idt() -> Vec<u8> {
    let gate = |vector: u64| {
        let to = ENTRIES + vector * ENTRY;
        let level = if vector == RAISED_BY_USER { 3 << 45 } else { 0 };
        let low = to & 0xffff | u64::from(RING0_CS) << 16 | 0x8e00 << 32 | level | (to >> 16 & 0xffff) << 48;
        [low, to >> 32]
    };
    (0..VECTORS).flat_map(gate).flat_map(u64::to_le_bytes).collect()
}

/// Segments (SDM volume 3, 3.4.5): ring 0's, user data and 64-bit user code; no 32-bit code. Where the task state is
/// each processor is told apart, so one table does.
pub(crate) fn gdt() -> Vec<u8> {
    let words: [u64; 16] = [
        0,
        0,
        0x00af_9b00_0000_ffff, // RING0_CS: code, 64 bits
        0x00cf_9300_0000_ffff, // RING0_SS: data
        0,
        0x00cf_f300_0000_ffff, // USER_SS: data
        0x00af_fb00_0000_ffff, // USER_CS: code, 64 bits
        0,
        0,
        0, // TASK, which each processor has been told
        0,
        0,
        0,
        0,
        0,
        0x0000_f500_0000_0000, // what the vDSO takes the limit of as the number of the processor: zero
    ];
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// Last byte of the table.
pub(crate) const GDT_LIMIT: u16 = 127;
/// Last byte of the interrupt table.
pub(crate) const IDT_LIMIT: u16 = 4095;
/// Last byte of the task state.
pub(crate) const TASK_LIMIT: u32 = 103;

/// Task state (SDM volume 3, 7.7) of the processor whose page is at `page`: its stack for ring 0, and no ports.
pub(crate) fn task_state(page: u64) -> Vec<u8> {
    let mut state = vec![0; TASK_LIMIT as usize + 1];
    put(&mut state, 4, &(page + PAGE).to_le_bytes());
    put(&mut state, 102, &(TASK_LIMIT as u16 + 1).to_le_bytes());
    state
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(to) = bytes.get_mut(at..at + value.len()) {
        to.copy_from_slice(value);
    }
}

/// The vector whose entry `rip`, behind its `hlt`, is.
pub(crate) fn vector(rip: u64) -> Option<u64> {
    let vector = rip.checked_sub(ENTRIES + 1)?;
    (vector.is_multiple_of(ENTRY) && vector / ENTRY < VECTORS).then_some(vector / ENTRY)
}

/// Whether the processor pushes an error code for `vector` (SDM volume 3, 6.13).
pub(crate) fn has_code(vector: u64) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30)
}

/// What the processor pushed: the five words of an interrupt frame and the error code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Error code; zero where there is none.
    pub(crate) code: u64,
    /// Where it was.
    pub(crate) rip: u64,
    /// Its code segment.
    pub(crate) cs: u64,
    /// Its flags.
    pub(crate) rflags: u64,
    /// Its stack.
    pub(crate) rsp: u64,
}

impl Frame {
    /// Reads it from the last six words of a processor's page.
    pub(crate) fn of(words: [u64; 6], vector: u64) -> Result<Self, Errno> {
        let [code, rip, cs, rflags, rsp, _ss] = words;
        let code = if has_code(vector) { code } else { 0 };
        // From ring 0 itself there cannot be any.
        if cs & 3 == 3 { Ok(Self { code, rip, cs, rflags, rsp }) } else { Err(Errno::EFAULT) }
    }
}

const _: () = assert!(GDT.is_multiple_of(PAGE) && TASK == 0x40);

#[cfg(test)]
mod tests {
    use super::{ENTRIES, Frame, entries, gdt, has_code, idt, task_state, vector};

    #[test]
    fn entries_are_found_again() {
        assert_eq!((vector(ENTRIES + 1), vector(ENTRIES + 14 * 8 + 1)), (Some(0), Some(14)));
        assert_eq!((vector(ENTRIES), vector(ENTRIES + 2), vector(ENTRIES + 256 * 8 + 1)), (None, None, None));
        assert_eq!((entries().len(), idt().len(), gdt().len()), (4096, 4096, 128));
        assert!(entries().iter().all(|byte| *byte == 0xf4));
        assert!(has_code(14) && !has_code(6));
    }

    #[test]
    fn gates_lead_to_entries_in_ring_0() {
        for (vector, gate) in idt().chunks_exact(16).enumerate() {
            let low = u64::from_le_bytes(gate[..8].try_into().expect("eight bytes"));
            let high = u64::from_le_bytes(gate[8..].try_into().expect("eight bytes"));
            let to = low & 0xffff | low >> 48 << 16 | high << 32;
            assert_eq!(to, ENTRIES + vector as u64 * 8);
            assert_eq!(low >> 16 & 0xffff, 0x10);
            let kind = low >> 40 & 0xff;
            assert_eq!(kind, if vector == 3 { 0xee } else { 0x8e });
        }
    }

    #[test]
    fn stacks_end_with_their_page() {
        assert_eq!(task_state(0x5000)[4..12], 0x6000u64.to_le_bytes());
    }

    #[test]
    fn frames_are_of_user_code() {
        assert_eq!(Frame::of([7, 1, 0x33, 2, 3, 0x2b], 14).expect("a frame").code, 7);
        assert_eq!(Frame::of([7, 1, 0x33, 2, 3, 0x2b], 6).expect("a frame").code, 0);
        assert!(Frame::of([7, 1, 0x10, 2, 3, 0x18], 14).is_err());
    }
}
