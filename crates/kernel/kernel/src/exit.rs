//! The end of a thread and of a process (`exit(2)`, `exit_group(2)`), and what becomes of its children.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::poll::PollEvents;
use abi::process::WaitStatus;
use abi::signal::{SI_KERNEL, SigInfo, SigSet, Signal};
use guestmem::{MemExt, UserAddr, UserMem, UserPtr};
use platform::Resume;
use sync::wait::Parker;

use crate::group::ThreadGroup;
use crate::kernel::Kernel;
use crate::table::Table;
use crate::task::{Sharing, Task};

/// Most entries of a robust list that are walked (`ROBUST_LIST_LIMIT`).
const ROBUST_LIMIT: usize = 2048;
/// The owner died holding the futex.
const FUTEX_OWNER_DIED: u32 = 0x4000_0000;
/// Somebody waits.
const FUTEX_WAITERS: u32 = 0x8000_0000;
/// The owner's id.
const FUTEX_TID_MASK: u32 = 0x3fff_ffff;

/// Signals that the end of a process causes; sent after the table's lock is released.
#[derive(Default)]
struct Notices {
    signals: Vec<(Arc<crate::group::ThreadGroup>, Signal, SigInfo)>,
    wake: Vec<Arc<crate::group::ThreadGroup>>,
}

impl Task {
    /// `exit(2)`: only this thread. It ends when the call returns; with the last one the process does.
    pub fn exit_thread(self: &Arc<Self>, code: i32) {
        let last = {
            let table = self.kernel().table.lock();
            table.groups.get(&self.tgid()).is_none_or(|node| node.members.len() <= 1)
        };
        self.group().life.lock().last_code = code;
        if last {
            self.exit_group(code);
        } else {
            self.doomed.store(true, Ordering::SeqCst);
        }
    }

    /// `exit_group(2)`: the whole process. It ends when the call returns.
    pub fn exit_group(self: &Arc<Self>, code: i32) {
        self.kernel().end_group(self.group(), WaitStatus::Exited(code as u8));
    }

    /// The code that counts when threads that call `exit(2)` at once each think that they are not the last.
    pub(crate) fn exit_code(&self) -> i32 {
        self.group().life.lock().last_code
    }

    /// Ends the task: gives back what it holds, tells who must be told.
    pub(crate) fn exit_now(self: &Arc<Self>, code: i32) -> Resume {
        if self.exited.swap(true, Ordering::SeqCst) {
            return Resume::Exit;
        }
        // The backend's half of the thread holds us as its handler, and its memory: neither may live on
        // in a circle.
        let handle = self.handle.lock().take();
        drop(handle);
        self.hand_over(SigSet::FULL);
        self.walk_robust_list();
        self.clear_tid();
        self.release_holdings();
        self.kernel().leave_table(self, code)
    }

    /// Files, directories and the vfork parent; outside the lock, as closing may do anything.
    fn release_holdings(&self) {
        let (fds, fs, vfork) = {
            let mut holdings = self.holdings.lock();
            drop(holdings.exe.take());
            (holdings.fds.take(), holdings.fs.take(), holdings.vfork.take())
        };
        if let Some(fds) = fds {
            fds.release(self.tgid());
        }
        drop(fs);
        if let Some(parent) = vfork {
            parent.notify();
        }
    }

    /// `set_tid_address(2)`'s word; what `clone` gave is the backend's to clear, where the host has the waiters.
    fn clear_tid(&self) {
        let addr = std::mem::take(&mut self.holdings.lock().clear_tid);
        if addr == 0 {
            return;
        }
        let mem = self.mm();
        // Ours and the task's: nobody else has this memory, so nobody waits there.
        if Arc::strong_count(&mem) <= 2 {
            return;
        }
        if mem.store(UserPtr::new(UserAddr(addr)), &0u32).is_ok() {
            self.futex_wake(UserAddr(addr));
        }
    }

    /// Wakes one waiter, the host's or ours.
    fn futex_wake(&self, at: UserAddr) {
        if self.kernel().platform().features().native_futex {
            // Nobody may wait; a bad address has been met already.
            let _ = self.mm().space().futex_wake(at, 1, u32::MAX);
        }
        if let Ok(key) = self.futex_key(at, Sharing::Any) {
            self.kernel().futexes().wake(key, 1, u32::MAX);
        }
    }

