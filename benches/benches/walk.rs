//! Path walk and open, in a tmpfs whose names are known.

use std::hint::black_box;
use std::sync::Arc;

use abi::fs::OpenFlags;
use cred::Credentials;
use criterion::{Criterion, criterion_group, criterion_main};
use tmpfs::{HeapMemory, Options, TmpFs};
use vfs::{Caller, FileContext, FsContext, Mount, MountFlags, MountNamespace, NoDevices, WalkFlags};

const DIRECTORIES: [&[u8]; 3] = [b"/usr", b"/usr/share", b"/usr/share/doc"];
const FILE: &[u8] = b"/usr/share/doc/copyright";

fn walk(c: &mut Criterion) {
    let fs = TmpFs::new(Options::new(1), Arc::new(HeapMemory));
    let namespace = MountNamespace::new(Mount::new(fs, "none", MountFlags::empty()));
    let (fs, root) = (FsContext::new(&namespace), Credentials::root());
    let user = Credentials::user(1000, 1000);
    let context = |cred| FileContext { cred, pid: 1, tid: 1 };
    let maker = Caller::new(&fs, context(&root));
    for path in DIRECTORIES {
        maker.mkdir(path, 0o755).expect("a new directory");
    }
    let create = OpenFlags::CREAT | OpenFlags::WRONLY;
    maker.open(FILE, create, 0o644, WalkFlags::empty(), &NoDevices).expect("a new file");
    maker.symlink(b"share/doc", b"/usr/doc").expect("a new link");
    let caller = Caller::new(&fs, context(&user));
    let found = |path: &[u8]| caller.lookup(black_box(path), WalkFlags::FOLLOW);
    c.bench_function("walk of four names", |b| b.iter(|| found(FILE).expect("it is there")));
    c.bench_function("walk over a link", |b| b.iter(|| found(b"/usr/doc/copyright").expect("it is there")));
    c.bench_function("walk to what is absent", |b| {
        b.iter(|| found(b"/usr/share/doc/none").expect_err("it is not there"))
    });
    c.bench_function("open and close", |b| {
        b.iter(|| caller.open(black_box(FILE), OpenFlags::empty(), 0, WalkFlags::empty(), &NoDevices))
    });
}

criterion_group!(benches, walk);
criterion_main!(benches);
