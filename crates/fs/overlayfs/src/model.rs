//! Random operations against a naive tree: what the union shows must be what the tree is, also when it is
//! mounted anew.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use abi::Errno;
use abi::fs::{FileType, OpenFlags};
use guestmem::SliceSource;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use vfs::RenameFlags;

use crate::tests::{Trees, World};

#[derive(Clone, Debug, PartialEq)]
enum Model {
    /// With `below`: it exists below, and cannot be moved.
    Dir { below: bool, children: BTreeMap<String, Model> },
    /// Shared by hard links.
    File(Rc<RefCell<Vec<u8>>>),
    /// Shared likewise.
    Link(Rc<str>),
}

type Path = Vec<&'static str>;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Clone, Debug)]
enum Op {
    Write(Path, u8),
    Truncate(Path, u8),
    Mkdir(Path),
    Symlink(Path),
    Link(Path, Path),
    Unlink(Path),
    Rmdir(Path),
    Chmod(Path),
    Rename(Path, Path),
    Exchange(Path, Path),
    Remount,
}

fn path() -> impl Strategy<Value = Path> {
    proptest::collection::vec(proptest::sample::select(&NAMES[..]), 1..4)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (path(), any::<u8>()).prop_map(|(path, byte)| Op::Write(path, byte)),
        1 => (path(), 0..20u8).prop_map(|(path, size)| Op::Truncate(path, size)),
        3 => path().prop_map(Op::Mkdir),
        1 => path().prop_map(Op::Symlink),
        2 => (path(), path()).prop_map(|(old, new)| Op::Link(old, new)),
        4 => path().prop_map(Op::Unlink),
        3 => path().prop_map(Op::Rmdir),
        1 => path().prop_map(Op::Chmod),
        5 => (path(), path()).prop_map(|(old, new)| Op::Rename(old, new)),
        2 => (path(), path()).prop_map(|(old, new)| Op::Exchange(old, new)),
        1 => Just(Op::Remount),
    ]
}

/// What a lower tree begins with.
#[derive(Clone, Debug)]
enum Seed {
    Dir(Path),
    File(Path, u8),
    Whiteout(Path),
}

fn seeds() -> impl Strategy<Value = Vec<Seed>> {
    let seed = prop_oneof![
        3 => path().prop_map(Seed::Dir),
        2 => (path(), any::<u8>()).prop_map(|(path, byte)| Seed::File(path, byte)),
        1 => path().prop_map(Seed::Whiteout),
    ];
    proptest::collection::vec(seed, 0..14)
}

fn text(path: &[&str]) -> String {
    format!("/{}", path.join("/"))
}

/// Fills a lower tree; what does not fit is left out.
fn plant(w: &World, seeds: &[Seed]) {
    for seed in seeds {
        let _ = match seed {
            Seed::Dir(path) => w.root().mkdir(text(path).as_bytes(), 0o755).map(drop),
            Seed::File(path, byte) => {
                let made = w.open(&text(path), OpenFlags::WRONLY | OpenFlags::CREAT | OpenFlags::EXCL);
                made.and_then(|file| file.write(&w.cx(), &mut SliceSource(&[*byte; 10]))).map(drop)
            }
            Seed::Whiteout(path) => {
                w.root().mknod(text(path).as_bytes(), FileType::CharDevice, 0, 0).map(drop)
            }
        };
    }
}

/// What a tree shows.
fn show(w: &World, path: &str) -> Model {
    let attr = w.attr(path);
    match attr.kind {
        FileType::Directory => {
            let prefix = if path == "/" { "" } else { path };
            let children = w.list(path, 2).into_iter();
            let children = children.map(|(.., name)| (name.clone(), show(w, &format!("{prefix}/{name}"))));
            Model::Dir { below: false, children: children.collect() }
        }
        FileType::Symlink => {
            let target = w.root().readlink(path.as_bytes()).expect(path);
            Model::Link(String::from_utf8_lossy(&target).into())
        }
        FileType::CharDevice => Model::Link("whiteout".into()),
        _ => Model::File(Rc::new(RefCell::new(w.get(path).expect(path)))),
    }
}

fn is_whiteout(model: &Model) -> bool {
    *model == Model::Link("whiteout".into())
}

/// Merges a tree over a lower one; neither of which is written by us.
fn merge(over: Model, under: Model) -> Model {
    match (over, under) {
        (Model::Dir { children: mut top, .. }, Model::Dir { children, .. }) => {
            for (name, child) in children {
                let merged = match top.remove(&name) {
                    Some(over) => merge(over, child),
                    None => child,
                };
                top.insert(name, merged);
            }
            Model::Dir { below: true, children: top }
        }
        (over, _) => over,
    }
}

