//! Random operations on names against a table of inodes: results, contents, link counts and identities must
//! be the table's.

use std::collections::{BTreeMap, HashMap};

use abi::Errno;
use abi::fs::{FileType, OpenFlags};
use guestmem::SliceSource;
use proptest::prelude::{Strategy, any, prop_oneof, proptest};
use vfs::{RenameFlags, WalkFlags};

use crate::tests::{Names, World};

enum Object {
    Dir(BTreeMap<&'static str, usize>),
    File(Vec<u8>),
    Link,
}

/// Inodes by number; the root is the first. What lost its last name stays, unreachable.
struct Model(Vec<Object>);

type Path = Vec<&'static str>;

const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Op {
    Write(Path, u8),
    Mkdir(Path),
    Symlink(Path),
    Link(Path, Path),
    Unlink(Path),
    Rmdir(Path),
    Rename(Path, Path),
    NoReplace(Path, Path),
    Exchange(Path, Path),
}

fn path() -> impl Strategy<Value = Path> {
    proptest::collection::vec(proptest::sample::select(&NAMES[..]), 1..4)
}

fn op() -> impl Strategy<Value = Op> {
    let two = || (path(), path());
    prop_oneof![
        3 => (path(), any::<u8>()).prop_map(|(path, byte)| Op::Write(path, byte)),
        4 => path().prop_map(Op::Mkdir),
        1 => path().prop_map(Op::Symlink),
        2 => two().prop_map(|(old, new)| Op::Link(old, new)),
        2 => path().prop_map(Op::Unlink),
        2 => path().prop_map(Op::Rmdir),
        5 => two().prop_map(|(old, new)| Op::Rename(old, new)),
        1 => two().prop_map(|(old, new)| Op::NoReplace(old, new)),
        3 => two().prop_map(|(old, new)| Op::Exchange(old, new)),
    ]
}

impl Model {
    fn dir(&mut self, at: usize) -> Result<&mut BTreeMap<&'static str, usize>, Errno> {
        match &mut self.0[at] {
            Object::Dir(names) => Ok(names),
            // Links lead nowhere.
            Object::Link => Err(Errno::ENOENT),
            Object::File(_) => Err(Errno::ENOTDIR),
        }
    }

    /// Names of the directory a path's last component is in, and that component.
    fn parent(&mut self, path: &Path) -> Result<(usize, &'static str), Errno> {
        let mut at = 0;
        for name in &path[..path.len() - 1] {
            at = *self.dir(at)?.get(name).ok_or(Errno::ENOENT)?;
        }
        self.dir(at)?;
        Ok((at, path[path.len() - 1]))
    }

