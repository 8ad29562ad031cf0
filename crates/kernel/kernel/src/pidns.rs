//! Pid namespaces (`pid_namespaces(7)`).
//!
//! Within the kernel every task has one id, which is its number in the first namespace. A namespace below
//! gives its members numbers of their own; each member has one in every namespace above, too. Ids are
//! translated where a guest says or hears them: in the system calls, in `/proc`, and in the records of
//! signals.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use abi::Errno;
use sync::{Mutex, order};

/// How deep namespaces nest (`MAX_PID_NS_LEVEL`).
const MAX_LEVEL: u32 = 32;
/// First number given again after the highest (`RESERVED_PIDS`).
const REUSE_FROM: i32 = 300;
/// One past the highest number (`pid_max`).
const MAX_NUMBER: i32 = 1 << 22;
/// The number of the first namespace among files (`PROC_PID_INIT_INO`).
const FIRST_INODE: u64 = 0xeffffffc;

static NEXT_INODE: AtomicU64 = AtomicU64::new(0xf000_0000);

/// An inode number for a namespace that is made, of whatever kind.
pub fn new_inode() -> u64 {
    NEXT_INODE.fetch_add(1, Ordering::Relaxed)
}

/// See the module.
#[derive(Debug)]
pub struct PidNamespace {
    inode: u64,
    level: u32,
    parent: Option<Arc<Self>>,
    /// Kernel-wide id of its first process; 0 before there is one.
    init: AtomicI32,
    numbers: Mutex<order::Leaf, Numbers>,
}

/// Who is in it; empty for the first namespace, where numbers are ids.
#[derive(Debug, Default)]
struct Numbers {
    last: i32,
    /// Its first process has ended.
    closed: bool,
    ids: BTreeMap<i32, i32>,
    of: HashMap<i32, i32>,
}

impl PidNamespace {
    /// The first one.
    pub(crate) fn first() -> Arc<Self> {
        Arc::new(Self {
            inode: FIRST_INODE,
            level: 0,
            parent: None,
            init: AtomicI32::new(0),
            numbers: Mutex::default(),
        })
    }

    /// One below. `ENOSPC` when that is too deep.
    pub fn below(parent: &Arc<Self>) -> Result<Arc<Self>, Errno> {
        if parent.level + 1 > MAX_LEVEL {
            return Err(Errno::ENOSPC);
        }
        Ok(Arc::new(Self {
            inode: new_inode(),
            level: parent.level + 1,
            parent: Some(Arc::clone(parent)),
            init: AtomicI32::new(0),
            numbers: Mutex::default(),
        }))
    }

    /// Its number among files (`/proc/PID/ns/pid`).
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Zero for the first, one more for each below.
    pub fn level(&self) -> u32 {
        self.level
    }

    /// The one it was made in.
    pub fn parent(&self) -> Option<&Arc<Self>> {
        self.parent.as_ref()
    }

    /// Is it the first one?
    pub fn is_first(&self) -> bool {
        self.level == 0
    }

    /// Is `other` this one or below it?
    pub fn holds(&self, other: &Self) -> bool {
        let mut at = Some(other);
        while let Some(namespace) = at {
            if std::ptr::eq(namespace, self) {
                return true;
            }
            at = namespace.parent.as_deref();
        }
        false
    }

    /// Kernel-wide id of its first process; 0 before there is one.
    pub(crate) fn init(&self) -> i32 {
        self.init.load(Ordering::SeqCst)
    }

    pub(crate) fn set_init(&self, id: i32) {
        self.init.store(id, Ordering::SeqCst);
    }

    /// The number that who has kernel-wide `id` has here: 0 for who is not in it, and for no id.
    pub fn number(&self, id: i32) -> i32 {
        if self.is_first() { id } else { self.numbers.lock().of.get(&id).copied().unwrap_or(0) }
    }

    /// The kernel-wide id behind a number that a member said. In the first namespace it need not be anybody's.
    pub fn id(&self, number: i32) -> Option<i32> {
        if self.is_first() { Some(number) } else { self.numbers.lock().ids.get(&number).copied() }
    }

    /// Gives `id` a number here and in all above. `ENOMEM` when its first process has ended, as Linux says.
    pub(crate) fn enter(&self, id: i32) -> Result<(), Errno> {
        let mut at = Some(self);
        while let Some(namespace) = at {
            if let Err(errno) = namespace.enter_this(id) {
                self.leave(id);
                return Err(errno);
            }
            at = namespace.parent.as_deref();
        }
        Ok(())
    }

    fn enter_this(&self, id: i32) -> Result<(), Errno> {
        if self.is_first() {
            return Ok(());
        }
        let mut numbers = self.numbers.lock();
        if numbers.closed {
            return Err(Errno::ENOMEM);
        }
        let mut number = numbers.last;
        // No more are taken than there are tasks, so that a free one comes soon.
        for _ in 0..=65536 {
            number = if number + 1 >= MAX_NUMBER { REUSE_FROM } else { number + 1 };
            if !numbers.ids.contains_key(&number) {
                numbers.last = number;
                numbers.ids.insert(number, id);
                numbers.of.insert(id, number);
                return Ok(());
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Takes the numbers of `id` away again, here and above.
    pub(crate) fn leave(&self, id: i32) {
        let mut at = Some(self);
        while let Some(namespace) = at {
            if !namespace.is_first() {
                let mut numbers = namespace.numbers.lock();
                if let Some(number) = numbers.of.remove(&id) {
                    numbers.ids.remove(&number);
                }
            }
            at = namespace.parent.as_deref();
        }
    }

    /// Nobody can enter it any more: its first process has ended.
    pub(crate) fn close(&self) {
        self.numbers.lock().closed = true;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use abi::Errno;

    use super::{MAX_LEVEL, PidNamespace};

    #[test]
    fn members_have_a_number_at_every_level() {
        let first = PidNamespace::first();
        let one = PidNamespace::below(&first).expect("not deep");
        let two = PidNamespace::below(&one).expect("not deep");
        one.enter(7).expect("open");
        two.enter(8).expect("open");
        assert_eq!((first.number(8), one.number(8), two.number(8)), (8, 2, 1));
        assert_eq!((one.number(7), two.number(7)), (1, 0));
        assert_eq!((one.id(2), two.id(2), first.id(9)), (Some(8), None, Some(9)));
        two.leave(8);
        assert_eq!((one.id(2), two.id(1)), (None, None));
        assert!(first.holds(&two) && one.holds(&two) && two.holds(&two) && !two.holds(&one));
    }

    #[test]
    fn a_closed_one_takes_nobody_and_leaves_no_number_above() {
        let one = PidNamespace::below(&PidNamespace::first()).expect("not deep");
        let two = PidNamespace::below(&one).expect("not deep");
        one.close();
        assert_eq!(two.enter(5), Err(Errno::ENOMEM));
        assert_eq!((one.number(5), two.number(5)), (0, 0));
    }

    #[test]
    fn they_nest_to_a_depth() {
        let mut at = PidNamespace::first();
        for _ in 0..MAX_LEVEL {
            at = PidNamespace::below(&at).expect("not deep");
        }
        assert_eq!(PidNamespace::below(&at).map(|deep| Arc::strong_count(&deep)), Err(Errno::ENOSPC));
    }
}
