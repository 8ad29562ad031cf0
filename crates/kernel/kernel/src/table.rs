//! The process tree: ids, parents and children, process groups, sessions. One lock for all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use abi::Errno;
use abi::process::{Rusage, WaitStatus};
use abi::signal::Signal;

use crate::group::ThreadGroup;
use crate::pidns::PidNamespace;
use crate::task::Task;

/// First id used again after the highest: as Linux, low ids stay with what started first.
const REUSE_FROM: i32 = 300;
/// One past the highest id (`pid_max`).
const MAX_ID: i32 = 1 << 22;

/// A process's place in the tree.
pub(crate) struct Node {
    pub(crate) group: Arc<ThreadGroup>,
    /// Parent process; 0 when the kernel itself started it.
    pub(crate) parent: i32,
    pub(crate) children: BTreeSet<i32>,
    pub(crate) pgrp: i32,
    pub(crate) session: i32,
    /// Living threads, the leader first as long as it lives.
    pub(crate) members: Vec<i32>,
    /// Set once it has ended and waits to be waited for.
    pub(crate) zombie: Option<WaitStatus>,
    /// A stop or continuation the parent has not heard of.
    pub(crate) report: Option<WaitStatus>,
    /// Signal for the parent at the end.
    pub(crate) exit_signal: Option<Signal>,
    /// Adopts orphaned descendants (`PR_SET_CHILD_SUBREAPER`).
    pub(crate) subreaper: bool,
    /// Has executed a program since it was forked (`setpgid(2)`).
    pub(crate) executed: bool,
    /// Real user id at the end, for `waitid(2)`.
    pub(crate) uid: u32,
    /// What it used, at the end.
    pub(crate) usage: Rusage,
    /// What the children used that were waited for.
    pub(crate) children_usage: Rusage,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) tasks: HashMap<i32, Arc<Task>>,
    pub(crate) groups: BTreeMap<i32, Node>,
    /// Who has numbers in a pid namespace below the first, and which.
    nested: HashMap<i32, Arc<PidNamespace>>,
    last: i32,
}

impl Table {
    /// A fresh id, unless `max` are in use. Not taken until added.
    pub(crate) fn allocate(&mut self, max: usize) -> Option<i32> {
        if self.tasks.len().max(self.groups.len()) >= max {
            return None;
        }
        let mut id = self.last;
        // There are at most 32768 in use, so a free one comes soon.
        for _ in 0..=65536 {
            id = if id + 1 >= MAX_ID { REUSE_FROM } else { id + 1 };
            if !self.in_use(id) {
                self.last = id;
                return Some(id);
            }
        }
        None
    }

    /// A fresh id with numbers in `namespace` and those above. `EAGAIN` when `max` are in use.
    pub(crate) fn allocate_in(&mut self, max: usize, namespace: &Arc<PidNamespace>) -> Result<i32, Errno> {
        let id = self.allocate(max).ok_or(Errno::EAGAIN)?;
        if !namespace.is_first() {
            namespace.enter(id)?;
            self.nested.insert(id, Arc::clone(namespace));
        }
        Ok(id)
    }

    /// Gives up the numbers of an id, unless it is still somebody's, or a process group's or session's.
    pub(crate) fn release(&mut self, id: i32) {
        if self.nested.is_empty() || self.in_use(id) {
            return;
        }
        if let Some(namespace) = self.nested.remove(&id) {
            namespace.leave(id);
        }
    }

    /// Is it the id of a task, a process, or of a process group or session that still has members?
    fn in_use(&self, id: i32) -> bool {
        self.tasks.contains_key(&id)
            || self.groups.contains_key(&id)
            || self.groups.values().any(|node| node.pgrp == id || node.session == id)
    }

    /// Adds a process with its leader.
    pub(crate) fn add_process(
        &mut self,
        group: &Arc<ThreadGroup>,
        leader: &Arc<Task>,
        parent: i32,
        pgrp: i32,
        session: i32,
        exit_signal: Option<Signal>,
    ) {
        let id = group.tgid();
        self.tasks.insert(id, Arc::clone(leader));
        if let Some(node) = self.groups.get_mut(&parent) {
            node.children.insert(id);
        }
        let node = Node {
            group: Arc::clone(group),
            parent,
            children: BTreeSet::new(),
            pgrp,
            session,
            members: vec![id],
            zombie: None,
            report: None,
            exit_signal,
            subreaper: false,
            executed: false,
            uid: 0,
            usage: Rusage::default(),
            children_usage: Rusage::default(),
        };
        self.groups.insert(id, node);
    }

    /// Removes a process altogether.
    pub(crate) fn forget(&mut self, tgid: i32) {
        self.tasks.remove(&tgid);
        let Some(node) = self.groups.remove(&tgid) else { return self.release(tgid) };
        if let Some(parent) = self.groups.get_mut(&node.parent) {
            parent.children.remove(&tgid);
        }
        for id in [tgid, node.pgrp, node.session] {
            self.release(id);
        }
    }

    /// Living threads of a process.
    pub(crate) fn members(&self, tgid: i32) -> Vec<Arc<Task>> {
        let ids = self.groups.get(&tgid).map(|node| node.members.as_slice()).unwrap_or_default();
        ids.iter().filter_map(|id| self.tasks.get(id).cloned()).collect()
    }

    /// Who adopts the children of `tgid`: the nearest living subreaper above it in its pid namespace, else the
    /// first process of that, else nobody.
    pub(crate) fn adopter(&self, tgid: i32) -> i32 {
        let Some(own) = self.groups.get(&tgid) else { return 0 };
        let namespace = own.group.pid_ns();
        let mut at = own.parent;
        // The tree is no deeper than it has nodes.
        for _ in 0..self.groups.len() {
            match self.groups.get(&at) {
                Some(node) if !Arc::ptr_eq(node.group.pid_ns(), namespace) => break,
                Some(node) if node.subreaper && node.zombie.is_none() => return at,
                Some(node) => at = node.parent,
                None => break,
            }
        }
        let init = namespace.init();
        let alive = self.groups.get(&init).is_some_and(|node| node.zombie.is_none());
        if alive && init != tgid { init } else { 0 }
    }

    /// Is the process group orphaned: has no member a parent in another group of the same session?
    pub(crate) fn is_orphaned(&self, pgrp: i32) -> bool {
        !self.groups.values().filter(|node| node.pgrp == pgrp && node.zombie.is_none()).any(|node| {
            self.groups
                .get(&node.parent)
                .is_some_and(|parent| parent.pgrp != pgrp && parent.session == node.session)
        })
    }

    /// Processes of a group.
    pub(crate) fn in_pgrp(&self, pgrp: i32) -> Vec<Arc<ThreadGroup>> {
        self.groups.values().filter(|n| n.pgrp == pgrp).map(|n| Arc::clone(&n.group)).collect()
    }
}
