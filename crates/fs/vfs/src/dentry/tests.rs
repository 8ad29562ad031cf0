//! What is cached, what is forgotten, and that both are bounded.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use abi::Errno;
use abi::fs::{FileType, OpenFlags, Permissions, StatFs};

use super::Dentry;
use crate::{Attr, File, FileContext, FileSystem, Inode, Result, SetAttr};

/// A file system of one directory, which counts how often it is asked.
struct Fake {
    root: Mutex<Weak<Node>>,
    cached: bool,
    /// Nodes there may be.
    room: usize,
}

struct Node {
    fs: Arc<Fake>,
    names: Mutex<BTreeSet<Vec<u8>>>,
    asked: AtomicUsize,
    kind: FileType,
}

impl FileSystem for Fake {
    fn type_name(&self) -> &'static str {
        "fake"
    }

    fn dev(&self) -> u64 {
        1
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.lock().expect("not poisoned").upgrade().expect("alive")
    }

    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs::default())
    }

    fn caches_lookups(&self) -> bool {
        self.cached
    }
}

impl Inode for Node {
    fn kind(&self) -> FileType {
        self.kind
    }

    fn fs(&self) -> Arc<dyn FileSystem> {
        Arc::clone(&self.fs) as Arc<dyn FileSystem>
    }

    fn attr(&self) -> Result<Attr> {
        let zero = abi::time::Timespec::default();
        Ok(Attr {
            ino: 1,
            kind: self.kind,
            perm: Permissions::all(),
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            blocks: 0,
            blksize: 0,
            atime: zero,
            mtime: zero,
            ctime: zero,
            btime: None,
        })
    }

    fn set_attr(&self, _change: &SetAttr) -> Result<()> {
        Ok(())
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if !self.names.lock().expect("not poisoned").contains(name) {
            return Err(Errno::ENOENT);
        }
        // Each node has the file system.
        if Arc::strong_count(&self.fs) > self.fs.room {
            return Err(Errno::ENFILE);
        }
        Ok(node(&self.fs, FileType::Regular))
    }

    fn open(&self, _cx: &FileContext<'_>, _flags: OpenFlags) -> Result<Arc<dyn File>> {
        Err(Errno::ENXIO)
    }
}

fn node(fs: &Arc<Fake>, kind: FileType) -> Arc<Node> {
    Arc::new(Node { fs: Arc::clone(fs), names: Mutex::default(), asked: AtomicUsize::new(0), kind })
}

fn fake(cached: bool) -> (Arc<Node>, Arc<Dentry>) {
    fake_with(cached, usize::MAX)
}

fn fake_with(cached: bool, room: usize) -> (Arc<Node>, Arc<Dentry>) {
    let fs = Arc::new(Fake { root: Mutex::default(), cached, room });
    let root = node(&fs, FileType::Directory);
    *fs.root.lock().expect("not poisoned") = Arc::downgrade(&root);
    let dentry = Dentry::root_of(&*fs);
    (root, dentry)
}

impl Node {
    fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::SeqCst)
    }

    fn add(&self, name: &[u8]) {
        self.names.lock().expect("not poisoned").insert(name.to_vec());
    }
}

fn make(inode: &Arc<Node>, dentry: &Dentry, name: &[u8]) -> Result<Arc<Dentry>> {
    dentry.lock_names().make(name, |_| {
        if inode.names.lock().expect("not poisoned").insert(name.to_vec()) {
            Ok(node(&inode.fs, FileType::Regular))
        } else {
            Err(Errno::EEXIST)
        }
    })
}

#[test]
fn absence_is_remembered_until_the_name_is_made() {
    let (inode, dentry) = fake(true);
    for _ in 0..3 {
        assert_eq!(dentry.lookup(b"x").expect_err("refused"), Errno::ENOENT);
    }
    assert_eq!(inode.asked(), 1);
    let made = make(&inode, &dentry, b"x").expect("works");
    assert!(Arc::ptr_eq(&dentry.lookup(b"x").expect("works"), &made));
    inode.names.lock().expect("not poisoned").clear();
    dentry.lock_names().removed(b"x");
    assert!(made.is_unlinked());
    assert_eq!(dentry.lookup(b"x").expect_err("refused"), Errno::ENOENT);
    assert_eq!(inode.asked(), 0);
    // Somebody made it without telling: the attempt to make it finds out.
    inode.add(b"x");
    assert_eq!(make(&inode, &dentry, b"x").expect_err("refused"), Errno::EEXIST);
    assert!(dentry.lookup(b"x").is_ok());
}

