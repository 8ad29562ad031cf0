//! Tests over a small tree.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::Errno;
use abi::fs::OpenFlags;
use abi::time::Timespec;
use cred::Credentials;
use guestmem::{SliceSource, VecSink};
use vfs::{DirEntry, DirSink, FileContext, FileSystem, Result, SetAttr};

use crate::{FsInfo, KernFs, Spec, StaticDir, Text};

struct Counter(AtomicU32);

impl Text for Counter {
    fn read(&self, _cx: &FileContext<'_>) -> Result<Vec<u8>> {
        Ok(format!("{}\n", self.0.fetch_add(1, Ordering::SeqCst)).into_bytes())
    }

    fn write(&self, _cx: &FileContext<'_>, _offset: u64, bytes: &[u8]) -> Result<()> {
        let text = std::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
        let value = text.trim().parse().map_err(|_| Errno::EINVAL)?;
        self.0.store(value, Ordering::SeqCst);
        Ok(())
    }
}

fn tree() -> Arc<KernFs> {
    let root = StaticDir::new()
        .constant("fixed", "hello\n")
        .with("count", Spec::text(0o644, Counter(AtomicU32::new(10))))
        .with("link", Spec::symlink("fixed"))
        .dir("sub", StaticDir::new().constant("x", "1\n"))
        .spec();
    let info = FsInfo { type_name: "test", magic: 1, dev: 9, now: Timespec::default(), stable: true };
    KernFs::new(info, root)
}

fn with_cx<T>(f: impl FnOnce(&FileContext<'_>) -> T) -> T {
    let cred = Credentials::root();
    f(&FileContext { cred: &cred, pid: 1, tid: 1 })
}

#[test]
fn a_text_is_made_at_offset_zero_and_kept_for_the_rest() -> Result<()> {
    with_cx(|cx| {
        let file = tree().root().lookup(b"count")?.open(cx, OpenFlags::RDWR)?;
        let read = |offset, len| {
            let mut sink = VecSink::new(len);
            file.read(cx, offset, &mut sink).map(|_| sink.bytes)
        };
        assert_eq!(read(0, 1)?, b"1");
        assert_eq!(read(1, 9)?, b"0\n");
        assert_eq!(read(3, 9)?, b"");
        assert_eq!(read(0, 9)?, b"11\n");
        assert_eq!(file.write(cx, 0, &mut SliceSource(b"77\n"))?, 3);
        assert_eq!(read(0, 9)?, b"77\n");
        assert_eq!(file.write(cx, 0, &mut SliceSource(b"no")), Err(Errno::EINVAL));
        Ok(())
    })
}

#[derive(Default)]
struct Names(Vec<(Vec<u8>, u64, u64)>, usize);

impl DirSink for Names {
    fn entry(&mut self, entry: DirEntry<'_>) -> bool {
        if self.0.len() == self.1 {
            return false;
        }
        self.0.push((entry.name.to_vec(), entry.ino, entry.next));
        true
    }
}

#[test]
fn a_listing_goes_on_where_it_stopped_and_its_numbers_are_the_inodes() -> Result<()> {
    with_cx(|cx| {
        let root = tree().root();
        let dir = root.open(cx, OpenFlags::DIRECTORY)?;
        let mut first = Names(Vec::new(), 3);
        let at = dir.read_dir(cx, 0, &mut first)?;
        let mut second = Names(Vec::new(), 9);
        dir.read_dir(cx, at, &mut second)?;
        let all: Vec<_> = first.0.into_iter().chain(second.0).collect();
        let names: Vec<&[u8]> = all.iter().map(|(name, ..)| name.as_slice()).collect();
        assert_eq!(names, [b"fixed".as_slice(), b"count", b"link", b"sub"]);
        for (name, ino, _) in &all {
            assert_eq!(root.lookup(name)?.attr()?.ino, *ino);
        }
        Ok(())
    })
}

#[test]
fn what_is_fixed_refuses_changes() -> Result<()> {
    let root = tree().root();
    let chown = SetAttr { uid: Some(1), ..SetAttr::default() };
    assert_eq!(root.lookup(b"fixed")?.set_attr(&chown), Err(Errno::EPERM));
    assert_eq!(root.lookup(b"nothing").err(), Some(Errno::ENOENT));
    assert_eq!(root.lookup(b"fixed")?.lookup(b"x").err(), Some(Errno::ENOTDIR));
    assert_eq!(root.lookup(b"link")?.readlink()?, b"fixed");
    Ok(())
}
