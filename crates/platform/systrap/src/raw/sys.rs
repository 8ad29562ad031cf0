//! Host calls without a safe wrapper.
//!
//! # Soundness
//! Every pointer passed is to a live local of the size the call expects.

use std::io::Error;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::OnceLock;

/// `struct seccomp_notif`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Notif {
    /// Cookie.
    pub(crate) id: u64,
    /// Thread id in our pid namespace.
    pub(crate) pid: u32,
    /// Always 0.
    pub(crate) flags: u32,
    /// Number.
    pub(crate) nr: i32,
    /// Architecture.
    pub(crate) arch: u32,
    /// Address behind the instruction.
    pub(crate) ip: u64,
    /// Arguments.
    pub(crate) args: [u64; 6],
}

#[repr(C)]
struct Response {
    id: u64,
    val: i64,
    error: i32,
    flags: u32,
}

#[repr(C)]
struct AddFd {
    id: u64,
    flags: u32,
    srcfd: u32,
    newfd: u32,
    newfd_flags: u32,
}

const RECV: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;
const ADDFD: libc::c_ulong = 0x4018_2103;
const SET_FLAGS: libc::c_ulong = 0x4008_2104;

/// Waits for a notification; `ENOENT` and `EINTR` mean "again".
pub(crate) fn recv(listener: i32) -> Result<Notif, Error> {
    let mut notif = Notif::default();
    // SAFETY: a zeroed structure of the size encoded in the request.
    let r = unsafe { libc::ioctl(listener, RECV, &raw mut notif) };
    if r < 0 { Err(Error::last_os_error()) } else { Ok(notif) }
}

/// The same, but it ends when all tasks behind the listener are gone.
pub(crate) fn recv_or_unused(listener: i32) -> Result<Notif, Error> {
    static ENDS: OnceLock<bool> = OnceLock::new();
    if !ENDS.get_or_init(recv_ends) {
        poll(listener, -1);
        if is_unused(listener) {
            return Err(Error::from_raw_os_error(libc::ENOENT));
        }
    }
    recv(listener)
}

/// Since Linux 6.11 a receiver is woken when the last task is gone.
fn recv_ends() -> bool {
    let Ok(uname) = nix::sys::utsname::uname() else { return false };
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map_while(|n| n.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(11))
}

/// Waits, for at most `limit`, until the listener has a notification.
pub(crate) fn wait_readable(listener: i32, limit: std::time::Duration) -> bool {
    poll(listener, limit.as_millis() as i32) & libc::POLLIN != 0
}

/// Whether all tasks behind the listener are gone.
pub(crate) fn is_unused(listener: i32) -> bool {
    poll(listener, 0) & libc::POLLHUP != 0
}

fn poll(fd: i32, limit: i32) -> i16 {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one live structure.
    unsafe { libc::poll(&raw mut poll, 1, limit) };
    poll.revents
}

/// Answers a notification with a return value.
pub(crate) fn send(listener: i32, id: u64, val: i64) -> Result<(), Error> {
    let mut response = Response { id, val, error: 0, flags: 0 };
    // SAFETY: a live structure of the size encoded in the request.
    let r = unsafe { libc::ioctl(listener, SEND, &raw mut response) };
    if r < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Puts `fd` into the table of the notification's task, as `newfd` when given; with `send` that is also
/// the answer.
pub(crate) fn add_fd(listener: i32, id: u64, fd: i32, newfd: Option<u32>, send: bool) -> Result<i32, Error> {
    let flags = u32::from(newfd.is_some()) | if send { 2 } else { 0 };
    let mut add =
        AddFd { id, flags, srcfd: fd as u32, newfd: newfd.unwrap_or(0), newfd_flags: libc::O_CLOEXEC as u32 };
    // SAFETY: a live structure of the size encoded in the request.
    let r = unsafe { libc::ioctl(listener, ADDFD, &raw mut add) };
    if r < 0 { Err(Error::last_os_error()) } else { Ok(r) }
}

/// Asks for same-core wake-ups, where the kernel has them.
pub(crate) fn sync_wake_up(listener: i32) {
    // SAFETY: the argument is a plain number.
    unsafe { libc::ioctl(listener, SET_FLAGS, 1u64) };
}

/// Takes descriptor `fd` out of process `pid`.
pub(crate) fn take_fd(pid: i32, fd: i32) -> Result<OwnedFd, Error> {
    // SAFETY: plain numbers.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if pidfd < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: just made, owned by nobody else.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd as i32) };
    use std::os::fd::AsRawFd;
    // SAFETY: plain numbers.
    let got = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) };
    if got < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: just made, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(got as i32) })
}

/// Sends a host signal to a thread.
pub(crate) fn tgkill(tgid: i32, tid: i32, signal: i32) {
    // SAFETY: plain numbers.
    unsafe { libc::syscall(libc::SYS_tgkill, tgid, tid, signal) };
}

/// Raw system call; the result or `-errno`.
///
/// # Safety
/// As of the call made.
#[inline(always)]
pub(crate) unsafe fn raw_call(nr: i64, a: [u64; 6]) -> i64 {
    let ret: i64;
    // SAFETY: the caller answers for the call; the clobbers are the ABI's.
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") nr => ret, in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
            in("r10") a[3], in("r8") a[4], in("r9") a[5], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    ret
}