/// Marks all directories as being below, and takes whiteouts out.
fn settle(model: &mut Model) {
    if let Model::Dir { below, children } = model {
        *below = true;
        children.retain(|_, child| !is_whiteout(child));
        children.values_mut().for_each(settle);
    }
}

impl Model {
    fn is_dir(&self) -> bool {
        matches!(self, Self::Dir { .. })
    }

    fn children(&mut self) -> Result<&mut BTreeMap<String, Model>, Errno> {
        match self {
            Self::Dir { children, .. } => Ok(children),
            // Links of the model lead nowhere.
            Self::Link(_) => Err(Errno::ENOENT),
            Self::File(_) => Err(Errno::ENOTDIR),
        }
    }

    fn parent(&mut self, path: &[&str]) -> Result<&mut BTreeMap<String, Model>, Errno> {
        let mut at = self;
        for name in path.iter().take(path.len() - 1) {
            at = at.children()?.get_mut(*name).ok_or(Errno::ENOENT)?;
        }
        at.children()
    }

    fn get(&mut self, path: &[&str]) -> Result<&mut Model, Errno> {
        self.parent(path)?.get_mut(path[path.len() - 1]).ok_or(Errno::ENOENT)
    }

    fn vacant(&mut self, path: &[&str]) -> Result<(), Errno> {
        let taken = self.parent(path)?.contains_key(path[path.len() - 1]);
        if taken { Err(Errno::EEXIST) } else { Ok(()) }
    }

    fn enter(&mut self, path: &[&str], what: Model) -> Result<(), Errno> {
        self.parent(path)?.insert(path[path.len() - 1].to_owned(), what);
        Ok(())
    }

    fn take(&mut self, path: &[&str]) -> Result<Model, Errno> {
        self.parent(path)?.remove(path[path.len() - 1]).ok_or(Errno::ENOENT)
    }

    fn step(&mut self, op: &Op) -> Result<(), Errno> {
        match op {
            Op::Write(path, byte) => match self.get(path) {
                Ok(Model::File(bytes)) => {
                    let mut bytes = bytes.borrow_mut();
                    let len = bytes.len().max(3);
                    bytes.resize(len, 0);
                    bytes[..3].fill(*byte);
                    Ok(())
                }
                Ok(Model::Dir { .. }) => Err(Errno::EISDIR),
                Ok(Model::Link(_)) => Err(Errno::ELOOP),
                Err(Errno::ENOENT) => {
                    let file = Model::File(Rc::new(RefCell::new(vec![*byte; 3])));
                    self.enter(path, file)
                }
                Err(error) => Err(error),
            },
            Op::Truncate(path, size) => match self.get(path)? {
                Model::File(bytes) => {
                    bytes.borrow_mut().resize(usize::from(*size), 0);
                    Ok(())
                }
                Model::Dir { .. } => Err(Errno::EISDIR),
                Model::Link(_) => Err(Errno::EINVAL),
            },
            Op::Mkdir(path) => {
                self.vacant(path)?;
                self.enter(path, Model::Dir { below: false, children: BTreeMap::new() })
            }
            Op::Symlink(path) => {
                self.vacant(path)?;
                self.enter(path, Model::Link("nowhere".into()))
            }
            Op::Link(old, new) => {
                let what = self.get(old)?.clone();
                self.vacant(new)?;
                if what.is_dir() {
                    return Err(Errno::EPERM);
                }
                self.enter(new, what)
            }
            Op::Unlink(path) => {
                if self.get(path)?.is_dir() {
                    return Err(Errno::EISDIR);
                }
                self.take(path).map(drop)
            }
            Op::Rmdir(path) => {
                let victim = self.get(path)?;
                if !victim.is_dir() {
                    return Err(Errno::ENOTDIR);
                }
                if !victim.children()?.is_empty() {
                    return Err(Errno::ENOTEMPTY);
                }
                self.take(path).map(drop)
            }
            Op::Chmod(path) => match self.get(path)? {
                Model::Link(_) => Err(Errno::EOPNOTSUPP),
                _ => Ok(()),
            },
            Op::Rename(old, new) => self.rename(old, new),
            Op::Exchange(old, new) => self.exchange(old, new),
            Op::Remount => Ok(()),
        }
    }

