//! From `clone(2)` to `execve(2)`.
//!
//! # Soundness
//!
//! The child is a copy of a process that may have had other threads, whose locks it has copied as they
//! were. Until it executes a program it therefore only makes system calls and writes to memory that
//! [`Plan`] prepared before the clone: it allocates nothing, takes no lock, and never returns.

use std::ffi::{CString, c_char};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use abi::Errno;

use super::{ParentDeath, Program, Step};
use crate::errno;
use crate::namespace::Mapped;

/// Everything the child needs, made before it exists.
pub(super) struct Plan<'a> {
    flags: libc::c_int,
    /// Pointers into the caller's strings, with a null at the end.
    args: Vec<*const c_char>,
    fds: Vec<RawFd>,
    /// Where the descriptors are while their places are made free.
    moved: Vec<RawFd>,
    parent_death: ParentDeath,
    go: [RawFd; 2],
    report: RawFd,
    /// The strings and descriptors stay alive as long as this.
    _alive: std::marker::PhantomData<(&'a [CString], BorrowedFd<'a>)>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        program: &Program<'a>,
        args: &'a [CString],
        go: [BorrowedFd<'a>; 2],
        report: BorrowedFd<'a>,
    ) -> Self {
        let end = std::iter::once(std::ptr::null());
        Self {
            flags: program.namespaces.bits(),
            args: args.iter().map(|arg| arg.as_ptr()).chain(end).collect(),
            fds: program.fds.iter().map(AsRawFd::as_raw_fd).collect(),
            moved: vec![-1; program.fds.len()],
            parent_death: program.parent_death,
            go: go.map(|fd| fd.as_raw_fd()),
            report: report.as_raw_fd(),
            _alive: std::marker::PhantomData,
        }
    }
}

/// Starts the child. Its id, and a descriptor of it.
pub(super) fn start(mut plan: Plan<'_>) -> Result<(i32, OwnedFd), Errno> {
    let mut process: RawFd = -1;
    let flags = plan.flags | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: without CLONE_VM the child runs on a copy of our memory; the host writes the descriptor's
    // number to a local of ours. What the child does is in `run`, which is made for that.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut process, 0, 0) };
    match i32::try_from(pid).unwrap_or(-1) {
        // SAFETY: this is the child.
        0 => unsafe { run(&mut plan) },
        // SAFETY: the host has just made the descriptor for us.
        pid @ 1.. => Ok((pid, unsafe { OwnedFd::from_raw_fd(process) })),
        _ => Err(errno(nix::Error::last())),
    }
}

/// The child's life.
///
/// # Safety
///
/// Only in a child of [`start`].
unsafe fn run(plan: &mut Plan<'_>) -> ! {
    // SAFETY: as of ours.
    let result = unsafe { prepare(plan) };
    let step = match result {
        // SAFETY: the child's own end; runs nothing of ours.
        Err(None) => unsafe { libc::_exit(1) },
        Err(Some(step)) => step,
        Ok(()) => {
            let environment = [std::ptr::null::<c_char>()];
            // SAFETY: strings end in a NUL, both lists in a null, and all are alive.
            unsafe {
                libc::execve(c"/proc/self/exe".as_ptr(), plan.args.as_ptr(), environment.as_ptr());
            }
            Step::Exec
        }
    };
    let mut message = [step as u8, 0, 0, 0, 0];
    let code = nix::Error::last_raw().to_ne_bytes();
    for (to, from) in message.iter_mut().skip(1).zip(code) {
        *to = from;
    }
    // SAFETY: the message is readable for its length.
    unsafe { libc::write(plan.report, message.as_ptr().cast(), message.len()) };
    // SAFETY: as above.
    unsafe { libc::_exit(1) }
}

/// Everything before the program is executed. `None` when the parent does not want the child any more.
///
/// # Safety
///
/// Only in a child of [`start`].
unsafe fn prepare(plan: &mut Plan<'_>) -> Result<(), Option<Step>> {
    let check = |result: libc::c_int, step| if result < 0 { Err(Some(step)) } else { Ok(result) };
    let [go, parents_go] = plan.go;
    // SAFETY: a descriptor of the child's own table, which nothing there owns.
    unsafe { libc::close(parents_go) };
    let mut byte = 0_u8;
    // SAFETY: the byte is writable.
    if unsafe { libc::read(go, (&raw mut byte).cast(), 1) } != 1 {
        return Err(None);
    }
    if byte == Mapped::BecomeRoot as u8 {
        // SAFETY: as of ours.
        unsafe { become_root() }.map_err(|()| Some(Step::Ids))?;
    }
    if plan.parent_death == ParentDeath::Kills {
        // After the change of ids, which forgets it. SAFETY: numbers only.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }, Step::ParentDeath)?;
        let mut parent = libc::pollfd { fd: go, events: 0, revents: 0 };
        // SAFETY: one structure, which is writable.
        check(unsafe { libc::poll(&raw mut parent, 1, 0) }, Step::ParentDeath)?;
        // A parent that has died before that has closed the pipe.
        if parent.revents != 0 {
            return Err(None);
        }
    }
    // SAFETY: no arguments.
    check(unsafe { libc::setsid() }, Step::Session)?;
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is writable, and filled before it is read below.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: the set was filled above; the old mask is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) };
    // SAFETY: as of ours.
    unsafe { place(plan) }.map_err(|()| Some(Step::Descriptors))
}

/// Takes the only ids there are in the user namespace.
///
/// # Safety
///
/// Only in a child of [`start`].
unsafe fn become_root() -> Result<(), ()> {
    let check = |result: libc::c_long| if result < 0 { Err(()) } else { Ok(()) };
    // Raw, as the C library would have other threads do the same, and has taken over their list from us.
    // SAFETY: an empty list.
    check(unsafe { libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()) })?;
    // SAFETY: numbers only.
    check(unsafe { libc::syscall(libc::SYS_setresgid, 0, 0, 0) })?;
    // SAFETY: numbers only.
    check(unsafe { libc::syscall(libc::SYS_setresuid, 0, 0, 0) })
}

/// Gives the descriptors their numbers, and closes the others; the report goes right behind them.
///
/// # Safety
///
/// Only in a child of [`start`].
unsafe fn place(plan: &mut Plan<'_>) -> Result<(), ()> {
    let check = |result: libc::c_int| if result < 0 { Err(()) } else { Ok(result) };
    let count = plan.fds.len() as libc::c_int;
    // First out of the way of all numbers that are wanted, then to them.
    for (moved, fd) in plan.moved.iter_mut().zip(&plan.fds) {
        // SAFETY: numbers only.
        *moved = check(unsafe { libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, count + 1) })?;
    }
    // SAFETY: numbers only.
    let report = check(unsafe { libc::fcntl(plan.report, libc::F_DUPFD_CLOEXEC, count + 1) })?;
    for (number, moved) in (0..).zip(&plan.moved) {
        // SAFETY: replaces a descriptor of the child's own table.
        check(unsafe { libc::dup2(*moved, number) })?;
    }
    // SAFETY: as above.
    plan.report = check(unsafe { libc::dup3(report, count, libc::O_CLOEXEC) })?;
    // SAFETY: closes descriptors of the child's own table.
    check(unsafe { libc::syscall(libc::SYS_close_range, count + 1, libc::c_uint::MAX, 0) as libc::c_int })
        .map(drop)
}