/// Waits until a child of the calling thread has ended: its id, and the signal that ended it, if one did.
/// It stays to be reaped. `None` without children.
pub(crate) fn wait_child() -> Option<(i32, Option<i32>)> {
    // __WALL and __WNOTHREAD.
    let options = libc::WEXITED | libc::WNOWAIT | 0x4000_0000 | 0x2000_0000;
    loop {
        // SAFETY: plain zeroes are a valid value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: a live local.
        let r = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) };
        if r == 0 {
            let killed = matches!(info.si_code, libc::CLD_KILLED | libc::CLD_DUMPED);
            // SAFETY: the field is valid in this kind of record.
            let pid = unsafe { info.si_pid() };
            // SAFETY: as above.
            let status = unsafe { info.si_status() };
            return Some((pid, killed.then_some(status)));
        }
        if Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return None;
        }
    }
}

/// Reaps the ended child `pid`.
pub(crate) fn reap(pid: i32) {
    // SAFETY: no status is asked for.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) };
}

/// A connected pair of sockets that keep message bounds.
pub(crate) fn socket_pair() -> Result<(OwnedFd, OwnedFd), Error> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends the zygote behind `socket` a mailbox; the id of the clone it makes, or `-errno`.
pub(crate) fn ask_for_clone(socket: i32, mailbox: i32) -> Result<i64, Error> {
    use nix::sys::socket::{ControlMessage, MsgFlags, recv, sendmsg};
    let iov = [std::io::IoSlice::new(&[0])];
    let rights = [mailbox];
    let message = [ControlMessage::ScmRights(&rights)];
    sendmsg::<()>(socket, &iov, &message, MsgFlags::MSG_NOSIGNAL, None)?;
    let mut answer = [0; 8];
    loop {
        match recv(socket, &mut answer, MsgFlags::empty()) {
            Ok(8) => return Ok(i64::from_ne_bytes(answer)),
            Ok(_) => return Err(Error::from(std::io::ErrorKind::UnexpectedEof)),
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The features of the processor's state that the host has enabled.
pub(crate) fn xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: every host with seccomp notification and FSGSBASE has XSAVE enabled; reads a register.
    unsafe {
        core::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack))
    };
    u64::from(low) | u64::from(high) << 32
}

/// Does the kernel let user code use `rdfsbase` and friends?
pub(crate) fn has_fsgsbase() -> bool {
    // SAFETY: plain number.
    unsafe { libc::getauxval(26) & 2 != 0 } // AT_HWCAP2, HWCAP2_FSGSBASE
}

/// Kills a process.
pub(crate) fn kill(pid: i32) {
    if pid > 0 {
        // SAFETY: plain numbers.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

/// Seconds after which a change of a file shows beside the one before; tests write their files and do not wait.
const SETTLES_IN: i64 = if cfg!(test) { -2 } else { 2 };

/// What tells one content of a file from another: device, inode, size, and when it was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    device: (u32, u32),
    inode: u64,
    /// Bytes.
    pub(crate) size: u64,
    modified: (i64, u32),
    changed: (i64, u32),
    /// A regular file that has a name.
    named: bool,
}

impl Identity {
    /// Whether a change would show: the last one is long enough ago for another to get another time.
    pub(crate) fn is_settled(&self) -> bool {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        self.named && self.changed.0.saturating_add(SETTLES_IN) < now.as_secs() as i64
    }
}

/// The identity of the file behind a descriptor.
pub(crate) fn identity(fd: i32) -> Option<Identity> {
    // SAFETY: plain zeroes are a valid value.
    let mut info: libc::statx = unsafe { std::mem::zeroed() };
    let (flags, mask) = (libc::AT_EMPTY_PATH, libc::STATX_BASIC_STATS);
    // SAFETY: an empty literal for a path, and a live local.
    let r = unsafe { libc::statx(fd, c"".as_ptr(), flags, mask, &raw mut info) };
    (r == 0).then_some(Identity {
        device: (info.stx_dev_major, info.stx_dev_minor),
        inode: info.stx_ino,
        size: info.stx_size,
        modified: (info.stx_mtime.tv_sec, info.stx_mtime.tv_nsec),
        changed: (info.stx_ctime.tv_sec, info.stx_ctime.tv_nsec),
        named: info.stx_nlink > 0 && u32::from(info.stx_mode) & libc::S_IFMT == libc::S_IFREG,
    })
}

/// A memory object with these bytes that nobody can change.
pub(crate) fn sealed_copy(bytes: &[u8]) -> Option<OwnedFd> {
    use std::os::unix::fs::FileExt;
    // SAFETY: the name is a literal.
    let raw = unsafe { libc::memfd_create(c"code".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if raw < 0 {
        return None;
    }
    // SAFETY: the call above made the descriptor and nobody else owns it.
    let file = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(raw) });
    file.write_all_at(bytes, 0).ok()?;
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE | libc::F_SEAL_SEAL;
    // SAFETY: plain call on our descriptor.
    let r = unsafe { libc::fcntl(raw, libc::F_ADD_SEALS, seals) };
    (r == 0).then(|| file.into())
}

/// Whether there is a processor to spare for waiting: more than one to run on, and no quota below them (for which
/// the host's files are looked at).
pub(crate) fn has_spare_processor() -> bool {
    let usable = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).map_or(1, |set| {
        (0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).count()
    });
    usable > 1 && std::thread::available_parallelism().is_ok_and(|allowed| usize::from(allowed) >= usable)
}

/// How often another has taken the calling thread's processor.
pub(crate) fn preemptions() -> i64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: a live local for the result.
    let r = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    // SAFETY: zeroed, and any bytes are a `rusage`.
    let usage = unsafe { usage.assume_init() };
    if r == 0 { usage.ru_nivcsw } else { 0 }
}
