//! Signal-driven I/O: `O_ASYNC`, and whom it tells (`fcntl(2)`, `F_SETOWN` and its kin).

use std::sync::{Arc, Weak};

use abi::fs::{FileType, OpenFlags};
use abi::poll::PollEvents;
use abi::signal::{SI_KERNEL, SigInfo, Signal};
use abi::{Errno, SysResult};
use guestmem::{MemExt, UserPtr};
use kernel::{Kernel, Task};
use sync::wait::{Notify, Waiter};
use sync::{Mutex, order};
use vfs::OpenFile;
use vfs::open_file::Extra;

use crate::cx::Cx;

/// Who is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Nobody.
    #[default]
    Nobody,
    /// A thread.
    Thread(i32),
    /// A process.
    Process(i32),
    /// A process group.
    Group(i32),
}

/// What is set with `fcntl`.
#[derive(Clone, Copy, Debug, Default)]
struct Settings {
    owner: Owner,
    /// `F_SETSIG`; zero for a plain `SIGIO`.
    signal: i32,
    /// Descriptor by which it was made asynchronous, for `si_fd`.
    fd: i32,
    /// Ids of who set the owner: it can tell those only whom it could have signalled.
    ids: (u32, u32),
}

/// Stands in the file's queue.
struct Bell {
    kernel: Weak<Kernel>,
    settings: Mutex<order::Leaf, Settings>,
}

/// What is kept with the description.
struct AsyncIo {
    bell: Arc<Bell>,
    waiter: Option<Waiter>,
}

impl Notify for Bell {
    fn notify(&self, events: PollEvents) {
        let Some(kernel) = self.kernel.upgrade() else { return };
        let settings = *self.settings.lock();
        let (signal, info) = settings.record(events);
        for task in settings.targets(&kernel) {
            if !settings.may_tell(&task) {
                continue;
            }
            // A full queue loses it; there will be other events.
            let _ = match settings.owner {
                Owner::Thread(_) => kernel.send_to_task(&task, signal, info),
                _ => kernel.send_to_group(task.group(), signal, info),
            };
        }
    }
}

impl Settings {
    fn record(&self, events: PollEvents) -> (Signal, SigInfo) {
        let Some(signal) = Signal::new(self.signal) else {
            return (Signal::SIGIO, SigInfo::new(Signal::SIGIO, SI_KERNEL));
        };
        // POLL_IN, POLL_OUT, POLL_ERR, POLL_PRI, POLL_HUP.
        let code = match events {
            events if events.contains(PollEvents::HUP) => 6,
            events if events.contains(PollEvents::ERR) => 4,
            events if events.contains(PollEvents::PRI) => 5,
            events if events.intersects(PollEvents::READABLE) => 1,
            _ => 2,
        };
        let mut info = SigInfo::new(signal, code);
        info.put(0, &i64::from(events.bits()).to_le_bytes());
        info.put(8, &self.fd.to_le_bytes());
        (signal, info)
    }

    /// One task of each process that is told.
    fn targets(&self, kernel: &Arc<Kernel>) -> Vec<Arc<Task>> {
        let leader = |pid: i32| kernel.threads(pid).into_iter().next();
        match self.owner {
            Owner::Nobody => Vec::new(),
            Owner::Thread(tid) => kernel.task(tid).into_iter().collect(),
            Owner::Process(pid) => leader(pid).into_iter().collect(),
            Owner::Group(pgrp) => {
                let pids = kernel.processes().into_iter().filter(|pid| kernel.pgrp_of(*pid) == Some(pgrp));
                pids.filter_map(leader).collect()
            }
        }
    }

    fn may_tell(&self, task: &Task) -> bool {
        let (uid, euid) = self.ids;
        let their = task.cred();
        euid == 0 || [their.uid, their.suid].iter().any(|id| *id == uid || *id == euid)
    }
}

/// Reads or changes the settings of a description.
fn with_settings<T>(cx: &Cx<'_>, file: &OpenFile, change: impl FnOnce(&mut Settings) -> T) -> T {
    let bell = file.with_extra(|extra| {
        let kept = extra.get_or_insert_with(|| {
            let kernel = Arc::downgrade(cx.task.kernel());
            Box::new(AsyncIo { bell: Arc::new(Bell { kernel, settings: Mutex::default() }), waiter: None })
        });
        kept.downcast_ref::<AsyncIo>().map(|kept| Arc::clone(&kept.bell))
    });
    match bell {
        Some(bell) => change(&mut bell.settings.lock()),
        None => change(&mut Settings::default()),
    }
}

