//! Another process's memory (`process_vm_readv(2)`), and who may look at what only a tracer may.

use std::sync::Arc;

use abi::{Errno, SysResult};
use cred::CapSet;
use guestmem::{IoSink, IoSource, UserMem, UserPtr};
use kernel::Task;

use crate::cx::Cx;
use crate::io::{IoVec, Segments};

/// Bytes a step.
const STEP: usize = 64 << 10;

/// May `task` look at what of `target` only a tracer may (`ptrace(2)`, access mode checking)?
pub(crate) fn may_inspect(task: &Task, target: &Task) -> bool {
    if task.tgid() == target.tgid() {
        return true;
    }
    let (own, their) = (task.cred(), target.cred());
    let same = [their.uid, their.euid, their.suid].iter().all(|id| *id == own.uid)
        && [their.gid, their.egid, their.sgid].iter().all(|id| *id == own.gid);
    own.capable(CapSet::SYS_PTRACE)
        || (same && target.group().is_dumpable() && own.permitted.contains(their.permitted))
}

/// `process_vm_readv(2)`.
pub(crate) fn process_vm_readv(
    cx: &mut Cx<'_>,
    pid: i32,
    local: UserPtr<IoVec>,
    local_count: usize,
    remote: UserPtr<IoVec>,
    remote_count: usize,
    flags: u64,
) -> SysResult<usize> {
    let (peer, [ours, theirs]) = prepare(cx, pid, [(local, local_count), (remote, remote_count)], flags)?;
    copy(peer.mm().as_ref(), theirs, cx.task.mm().as_ref(), ours)
}

/// `process_vm_writev(2)`.
pub(crate) fn process_vm_writev(
    cx: &mut Cx<'_>,
    pid: i32,
    local: UserPtr<IoVec>,
    local_count: usize,
    remote: UserPtr<IoVec>,
    remote_count: usize,
    flags: u64,
) -> SysResult<usize> {
    let (peer, [ours, theirs]) = prepare(cx, pid, [(local, local_count), (remote, remote_count)], flags)?;
    copy(cx.task.mm().as_ref(), ours, peer.mm().as_ref(), theirs)
}

fn prepare(
    cx: &Cx<'_>,
    pid: i32,
    [local, remote]: [(UserPtr<IoVec>, usize); 2],
    flags: u64,
) -> SysResult<(Arc<Task>, [Segments; 2])> {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let mem = cx.task.mm();
    let local = Segments::load(mem.as_ref(), local.0, local.1)?;
    let remote = Segments::load(mem.as_ref(), remote.0, remote.1)?;
    let peer = cx.task_of(pid)?;
    if !may_inspect(cx.task, &peer) {
        return Err(Errno::EPERM.into());
    }
    Ok((peer, [local, remote]))
}

/// As much as both sides have; what was copied before a fault counts.
fn copy(from: &dyn UserMem, source: Segments, to: &dyn UserMem, sink: Segments) -> SysResult<usize> {
    let (mut source, mut sink) = (source.io(from, 0), sink.io(to, 0));
    let mut step = vec![0; STEP.min(IoSource::remaining(&source)).min(IoSink::remaining(&sink))];
    let mut done = 0;
    loop {
        let want = step.len().min(IoSource::remaining(&source)).min(IoSink::remaining(&sink));
        let chunk = step.get_mut(..want).unwrap_or_default();
        let moved = source.take(chunk).and_then(|n| sink.put(chunk.get(..n).unwrap_or_default()));
        match moved {
            Ok(0) => return Ok(done),
            Ok(n) => done += n,
            Err(_) if done > 0 => return Ok(done),
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use abi::Errno;
    use abi::syscall as nr;
    use cred::Credentials;

    use crate::testkit::{DATA, Guest};

    fn vector(guest: &Guest, at: u64, segments: &[[u64; 2]]) -> u64 {
        guest.put(at, &segments.iter().flatten().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>())
    }

    #[test]
    fn bytes_are_copied_between_processes() {
        let mut guest = Guest::new();
        assert_eq!(guest.call(nr::fork, []), Ok(2));
        let child = guest.kernel.task(2).expect("a child");
        guest.put(DATA, b"parent's bytes");
        let ours = vector(&guest, DATA + 256, &[[DATA, 6], [DATA + 8, 6]]);
        let theirs = vector(&guest, DATA + 512, &[[DATA + 64, 4], [8, 100]]);
        assert_eq!(guest.call(nr::process_vm_writev, [2, ours, 2, theirs, 2, 0]), Ok(4));
        let mut bytes = [0; 4];
        guestmem::UserMem::read(child.mm().as_ref(), guestmem::UserAddr(DATA + 64), &mut bytes)
            .expect("there");
        assert_eq!(&bytes, b"pare");
        assert_eq!(guest.call(nr::process_vm_readv, [2, ours, 2, theirs, 1, 0]), Ok(4));
        assert_eq!(guest.bytes(DATA, 6), b"parent");
    }

    #[test]
    fn strangers_keep_their_memory() {
        let mut guest = Guest::new();
        assert_eq!(guest.call(nr::fork, []), Ok(2));
        let one = vector(&guest, DATA + 256, &[[8, 1]]);
        assert_eq!(guest.call(nr::process_vm_readv, [2, one, 1, one, 1, 1]), Err(Errno::EINVAL));
        assert_eq!(guest.call(nr::process_vm_readv, [2, one, 1025, one, 1, 0]), Err(Errno::EINVAL));
        assert_eq!(guest.call(nr::process_vm_readv, [9, one, 1, one, 1, 0]), Err(Errno::ESRCH));
        assert_eq!(guest.call(nr::process_vm_readv, [2, one, 1, one, 1, 0]), Err(Errno::EFAULT));
        assert_eq!(guest.call(nr::process_vm_readv, [2, 0, 0, one, 1, 0]), Ok(0));
        guest.task.set_cred(Arc::new(Credentials::user(7, 7)));
        assert_eq!(guest.call(nr::process_vm_readv, [2, one, 1, one, 1, 0]), Err(Errno::EPERM));
    }
}
