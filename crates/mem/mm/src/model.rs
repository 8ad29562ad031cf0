//! Random operations against an array of pages: tree, host and array must agree after each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::mm::{MapFlags, Prot};
use abi::{Errno, PAGE_SIZE};
use guestmem::UserAddr;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use crate::fake::{FakeFile, FakeSpace, HostPage, manager};
use crate::{MapArgs, MapFile, MemoryManager, Source};

/// First byte of the window the operations work in.
const BASE: u64 = 0x10_0000_0000;
/// Pages in it.
const PAGES: u64 = 24;

#[derive(Clone, Debug)]
enum Op {
    Map { at: u64, len: u64, prot: u32, file: Option<u64>, shared: bool },
    Unmap { at: u64, len: u64 },
    Protect { at: u64, len: u64, prot: u32 },
    Shrink { at: u64, len: u64, new: u64 },
    Move { at: u64, len: u64, to: u64, new: u64, keep: bool },
    DontFork { at: u64, len: u64, on: bool },
    Lock { at: u64, len: u64, on: bool },
}

fn op() -> impl Strategy<Value = Op> {
    let at = || 0..PAGES;
    let len = || 1..8u64;
    prop_oneof![
        4 => (at(), len(), 0..8u32, prop_oneof![Just(None), (0..64u64).prop_map(Some)], any::<bool>())
            .prop_map(|(at, len, prot, file, shared)| Op::Map { at, len, prot, file, shared }),
        2 => (at(), len()).prop_map(|(at, len)| Op::Unmap { at, len }),
        3 => (at(), len(), 0..8u32).prop_map(|(at, len, prot)| Op::Protect { at, len, prot }),
        1 => (at(), len(), len()).prop_map(|(at, len, new)| Op::Shrink { at, len, new }),
        2 => (at(), len(), at(), len(), any::<bool>())
            .prop_map(|(at, len, to, new, keep)| Op::Move { at, len, to, new, keep }),
        1 => (at(), len(), any::<bool>()).prop_map(|(at, len, on)| Op::DontFork { at, len, on }),
        1 => (at(), len(), any::<bool>()).prop_map(|(at, len, on)| Op::Lock { at, len, on }),
    ]
}

type Model = BTreeMap<u64, HostPage>;

fn addr(page: u64) -> UserAddr {
    UserAddr(BASE + page * PAGE_SIZE)
}

fn key(page: u64) -> u64 {
    BASE / PAGE_SIZE + page
}

struct World {
    mm: Arc<MemoryManager>,
    host: Arc<FakeSpace>,
    file: Arc<FakeFile>,
    model: Model,
}

impl World {
    fn new() -> Self {
        let (mm, host) = manager();
        Self { mm, host, file: FakeFile::new(), model: Model::new() }
    }

    fn clear(&mut self, at: u64, len: u64) {
        self.model.retain(|page, _| !(key(at)..key(at + len)).contains(page));
    }