/// Takes the description's place in its file's queue, or leaves it, after `O_ASYNC` was set or cleared
/// through `fd`. False for a file that tells nobody.
pub(crate) fn follow_flags(cx: &Cx<'_>, file: &Arc<OpenFile>, fd: i32) -> bool {
    let tells = matches!(file.inode().kind(), FileType::Fifo | FileType::Socket | FileType::CharDevice);
    let Some(queue) = file.file().wait_queue().filter(|_| tells) else { return false };
    let on = file.flags().contains(OpenFlags::ASYNC);
    if on {
        with_settings(cx, file, |settings| settings.fd = fd);
    }
    let bell = file.with_extra(|extra| kept(extra).map(|kept| Arc::clone(&kept.bell)));
    // Entered and left without the lock of the description, which stands below a queue's.
    let new = bell.filter(|_| on).map(|bell| queue.register(bell, PollEvents::all()));
    let old = file.with_extra(|extra| kept(extra).and_then(|kept| std::mem::replace(&mut kept.waiter, new)));
    drop(old);
    true
}

fn kept(extra: &mut Extra) -> Option<&mut AsyncIo> {
    extra.as_mut()?.downcast_mut()
}

/// `F_GETOWN`, negative for a group; `F_GETOWN_EX` with its two words.
pub(crate) fn owner(cx: &Cx<'_>, file: &OpenFile) -> Owner {
    with_settings(cx, file, |settings| settings.owner)
}

/// `F_SETOWN`: positive for a process, negative for a group. `ESRCH` when there is none.
pub(crate) fn set_owner_by_id(cx: &Cx<'_>, file: &OpenFile, id: i32) -> SysResult<u64> {
    let owner = match id {
        0 => Owner::Nobody,
        i32::MIN => return Err(Errno::EINVAL.into()),
        id if id < 0 => Owner::Group(cx.id(-id)?),
        id => Owner::Process(cx.id(id)?),
    };
    set_owner(cx, file, owner)
}

fn set_owner(cx: &Cx<'_>, file: &OpenFile, owner: Owner) -> SysResult<u64> {
    let kernel = cx.task.kernel();
    let exists = match owner {
        Owner::Nobody => true,
        Owner::Thread(tid) => kernel.task(tid).is_some(),
        Owner::Process(pid) => kernel.process(pid).is_some() || kernel.task(pid).is_some(),
        Owner::Group(pgrp) => kernel.processes().iter().any(|pid| kernel.pgrp_of(*pid) == Some(pgrp)),
    };
    if !exists {
        return Err(Errno::ESRCH.into());
    }
    let cred = cx.task.cred();
    with_settings(cx, file, |settings| {
        settings.owner = owner;
        settings.ids = (cred.uid, cred.euid);
    });
    Ok(0)
}

/// `struct f_owner_ex`: type and id.
type OwnerEx = [i32; 2];

/// `F_GETOWN_EX`.
pub(crate) fn owner_ex(cx: &Cx<'_>, file: &OpenFile, out: UserPtr<OwnerEx>) -> SysResult<u64> {
    let words = match owner(cx, file) {
        Owner::Thread(tid) => [0, cx.number(tid)],
        Owner::Process(pid) => [1, cx.number(pid)],
        Owner::Group(pgrp) => [2, cx.number(pgrp)],
        Owner::Nobody => [1, 0],
    };
    cx.mm().store(out, &words)?;
    Ok(0)
}

/// `F_SETOWN_EX`.
pub(crate) fn set_owner_ex(cx: &Cx<'_>, file: &OpenFile, from: UserPtr<OwnerEx>) -> SysResult<u64> {
    let [kind, id] = cx.mm().load(from)?;
    let owner = match (kind, id) {
        (0..=2, 0) => Owner::Nobody,
        (0, tid) => Owner::Thread(cx.id(tid)?),
        (1, pid) => Owner::Process(cx.id(pid)?),
        (2, pgrp) => Owner::Group(cx.id(pgrp)?),
        _ => return Err(Errno::EINVAL.into()),
    };
    set_owner(cx, file, owner)
}

/// `F_GETSIG`.
pub(crate) fn signal(cx: &Cx<'_>, file: &OpenFile) -> u64 {
    with_settings(cx, file, |settings| settings.signal) as u64
}

/// `F_SETSIG`: zero for a plain `SIGIO`.
pub(crate) fn set_signal(cx: &Cx<'_>, file: &OpenFile, number: u64) -> SysResult<u64> {
    let signal = i32::try_from(number).ok().filter(|signal| *signal <= i32::from(Signal::MAX));
    let signal = signal.ok_or(Errno::EINVAL)?;
    with_settings(cx, file, |settings| settings.signal = signal);
    Ok(0)
}