#[test]
fn trees_that_change_by_themselves_are_always_asked() {
    let (inode, dentry) = fake(false);
    assert_eq!(dentry.lookup(b"x").expect_err("refused"), Errno::ENOENT);
    inode.add(b"x");
    assert!(dentry.lookup(b"x").is_ok());
    inode.names.lock().expect("not poisoned").clear();
    assert_eq!(dentry.lookup(b"x").expect_err("refused"), Errno::ENOENT);
    assert_eq!(inode.asked(), 3);
    assert_eq!(dentry.tree.sizes(), (0, 0));
}

#[test]
fn what_is_kept_is_bounded_and_what_is_used_stays() {
    let (inode, dentry) = fake(true);
    inode.add(b"hot");
    dentry.lookup(b"hot").expect("works");
    for n in 0..super::cache::KEPT_MAX + 1000 {
        let name = n.to_string().into_bytes();
        assert!(dentry.lookup(&name).is_err());
        inode.add(&name);
        make(&inode, &dentry, &[b"made", &name[..]].concat()).expect("works");
        dentry.lookup(b"hot").expect("works");
    }
    let (kept, absent) = dentry.tree.sizes();
    assert_eq!((kept, absent), (super::cache::KEPT_MAX, super::cache::ABSENT_MAX));
    assert!(dentry.state.lock().names.len() <= kept + absent);
    inode.asked();
    dentry.lookup(b"hot").expect("works");
    assert_eq!(inode.asked(), 0, "used all the time");
    dentry.lookup(b"made0").expect("works");
    assert_eq!(inode.asked(), 1, "long forgotten");
    dentry.shrink();
    assert_eq!(dentry.tree.sizes(), (0, 0));
    assert!(dentry.state.lock().names.is_empty());
}

#[test]
fn what_is_kept_gives_way_to_what_is_needed() {
    let (inode, dentry) = fake_with(true, 100);
    let used: Vec<_> = (0..1000)
        .map(|n: u32| {
            let name = n.to_string().into_bytes();
            inode.add(&name);
            (n % 20 == 0).then_some(dentry.lookup(&name).expect("works"))
        })
        .collect();
    assert_eq!(used.iter().flatten().count(), 50);
    // What is used does not.
    let mut more = Vec::new();
    let full = (1000..1100).find_map(|n: u32| {
        inode.add(n.to_string().as_bytes());
        dentry.lookup(n.to_string().as_bytes()).map(|found| more.push(found)).err()
    });
    assert_eq!(full, Some(Errno::ENFILE));
}

#[test]
fn a_file_system_has_one_tree() {
    let (inode, dentry) = fake(true);
    assert!(Arc::ptr_eq(&Dentry::root_of(&*inode.fs), &dentry));
}

#[test]
fn exchanged_names_are_both_known() {
    let (inode, dentry) = fake(true);
    let a = make(&inode, &dentry, b"a").expect("works");
    let b = make(&inode, &dentry, b"b").expect("works");
    let names = dentry.lock_names();
    names.moved(&b, None, b"a");
    names.moved(&a, None, b"b");
    drop(names);
    assert!(Arc::ptr_eq(&dentry.lookup(b"a").expect("works"), &b));
    assert!(Arc::ptr_eq(&dentry.lookup(b"b").expect("works"), &a));
    let names = dentry.lock_names();
    names.removed(b"b");
    names.moved(&b, None, b"b");
    drop(names);
    assert_eq!(dentry.lookup(b"a").expect_err("refused"), Errno::ENOENT);
    assert!(Arc::ptr_eq(&dentry.lookup(b"b").expect("works"), &b));
    assert!(a.is_unlinked());
}
