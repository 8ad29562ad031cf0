//! Control data of messages (`cmsg(3)`, `unix(7)`).

use std::sync::Arc;

use abi::socket::{AF_UNIX, CmsgHdr, MsgFlags, SCM_MAX_FD, Ucred};
use abi::{Errno, SysResult};
use cred::{CapSet, Credentials};
use guestmem::{UserAddr, UserMem};
use socket::options::SOL_SOCKET;
use socket::{Ancillary, Control, FileRef, Socket};
use vfs::OpenFile;
use zerocopy::{FromBytes, IntoBytes};

use crate::args::Fd;
use crate::cx::Cx;

/// `SCM_RIGHTS`.
const RIGHTS: i32 = 1;
/// `SCM_CREDENTIALS`.
const CREDENTIALS: i32 = 2;
/// Most control data of a call (`net.core.optmem_max`).
const MAX_BYTES: u64 = 131_072;
/// Bytes of a head.
const HEAD: usize = size_of::<CmsgHdr>();

/// Reads the control data of a message to be sent.
pub(super) fn load(cx: &Cx<'_>, socket: &dyn Socket, addr: UserAddr, len: u64) -> SysResult<Ancillary> {
    let mut ancillary = Ancillary::default();
    if len > MAX_BYTES {
        return Err(Errno::ENOBUFS.into());
    }
    let mut bytes = vec![0; len as usize];
    if !bytes.is_empty() {
        cx.mm().read(addr, &mut bytes)?;
    }
    let mut rest = bytes.as_slice();
    while let Ok((head, _)) = CmsgHdr::read_from_prefix(rest) {
        let len = usize::try_from(head.len).unwrap_or(usize::MAX);
        let data = rest.get(HEAD..len).ok_or(Errno::EINVAL)?;
        if head.level == SOL_SOCKET {
            match head.kind {
                RIGHTS if socket.family() == AF_UNIX => load_files(cx, data, &mut ancillary.files)?,
                CREDENTIALS => ancillary.credentials = Some(load_credentials(cx, data)?),
                // SO_TIMESTAMPING, SO_MARK, SCM_TXTIME: nothing that a packet here could carry.
                _ => return Err(Errno::EINVAL.into()),
            }
        } else {
            ancillary.other.push(Control { level: head.level, kind: head.kind, data: data.to_vec() });
        }
        let Some(next) = len.checked_next_multiple_of(8).and_then(|next| rest.get(next..)) else { break };
        rest = next;
    }
    Ok(ancillary)
}

fn load_files(cx: &Cx<'_>, data: &[u8], files: &mut Vec<FileRef>) -> SysResult<()> {
    let numbers = data.chunks_exact(4).filter_map(|chunk| chunk.first_chunk());
    if numbers.clone().count() + files.len() > SCM_MAX_FD {
        return Err(Errno::EINVAL.into());
    }
    for number in numbers {
        files.push(cx.file(Fd(i32::from_ne_bytes(*number)))?);
    }
    Ok(())
}

/// What a process says of itself: its own ids, unless it may lie.
fn load_credentials(cx: &Cx<'_>, data: &[u8]) -> SysResult<Ucred> {
    let mut said = Ucred::read_from_bytes(data).map_err(|_| Errno::EINVAL)?;
    // Who is in no namespace of the caller's is nobody: as Linux says after the check of permission.
    said.pid = cx.id(said.pid).unwrap_or(0);
    let cred = cx.task.cred();
    if !may_say(&cred, cx.task.tgid(), said) {
        return Err(Errno::EPERM.into());
    }
    if said.pid != cx.task.tgid() && cx.task.kernel().process(said.pid).is_none() {
        return Err(Errno::ESRCH.into());
    }
    Ok(said)
}

fn may_say(cred: &Credentials, pid: i32, said: Ucred) -> bool {
    (said.pid == pid || cred.capable(CapSet::SYS_ADMIN))
        && ([cred.uid, cred.euid, cred.suid].contains(&said.uid) || cred.capable(CapSet::SETUID))
        && ([cred.gid, cred.egid, cred.sgid].contains(&said.gid) || cred.capable(CapSet::SETGID))
}

/// Where received control data goes, and what has gone there.
pub(super) struct ControlOut {
    at: UserAddr,
    room: usize,
    /// Bytes used (`msg_controllen`).
    pub(super) used: usize,
    /// `MSG_CTRUNC`.
    pub(super) cut: bool,
}

impl ControlOut {
    /// `room` bytes at `at`; none at a null address.
    pub(super) fn new(at: UserAddr, room: u64) -> Self {
        let room = if at.is_null() { 0 } else { usize::try_from(room).unwrap_or(usize::MAX) };
        Self { at, room, used: 0, cut: false }
    }

    fn left(&self) -> usize {
        self.room - self.used
    }

    /// Puts one head and what fits of its data.
    fn put(&mut self, mem: &dyn UserMem, level: i32, kind: i32, data: &[u8]) -> SysResult<()> {
        let left = self.left();
        if left < HEAD {
            self.cut = true;
            return Ok(());
        }
        let len = (HEAD + data.len()).min(left);
        self.cut |= len < HEAD + data.len();
        let head = CmsgHdr { len: len as u64, level, kind };
        let mut bytes = head.as_bytes().to_vec();
        bytes.extend_from_slice(data);
        bytes.truncate(len);
        let at = self.at.checked_add(self.used as u64).ok_or(Errno::EFAULT)?;
        mem.write(at, &bytes)?;
        self.used += (HEAD + data.len()).next_multiple_of(8).min(left);
        Ok(())
    }

    /// Puts what came with a message; descriptors for which there is room are entered.
    pub(super) fn store(&mut self, cx: &Cx<'_>, control: Ancillary, flags: MsgFlags) -> SysResult<()> {
        let mm = cx.mm();
        if let Some(mut credentials) = control.credentials {
            credentials.pid = cx.number(credentials.pid);
            self.put(mm.as_ref(), SOL_SOCKET, CREDENTIALS, credentials.as_bytes())?;
        }
        for Control { level, kind, data } in &control.other {
            self.put(mm.as_ref(), *level, *kind, data)?;
        }
        if control.files.is_empty() {
            return Ok(());
        }
        let fitting = self.left().saturating_sub(HEAD) / 4;
        let total = control.files.len();
        let mut numbers = Vec::new();
        for file in control.files.into_iter().take(fitting) {
            let Ok(file) = file.downcast::<OpenFile>() else { continue };
            match install(cx, file, flags) {
                Ok(fd) => numbers.push(fd.0),
                Err(_) => break,
            }
        }
        self.cut |= numbers.len() < total;
        if numbers.is_empty() {
            Ok(())
        } else {
            self.put(mm.as_ref(), SOL_SOCKET, RIGHTS, numbers.as_bytes())
        }
    }
}

fn install(cx: &Cx<'_>, file: Arc<OpenFile>, flags: MsgFlags) -> SysResult<Fd> {
    cx.install(file, flags.contains(MsgFlags::CMSG_CLOEXEC))
}
