//! Where stub and mailbox lie in a guest's address space, and how a mailbox is divided.

use std::time::Duration;

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;
/// First byte of the stub's page; the guest ends below [`MAX_ADDRESS`].
pub(crate) const STUB: u64 = 0x7fff_0000_0000;
/// Bytes of the stub.
pub(crate) const STUB_LEN: u64 = 4096;
/// First byte of the mailbox.
pub(crate) const MAILBOX: u64 = 0x7fff_0100_0000;
/// Bytes of a slot; the stub masks its stack pointer with it.
pub(crate) const SLOT: u64 = 0x8000;
/// Threads an address space can have.
pub(crate) const SLOTS: usize = 2048;
/// Bytes of the mailbox.
pub(crate) const MAILBOX_LEN: u64 = SLOT * SLOTS as u64;
/// First address a guest may not map.
pub(crate) const MAX_ADDRESS: u64 = 0x7ffe_0000_0000;
/// Lowest address a guest may map, without the fast path.
pub(crate) const MIN_ADDRESS: u64 = 0x1_0000;
/// First byte of the pointers to cells, which rewritten call sites jump through. Its third byte is no
/// instruction in 64-bit mode: see [`patch`](crate::patch).
pub(crate) const POINTERS: u64 = 0x6_0000;
/// Bytes of the pointers.
pub(crate) const POINTERS_LEN: u64 = 0x1_0000;
/// Lowest address a guest may map beside the fast path.
pub(crate) const MIN_ADDRESS_FAST: u64 = POINTERS + POINTERS_LEN;
/// First byte of the cells, one a rewritten call site. To the filter they are guest code.
pub(crate) const CELLS: u64 = 0x7fff_0010_0000;
/// Bytes of a cell.
pub(crate) const CELL: u64 = 48;
/// Most call sites that can be rewritten.
pub(crate) const SITES: usize = (POINTERS_LEN / 8) as usize;
/// Bytes of the cells.
pub(crate) const CELLS_LEN: u64 = (CELL * SITES as u64).next_multiple_of(PAGE);
/// First byte of where rewritten files are mapped: a word a file, of each process its own.
pub(crate) const BASES: u64 = CELLS + CELLS_LEN;
/// Bytes of that.
pub(crate) const BASES_LEN: u64 = PAGE;
/// Most files that can have rewritten sites.
pub(crate) const FILES: usize = (BASES_LEN / 8) as usize;
/// End of user space.
pub(crate) const USER_END: u64 = 0x7fff_ffff_f000;

/// Offset of the pointer to the `ucontext` that the stub returns to.
pub(crate) const OFF_UC: usize = 0;
/// Offset of the FS base the stub loads before it returns.
pub(crate) const OFF_FS: usize = 8;
/// Offset of the GS base.
pub(crate) const OFF_GS: usize = 16;
/// Offset of the word in which a new process announces its listener: descriptor plus one.
pub(crate) const OFF_READY: usize = 32;
/// Offset of a word the stub's compare-exchange reports in.
pub(crate) const OFF_ACTIONS: usize = 64;
/// Bytes an action takes: number, six arguments, result.
pub(crate) const ACTION: usize = 64;
/// Actions a list can have.
pub(crate) const ACTIONS: usize = 32;
/// Offset of a posted call: its number and six arguments. With the next, a line of the processors' caches that its
/// thread writes and the Sentry reads.
pub(crate) const OFF_CALL: usize = 0x900;
/// Offset of the address of the call in its cell.
pub(crate) const OFF_CELL: usize = OFF_CALL + 56;
/// Offset of the state of a posted call: one of [`IDLE`] and so on. From here to [`OFF_GIVE`] is the line that both
/// look at.
pub(crate) const OFF_STATE: usize = 0x940;
/// Offset of a word that is not zero while somebody looks at the state.
pub(crate) const OFF_SPIN: usize = OFF_STATE + 4;
/// Offset of the result.
pub(crate) const OFF_RESULT: usize = OFF_STATE + 8;
/// Offset of what has been left of what it returns: from where on, and how long.
pub(crate) const OFF_GIVE: usize = OFF_STATE + 16;
/// Offset of where what travels with the call was: address and length.
pub(crate) const OFF_TAKING: usize = 0x980;
/// Offset of where what it returns may go: address and length.
pub(crate) const OFF_GIVING: usize = OFF_TAKING + 16;
/// Offset of how many actions it is to run.
pub(crate) const OFF_COUNT: usize = OFF_TAKING + 32;
/// Offset of two registers it keeps meanwhile.
pub(crate) const OFF_KEPT: usize = OFF_TAKING + 40;
/// Most bytes that travel each way.
pub(crate) const WINDOW: u64 = 4096;
/// Offset of what travels with the call.
pub(crate) const OFF_TAKEN: usize = 0x1000;
/// Offset of what it returns.
pub(crate) const OFF_GIVEN: usize = 0x2000;
/// Offset of the alternate stack; it reaches to the slot's end.
pub(crate) const OFF_STACK: usize = 0x3000;
/// Offset at which the Sentry builds a `ucontext` of its own.
pub(crate) const OFF_NEW_UC: usize = 0x3400;
/// Offset at which the Sentry places a floating-point state of its own.
pub(crate) const OFF_NEW_FP: usize = 0x3800;
/// Largest XSAVE area that fits there and in a frame beside it.
pub(crate) const MAX_XSAVE: usize = 0x1000;

/// System call number of the doorbell: none of Linux's.
pub(crate) const DOORBELL: u32 = 0xfff;
/// System call number by which a thread waits for the result of a call it has posted.
pub(crate) const WAIT: u32 = 0xffe;
/// No call is posted.
pub(crate) const IDLE: u32 = 0;
/// A call is posted; its thread may still withdraw it.
pub(crate) const POSTED: u32 = 1;
/// Somebody serves it.
pub(crate) const TAKEN: u32 = 2;
/// Its result is there.
pub(crate) const DONE: u32 = 3;
/// It takes long: its thread is better off waiting.
pub(crate) const SLOW: u32 = 4;
/// Its thread is to run the list of actions, and then to look on.
pub(crate) const ACT: u32 = 5;
/// As [`ACT`], but then it waits for the result of its call.
pub(crate) const ACT_WAIT: u32 = 6;
/// How long a thread looks whether somebody takes its call, and then for its result, before it waits for that. Who
/// looks for calls takes one within a microsecond when it runs at all.
pub(crate) const LOOKING: [Duration; 2] = if cfg!(test) {
    [Duration::from_millis(1), Duration::from_millis(1)]
} else {
    [Duration::from_micros(8), Duration::from_micros(40)]
};
/// Action number by which the stub clones: also none of Linux's.
pub(crate) const ACT_CLONE: u64 = 0x1001;
/// Action number by which the stub compares and exchanges a word.
pub(crate) const ACT_CMPXCHG: u64 = 0x1002;

/// The host signal by which a thread is interrupted.
pub(crate) const INTERRUPT: i32 = libc::SIGUSR2;

/// Flags of a process with a copy of the memory. Like the zygote, it ends without a signal.
pub(crate) const CLONE_FORK: u64 = libc::CLONE_PARENT as u64;
/// Flags by which the zygote makes processes.
pub(crate) const CLONE_ZYGOTE: u64 = CLONE_FORK;
/// Flags of a process that shares the memory.
pub(crate) const CLONE_SHARED: u64 = (libc::CLONE_PARENT | libc::CLONE_VM) as u64;