    fn find(&mut self, path: &Path) -> Result<usize, Errno> {
        let (dir, name) = self.parent(path)?;
        self.dir(dir)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    fn is_dir(&self, at: usize) -> bool {
        matches!(self.0[at], Object::Dir(_))
    }

    fn enter(&mut self, path: &Path, at: usize) -> Result<(), Errno> {
        let (dir, name) = self.parent(path)?;
        self.dir(dir)?.insert(name, at);
        Ok(())
    }

    fn remove(&mut self, path: &Path) -> Result<(), Errno> {
        let (dir, name) = self.parent(path)?;
        self.dir(dir)?.remove(name);
        Ok(())
    }

    fn vacant(&mut self, path: &Path) -> Result<(), Errno> {
        let (dir, name) = self.parent(path)?;
        if self.dir(dir)?.contains_key(name) { Err(Errno::EEXIST) } else { Ok(()) }
    }

    fn make(&mut self, path: &Path, what: Object) -> Result<(), Errno> {
        self.vacant(path)?;
        self.0.push(what);
        self.enter(path, self.0.len() - 1)
    }

    fn step(&mut self, op: &Op) -> Result<(), Errno> {
        match op {
            Op::Write(path, byte) => match self.find(path) {
                Ok(at) => match &mut self.0[at] {
                    Object::File(bytes) => {
                        bytes.push(*byte);
                        Ok(())
                    }
                    Object::Dir(_) => Err(Errno::EISDIR),
                    Object::Link => Err(Errno::ELOOP),
                },
                Err(Errno::ENOENT) => self.make(path, Object::File(vec![*byte])),
                Err(error) => Err(error),
            },
            Op::Mkdir(path) => self.make(path, Object::Dir(BTreeMap::new())),
            Op::Symlink(path) => self.make(path, Object::Link),
            Op::Link(old, new) => {
                let at = self.find(old)?;
                self.vacant(new)?;
                if self.is_dir(at) {
                    return Err(Errno::EPERM);
                }
                self.enter(new, at)
            }
            Op::Unlink(path) => {
                let at = self.find(path)?;
                if self.is_dir(at) { Err(Errno::EISDIR) } else { self.remove(path) }
            }
            Op::Rmdir(path) => {
                let at = self.find(path)?;
                if !self.is_dir(at) {
                    return Err(Errno::ENOTDIR);
                }
                if self.dir(at)?.is_empty() { self.remove(path) } else { Err(Errno::ENOTEMPTY) }
            }
            Op::Rename(old, new) => self.rename(old, new, false),
            Op::NoReplace(old, new) => self.rename(old, new, true),
            Op::Exchange(old, new) => self.exchange(old, new),
        }
    }

    fn rename(&mut self, old: &Path, new: &Path, noreplace: bool) -> Result<(), Errno> {
        self.parent(old)?;
        self.parent(new)?;
        let victim = self.find(old)?;
        let target = self.find(new).ok();
        if noreplace && target.is_some() {
            return Err(Errno::EEXIST);
        }
        if new != old && new.starts_with(old) {
            return Err(Errno::EINVAL);
        }
        if new != old && old.starts_with(new) {
            return Err(Errno::ENOTEMPTY);
        }
        if let Some(target) = target {
            match (self.is_dir(victim), self.is_dir(target)) {
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                _ if target == victim => return Ok(()),
                (true, true) if !self.dir(target)?.is_empty() => return Err(Errno::ENOTEMPTY),
                _ => {}
            }
        }
        self.remove(old)?;
        self.enter(new, victim)
    }

    fn exchange(&mut self, old: &Path, new: &Path) -> Result<(), Errno> {
        self.parent(old)?;
        self.parent(new)?;
        let (one, two) = (self.find(old)?, self.find(new)?);
        if new != old && (new.starts_with(old) || old.starts_with(new)) {
            return Err(Errno::EINVAL);
        }
        self.enter(old, two)?;
        self.enter(new, one)
    }

    /// How many names every inode has, from the root on.
    fn links(&self, at: usize, links: &mut HashMap<usize, u32>) {
        let Object::Dir(names) = &self.0[at] else { return };
        let dirs = names.values().filter(|child| self.is_dir(**child)).count() as u32;
        links.insert(at, 2 + dirs);
        for child in names.values() {
            if self.is_dir(*child) {
                self.links(*child, links);
            } else {
                *links.entry(*child).or_default() += 1;
            }
        }
    }
}

fn text(path: &Path) -> String {
    format!("/{}", path.join("/"))
}

fn carry_out(w: &World, op: &Op) -> Result<(), Errno> {
    let r = w.root();
    let mv = |old, new, flags| r.rename(text(old).as_bytes(), &r, text(new).as_bytes(), flags);
    match op {
        Op::Write(path, byte) => {
            let flags = OpenFlags::WRONLY | OpenFlags::CREAT | OpenFlags::NOFOLLOW | OpenFlags::APPEND;
            let file = w.open(&text(path), flags)?;
            file.write(&w.cx(&w.root), &mut SliceSource(&[*byte])).map(drop)
        }
        Op::Mkdir(path) => r.mkdir(text(path).as_bytes(), 0o755).map(drop),
        Op::Symlink(path) => r.symlink(b"nowhere", text(path).as_bytes()).map(drop),
        Op::Link(old, new) => {
            r.link(&r.lookup(text(old).as_bytes(), WalkFlags::empty())?, text(new).as_bytes())
        }
        Op::Unlink(path) => r.unlink(text(path).as_bytes()),
        Op::Rmdir(path) => r.rmdir(text(path).as_bytes()),
        Op::Rename(old, new) => mv(old, new, RenameFlags::empty()),
        Op::NoReplace(old, new) => mv(old, new, RenameFlags::NOREPLACE),
        Op::Exchange(old, new) => mv(old, new, RenameFlags::EXCHANGE),
    }
}

/// Compares what is at `path` with inode `at` of the model; `seen` has the number each of those had before.
fn check(
    w: &World,
    path: &str,
    model: &Model,
    at: usize,
    links: &HashMap<usize, u32>,
    seen: &mut HashMap<usize, u64>,
) {
    let (found, attr) = w.root().stat(path.as_bytes(), WalkFlags::empty()).expect(path);
    assert_eq!(*seen.entry(at).or_insert(attr.ino), attr.ino, "{path}");
    assert_eq!(attr.nlink, links[&at], "{path}");
    match &model.0[at] {
        Object::File(bytes) => assert_eq!(w.get(path).as_ref(), Ok(bytes), "{path}"),
        Object::Link => assert_eq!(found.inode().kind(), FileType::Symlink, "{path}"),
        Object::Dir(children) => {
            let dir = w.open(path, OpenFlags::DIRECTORY).expect(path);
            let mut names = Names(Vec::new(), usize::MAX);
            dir.read_dir(&w.cx(&w.root), &w.fs.root, &mut names).expect(path);
            names.0.sort();
            let expected: Vec<&str> = [".", ".."].into_iter().chain(children.keys().copied()).collect();
            assert_eq!(names.0, expected, "{path}");
            let prefix = if path == "/" { "" } else { path };
            for (name, child) in children {
                check(w, &format!("{prefix}/{name}"), model, *child, links, seen);
            }
        }
    }
}

proptest! {
    #[test]
    fn names_are_the_models(ops in proptest::collection::vec(op(), 1..60)) {
        let (w, mut model) = (World::new(), Model(vec![Object::Dir(BTreeMap::new())]));
        let mut seen = HashMap::new();
        let fs = w.fs.root.mount.fs();
        let free = fs.statfs().expect("numbers").ffree;
        for op in &ops {
            assert_eq!(carry_out(&w, op), model.step(op), "{op:?}");
            let mut links = HashMap::new();
            model.links(0, &mut links);
            check(&w, "/", &model, 0, &links, &mut seen);
            assert_eq!(free - fs.statfs().expect("numbers").ffree, links.len() as u64 - 1, "inodes");
        }
    }
}