    /// Marks robust futexes the thread holds (`get_robust_list(2)`); every word is a guest's claim.
    fn walk_robust_list(&self) {
        let head = std::mem::take(&mut self.holdings.lock().robust_list);
        if head == 0 {
            return;
        }
        let mem = self.mm();
        let word = |at: u64| mem.load(UserPtr::<u64>::new(UserAddr(at))).ok();
        let Ok([first, offset, pending]) = mem.load(UserPtr::<[u64; 3]>::new(UserAddr(head))) else { return };
        let pending = pending & !1;
        let mut entry = first & !1;
        for _ in 0..ROBUST_LIMIT {
            if entry == head || entry == 0 {
                break;
            }
            let next = word(entry);
            if entry != pending {
                self.owner_died(entry.wrapping_add(offset));
            }
            match next {
                Some(next) => entry = next & !1,
                None => break,
            }
        }
        if pending != 0 {
            self.owner_died(pending.wrapping_add(offset));
        }
    }

    fn owner_died(&self, addr: u64) {
        let mem = self.mm();
        let at = UserAddr(addr);
        let Ok(mut value) = mem.load(UserPtr::<u32>::new(at)) else { return };
        // Another thread may change it under us, but not for ever.
        for _ in 0..64 {
            if value & FUTEX_TID_MASK != self.number() as u32 {
                return;
            }
            let dead = (value & FUTEX_WAITERS) | FUTEX_OWNER_DIED;
            match mem.compare_exchange_u32(at, value, dead) {
                Ok(old) if old == value => break,
                Ok(old) => value = old,
                Err(_) => return,
            }
        }
        if value & FUTEX_WAITERS != 0 {
            self.futex_wake(at);
        }
    }
}

impl Kernel {
    /// Takes an ended task out of the table; with the last one the process ends.
    fn leave_table(&self, task: &Arc<Task>, code: i32) -> Resume {
        let (tid, tgid) = (task.tid(), task.tgid());
        let group = task.group();
        let mut notices = Notices::default();
        let last = {
            let mut table = self.table.lock();
            let Some(node) = table.groups.get_mut(&tgid) else { return Resume::ExitProcess };
            node.members.retain(|member| *member != tid);
            let last = node.members.is_empty();
            if last {
                node.uid = task.cred().uid;
            }
            table.tasks.remove(&tid);
            if tid != tgid {
                table.release(tid);
            }
            last
        };
        self.count_live(-1);
        if !last {
            // An exec waits for the others to go.
            group.end_events.notify(PollEvents::OUT);
            return Resume::Exit;
        }
        // Asked of the host only now, when somebody will want to know.
        let used = task.process_usage();
        if let Some(node) = self.table.lock().groups.get_mut(&tgid) {
            node.usage = used;
        }
        if group.is_init() && !group.pid_ns().is_first() {
            self.end_namespace(group);
        }
        // Before the parent hears of the end.
        self.ipc().process_ended(tgid);
        let status = {
            let mut life = group.life.lock();
            let status = life.ending.unwrap_or(WaitStatus::Exited(code as u8));
            life.ended = Some(status);
            status
        };
        group.ending.store(true, Ordering::SeqCst);
        let timers = std::mem::take(&mut *group.timers.lock());
        drop(timers);
        self.end_process(tgid, status, &mut notices);
        self.end_session(task);
        self.end_container(tgid);
        for (group, signal, info) in notices.signals {
            let _ = self.send_to_group(&group, signal, info);
        }
        for group in notices.wake {
            group.child_events.notify(PollEvents::IN);
        }
        group.end_events.notify(PollEvents::IN);
        self.ended.notify(PollEvents::IN);
        Resume::ExitProcess
    }

    /// With the first process all others end (pid_namespaces(7)).
    fn end_container(&self, tgid: i32) {
        let others: Vec<_> = {
            let table = self.table.lock();
            if self.pid_ns().init() != tgid {
                return;
            }
            table.groups.values().filter(|n| n.zombie.is_none()).map(|n| Arc::clone(&n.group)).collect()
        };
        for group in others {
            self.end_group(&group, WaitStatus::Signaled(Signal::SIGKILL, false));
        }
    }

    /// With the first process of a pid namespace all others in it end, and before it.
    fn end_namespace(&self, init: &Arc<ThreadGroup>) {
        let namespace = init.pid_ns();
        namespace.close();
        let parker = Parker::new();
        let _waiter = self.ended.register(parker.clone(), PollEvents::IN);
        loop {
            let others: Vec<_> = {
                let table = self.table.lock();
                let in_it =
                    |group: &ThreadGroup| group.tgid() != init.tgid() && namespace.number(group.tgid()) != 0;
                let alive = table.groups.values().filter(|node| node.zombie.is_none());
                alive.map(|node| &node.group).filter(|group| in_it(group)).map(Arc::clone).collect()
            };
            if others.is_empty() {
                return;
            }
            for group in others.iter().filter(|group| !group.is_ending()) {
                self.end_group(group, WaitStatus::Signaled(Signal::SIGKILL, false));
            }
            parker.park(None);
        }
    }

