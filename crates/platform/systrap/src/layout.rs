//! Where stub and mailbox lie in a guest's address space, and how a mailbox is divided.

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;
/// First byte of the stub's page; the guest ends below [`MAX_ADDRESS`].
pub(crate) const STUB: u64 = 0x7fff_0000_0000;
/// Bytes of the stub.
pub(crate) const STUB_LEN: u64 = 4096;
/// First byte of the mailbox.
pub(crate) const MAILBOX: u64 = 0x7fff_0100_0000;
/// Bytes of a slot; the stub masks its stack pointer with it.
pub(crate) const SLOT: u64 = 0x4000;
/// Threads an address space can have.
pub(crate) const SLOTS: usize = 2048;
/// Bytes of the mailbox.
pub(crate) const MAILBOX_LEN: u64 = SLOT * SLOTS as u64;
/// First address a guest may not map.
pub(crate) const MAX_ADDRESS: u64 = 0x7ffe_0000_0000;
/// Lowest address a guest may map.
pub(crate) const MIN_ADDRESS: u64 = 0x1_0000;
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
/// Offset of the alternate stack; it reaches to the slot's end.
pub(crate) const OFF_STACK: usize = 0x1000;
/// Offset at which the Sentry builds a `ucontext` of its own.
pub(crate) const OFF_NEW_UC: usize = 0x1400;
/// Offset at which the Sentry places a floating-point state of its own.
pub(crate) const OFF_NEW_FP: usize = 0x1800;
/// Largest XSAVE area that fits there and in a frame beside it.
pub(crate) const MAX_XSAVE: usize = 0x1000;

/// System call number of the doorbell: none of Linux's.
pub(crate) const DOORBELL: u32 = 0xfff;
/// Action number by which the stub clones: also none of Linux's.
pub(crate) const ACT_CLONE: u64 = 0x1001;
/// Action number by which the stub compares and exchanges a word.
pub(crate) const ACT_CMPXCHG: u64 = 0x1002;

/// The host signal by which a thread is interrupted.
pub(crate) const INTERRUPT: i32 = libc::SIGUSR2;

/// `CLONE_*` flags of a thread.
pub(crate) const CLONE_THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM) as u64;
/// Flags of a process with a copy of the memory. Like the zygote, it ends without a signal.
pub(crate) const CLONE_FORK: u64 = libc::CLONE_PARENT as u64;
/// Flags by which the zygote makes processes.
pub(crate) const CLONE_ZYGOTE: u64 = CLONE_FORK;
/// Flags of a process that shares the memory.
pub(crate) const CLONE_SHARED: u64 = (libc::CLONE_PARENT | libc::CLONE_VM) as u64;