    /// Mapped without a hole, up to where?
    fn run(&self, at: u64, len: u64) -> u64 {
        (at..at + len).take_while(|page| self.model.contains_key(&key(*page))).count() as u64
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Map { at, len, prot, file, shared } => self.map(at, len, prot, file, shared),
            Op::Unmap { at, len } => {
                self.mm.munmap(addr(at), len * PAGE_SIZE).expect("a range inside");
                self.clear(at, len);
            }
            Op::Protect { at, len, prot } => {
                let done = self.run(at, len);
                let result = self.mm.mprotect(addr(at), len * PAGE_SIZE, prot);
                assert_eq!(result, if done < len { Err(Errno::ENOMEM) } else { Ok(()) });
                for page in at..at + done {
                    if let Some(page) = self.model.get_mut(&key(page)) {
                        page.prot = Prot::from_bits_truncate(prot);
                    }
                }
            }
            Op::Shrink { at, len, new } => {
                let (old, new) = (len.max(new), len.min(new));
                let mapped = self.model.contains_key(&key(at));
                let done = self.mm.mremap(addr(at), old * PAGE_SIZE, new * PAGE_SIZE, 0, addr(0));
                assert_eq!(done, if mapped { Ok(addr(at)) } else { Err(Errno::EFAULT) });
                if mapped {
                    self.clear(at + new, old - new);
                }
            }
            Op::Move { at, len, to, new, keep } => self.relocate(at, len, to, new, keep),
            Op::DontFork { at, len, on } => {
                let advice = if on { 10 } else { 11 };
                let whole = self.run(at, len) == len;
                let done = self.mm.madvise(addr(at), len * PAGE_SIZE, advice);
                assert_eq!(done, if whole { Ok(()) } else { Err(Errno::ENOMEM) });
            }
            Op::Lock { at, len, on } => {
                let whole = self.run(at, len) == len;
                let done = match on {
                    true => self.mm.mlock(addr(at), len * PAGE_SIZE, 0),
                    false => self.mm.munlock(addr(at), len * PAGE_SIZE),
                };
                assert_eq!(done, if whole { Ok(()) } else { Err(Errno::ENOMEM) });
            }
        }
    }

    fn map(&mut self, at: u64, len: u64, prot: u32, file: Option<u64>, shared: bool) {
        let prot = Prot::from_bits_truncate(prot);
        let mut flags = MapFlags::FIXED;
        flags |= if shared && file.is_some() { MapFlags::SHARED } else { MapFlags::PRIVATE };
        let open = file.map(|_| MapFile { file: Some(self.file.clone()), access: Prot::all() });
        if file.is_none() {
            flags |= MapFlags::ANONYMOUS;
        }
        let offset = file.unwrap_or(0) * PAGE_SIZE;
        let args = MapArgs { addr: addr(at).0, len: len * PAGE_SIZE, prot, flags, offset, file: open };
        assert_eq!(self.mm.mmap(&args), Ok(addr(at)));
        for index in 0..len {
            let page = file.map(|first| first + index);
            let shared = shared && file.is_some();
            self.model.insert(key(at + index), HostPage { prot, shared, page });
        }
    }

    /// `MREMAP_FIXED`. What is one mapping is asked of the manager; where the pages end up is not.
    fn relocate(&mut self, at: u64, len: u64, to: u64, new: u64, keep: bool) {
        let new = if keep { len } else { new };
        let flags = if keep { 7 } else { 3 };
        let done = self.mm.mremap(addr(at), len * PAGE_SIZE, new * PAGE_SIZE, flags, addr(to));
        let overlap = at + len > to && to + new > at;
        if !self.model.contains_key(&key(at)) {
            assert_eq!(done, Err(Errno::EFAULT));
            return;
        }
        if overlap {
            assert_eq!(done, Err(Errno::EINVAL));
            return;
        }
        // As on Linux, target and surplus are gone even when the move then fails.
        self.clear(to, new);
        if len > new {
            self.clear(at + new, len - new);
        }
        if done.is_err() {
            assert_eq!(done, Err(Errno::EFAULT));
            return;
        }
        let kept = len.min(new);
        let old: Vec<HostPage> = (at..at + kept).filter_map(|p| self.model.get(&key(p)).copied()).collect();
        assert_eq!(old.len() as u64, kept, "moved what was not mapped");
        if !keep {
            self.clear(at, kept);
        }
        for index in 0..new {
            let first = old[0];
            let grown = HostPage { page: first.page.map(|page| page + index), ..first };
            self.model.insert(key(to + index), old.get(index as usize).copied().unwrap_or(grown));
        }
    }

    fn check(&self) {
        assert_eq!(*self.host.pages.lock(), self.model, "host and model");
        let mut tree = Model::new();
        let mut end = 0;
        let vmas = self.mm.vmas();
        for vma in &vmas {
            assert!(vma.start >= end && vma.start < vma.end, "order");
            end = vma.end;
            for at in vma.start / PAGE_SIZE..vma.end / PAGE_SIZE {
                let page = match &vma.source {
                    Source::File { offset, .. } => Some(offset / PAGE_SIZE + at - vma.start / PAGE_SIZE),
                    _ => None,
                };
                tree.insert(at, HostPage { prot: vma.prot, shared: vma.is_shared(), page });
            }
        }
        assert_eq!(tree, self.model, "tree and model");
        assert!(vmas.windows(2).all(|pair| !pair[0].joins(&pair[1])), "unmerged neighbours");
        assert_eq!(self.mm.sizes().total, self.model.len() as u64 * PAGE_SIZE);
        let of_file = self.model.values().filter(|page| page.page.is_some()).count() as i64;
        assert_eq!(self.file.mapped_pages.load(Ordering::SeqCst), of_file, "announcements");
    }
}

proptest! {
    #[test]
    fn tree_host_and_model_agree(ops in proptest::collection::vec(op(), 1..60)) {
        let mut world = World::new();
        for op in ops {
            world.step(op);
            world.check();
        }
        let file = world.file.clone();
        drop(world);
        assert_eq!(file.mapped_pages.load(Ordering::SeqCst), 0);
    }
}