    fn rename(&mut self, old: &[&str], new: &[&str]) -> Result<(), Errno> {
        self.parent(old)?;
        self.parent(new)?;
        let victim = self.get(old)?.clone();
        if new.starts_with(old) && new != old {
            return Err(Errno::EINVAL);
        }
        if old.starts_with(new) && new != old {
            return Err(Errno::ENOTEMPTY);
        }
        if let Ok(target) = self.get(new) {
            match (victim.is_dir(), target.is_dir()) {
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                _ => {}
            }
            if new == old || same(&victim, target) {
                return Ok(());
            }
            if matches!(victim, Model::Dir { below: true, .. }) {
                return Err(Errno::EXDEV);
            }
            if target.is_dir() && !target.children()?.is_empty() {
                return Err(Errno::ENOTEMPTY);
            }
        }
        if matches!(victim, Model::Dir { below: true, .. }) {
            return Err(Errno::EXDEV);
        }
        self.take(old)?;
        self.enter(new, victim)
    }

    fn exchange(&mut self, old: &[&str], new: &[&str]) -> Result<(), Errno> {
        self.parent(old)?;
        self.parent(new)?;
        let one = self.get(old)?.clone();
        let two = self.get(new)?.clone();
        if old != new && (new.starts_with(old) || old.starts_with(new)) {
            return Err(Errno::EINVAL);
        }
        if old == new || same(&one, &two) {
            return Ok(());
        }
        if [&one, &two].iter().any(|side| matches!(side, Model::Dir { below: true, .. })) {
            return Err(Errno::EXDEV);
        }
        self.enter(old, two)?;
        self.enter(new, one)
    }
}

/// Two names of one file?
fn same(one: &Model, two: &Model) -> bool {
    match (one, two) {
        (Model::File(one), Model::File(two)) => Rc::ptr_eq(one, two),
        (Model::Link(one), Model::Link(two)) => Rc::ptr_eq(one, two),
        _ => false,
    }
}

fn carry_out(w: &World, op: &Op) -> Result<(), Errno> {
    let r = w.root();
    match op {
        Op::Write(path, byte) => {
            let flags = OpenFlags::WRONLY | OpenFlags::CREAT | OpenFlags::NOFOLLOW;
            let file = w.open(&text(path), flags)?;
            file.write(&w.cx(), &mut SliceSource(&[*byte; 3])).map(drop)
        }
        Op::Truncate(path, size) => r.truncate(&w.at(&text(path))?, u64::from(*size)),
        Op::Mkdir(path) => r.mkdir(text(path).as_bytes(), 0o755).map(drop),
        Op::Symlink(path) => r.symlink(b"nowhere", text(path).as_bytes()).map(drop),
        Op::Link(old, new) => r.link(&w.at(&text(old))?, text(new).as_bytes()),
        Op::Unlink(path) => r.unlink(text(path).as_bytes()),
        Op::Rmdir(path) => r.rmdir(text(path).as_bytes()),
        Op::Chmod(path) => r.chmod(&w.at(&text(path))?, 0o700),
        Op::Rename(old, new) => w.mv(&text(old), &text(new), RenameFlags::empty()),
        Op::Exchange(old, new) => w.mv(&text(old), &text(new), RenameFlags::EXCHANGE),
        Op::Remount => Ok(()),
    }
}

/// The model without what cannot be seen.
fn seen(model: &Model) -> Model {
    match model {
        Model::Dir { children, .. } => {
            let children = children.iter().map(|(name, child)| (name.clone(), seen(child))).collect();
            Model::Dir { below: false, children }
        }
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn the_union_is_the_tree(
        top in seeds(),
        bottom in seeds(),
        ops in proptest::collection::vec(op(), 1..40),
    ) {
        let trees = Trees::new(&[&|w| plant(w, &top), &|w| plant(w, &bottom)]);
        let lower = |index: usize| show(&World::new(std::sync::Arc::clone(&trees.lowers[index]) as _), "/");
        let mut model = merge(lower(0), lower(1));
        settle(&mut model);
        let mut world = trees.mount();
        assert_eq!(show(&world, "/"), seen(&model), "before");
        for op in &ops {
            if matches!(op, Op::Remount) {
                world = trees.mount();
            }
            assert_eq!(carry_out(&world, op), model.step(op), "{op:?}");
            assert_eq!(show(&world, "/"), seen(&model), "{op:?}");
        }
        assert_eq!(show(&trees.mount(), "/"), seen(&model), "mounted anew");
    }
}