    /// The process becomes a zombie, or vanishes; its children are adopted.
    fn end_process(&self, tgid: i32, status: WaitStatus, notices: &mut Notices) {
        let parent_of = |table: &Table| table.groups.get(&tgid).map_or(0, |node| node.parent);
        let (mut table, parent_group, reaps, ignores) = loop {
            let (parent, parent_group) = {
                let table = self.table.lock();
                let parent = parent_of(&table);
                (parent, table.groups.get(&parent).map(|node| Arc::clone(&node.group)))
            };
            // Before the table's lock: actions come after it in the order, but are asked once.
            let reaps = parent_group.as_ref().is_some_and(|p| p.actions().lock().reaps_children());
            let ignores = parent_group.as_ref().is_some_and(|p| p.actions().lock().ignores(Signal::SIGCHLD));
            let table = self.table.lock();
            // One that ended meanwhile has given it away, and another waits for it.
            if parent_of(&table) == parent {
                break (table, parent_group, reaps, ignores);
            }
        };
        let orphans_before = orphan_candidates(&table, tgid);
        self.reparent(&mut table, tgid, notices);
        let Some(node) = table.groups.get_mut(&tgid) else { return };
        node.zombie = Some(status);
        node.report = None;
        let (uid, exit_signal) = (node.uid, node.exit_signal);
        for pgrp in orphans_before {
            self.hang_up_if_orphaned(&table, pgrp, notices);
        }
        let Some(parent) = parent_group else { return };
        let (code, value) = status.child_code();
        if let Some(signal) = exit_signal {
            let pid = parent.pid_ns().number(tgid);
            let mut info = SigInfo::child(code, pid, uid, value, 0, 0);
            info.signo = i32::from(signal.number());
            if !(signal == Signal::SIGCHLD && ignores) {
                notices.signals.push((Arc::clone(&parent), signal, info));
            }
            if signal == Signal::SIGCHLD && reaps {
                table.forget(tgid);
            }
        }
        notices.wake.push(parent);
    }

    /// Gives the children of `tgid` to the adopter.
    fn reparent(&self, table: &mut Table, tgid: i32, notices: &mut Notices) {
        let to = table.adopter(tgid);
        let children = match table.groups.get_mut(&tgid) {
            Some(node) => std::mem::take(&mut node.children),
            None => return,
        };
        for child in children {
            let Some(node) = table.groups.get_mut(&child) else { continue };
            node.parent = to;
            node.exit_signal = Some(Signal::SIGCHLD);
            let (zombie, group) = (node.zombie.is_some(), Arc::clone(&node.group));
            let death = table.members(child).first().and_then(|task| Signal::new(task.death_signal()));
            if let Some(signal) = death {
                notices.signals.push((group, signal, SigInfo::new(signal, SI_KERNEL)));
            }
            match table.groups.get_mut(&to) {
                Some(adopter) => {
                    adopter.children.insert(child);
                    if zombie {
                        notices.wake.push(Arc::clone(&adopter.group));
                    }
                }
                // Nobody will ever ask.
                None if zombie => table.forget(child),
                None => {}
            }
        }
    }

    /// A stopped, newly orphaned process group gets `SIGHUP` and `SIGCONT` (POSIX.1, `_exit`).
    fn hang_up_if_orphaned(&self, table: &crate::table::Table, pgrp: i32, notices: &mut Notices) {
        let members = table.in_pgrp(pgrp);
        if !table.is_orphaned(pgrp) || !members.iter().any(|group| group.stopped().is_some()) {
            return;
        }
        for group in members {
            for signal in [Signal::SIGHUP, Signal::SIGCONT] {
                notices.signals.push((Arc::clone(&group), signal, SigInfo::new(signal, SI_KERNEL)));
            }
        }
    }

    /// The end of a session leader gives up the terminal.
    fn end_session(&self, task: &Arc<Task>) {
        let tgid = task.tgid();
        if self.session_of(tgid) == Some(tgid)
            && let Some(terminal) = task.group().terminal()
        {
            terminal.disassociate();
        }
        task.group().set_terminal(None);
    }
}

/// Process groups the end of `tgid` may orphan: its own and its children's, not orphaned yet.
fn orphan_candidates(table: &crate::table::Table, tgid: i32) -> Vec<i32> {
    let Some(node) = table.groups.get(&tgid) else { return Vec::new() };
    let of = |id: &i32| table.groups.get(id).map(|node| node.pgrp);
    let mut groups: Vec<i32> =
        node.children.iter().filter_map(of).chain(std::iter::once(node.pgrp)).collect();
    groups.sort_unstable();
    groups.dedup();
    groups.retain(|pgrp| !table.is_orphaned(*pgrp));
    groups
}
