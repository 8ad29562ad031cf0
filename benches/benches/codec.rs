//! The Gofer's messages: a lookup's way there and back, without the socket.

use std::hint::black_box;

use abi::fs::{FileType, Stat};
use criterion::{Criterion, criterion_group, criterion_main};
use gofer_proto::{Attributes, Name, NodeAttr, NodeId, Request, Response};

fn codec(c: &mut Criterion) {
    let name = Name::new(b"libc.so.6").expect("a name");
    let walk = Request::WalkStat { dir: NodeId(1), names: vec![name; 3] };
    let stat = Stat { mode: FileType::Regular.bits() | 0o644, size: 1, ..Stat::default() };
    let attr = Attributes::new(stat).expect("good attributes");
    let found = Response::Walk { nodes: vec![NodeAttr { node: NodeId(2), attr }; 3], stop: None };
    let (mut request, mut response) = (Vec::new(), Vec::new());
    walk.encode(1, &mut request).expect("it fits");
    found.encode(1, &mut response).expect("it fits");
    let mut out = Vec::new();
    c.bench_function("encode a walk of three names", |b| b.iter(|| black_box(&walk).encode(1, &mut out)));
    c.bench_function("decode a walk of three names", |b| {
        b.iter(|| Request::decode(black_box(&request)).is_ok())
    });
    c.bench_function("encode its answer", |b| b.iter(|| black_box(&found).encode(1, &mut out)));
    c.bench_function("decode its answer", |b| b.iter(|| Response::decode(black_box(&response)).is_ok()));
}

criterion_group!(benches, codec);
criterion_main!(benches);
