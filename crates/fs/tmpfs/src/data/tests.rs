//! Random operations on a file's bytes against an array of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use abi::{Errno, PAGE_SIZE};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use vfs::FileSystem;

use super::Data;
use crate::{HeapMemory, Options, TmpFs};

/// Pages there is room for.
const ROOM: u64 = 12;
/// Pages the operations reach to.
const REACH: u64 = 20;

#[derive(Clone, Debug)]
enum Op {
    Write { at: u64, len: u64, byte: u8 },
    Resize(u64),
    Punch { from: u64, len: u64 },
    Share,
}

/// An offset: often at a page's border.
fn place() -> impl Strategy<Value = u64> {
    (0..REACH, prop_oneof![Just(0), Just(1), Just(PAGE_SIZE - 1), 0..PAGE_SIZE])
        .prop_map(|(page, at)| page * PAGE_SIZE + at)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (place(), 0..4 * PAGE_SIZE, 1..=u8::MAX).prop_map(|(at, len, byte)| Op::Write { at, len, byte }),
        2 => place().prop_map(Op::Resize),
        3 => (place(), 0..6 * PAGE_SIZE).prop_map(|(from, len)| Op::Punch { from, len }),
        1 => Just(Op::Share),
    ]
}

#[derive(Default)]
struct Model {
    bytes: Vec<u8>,
    /// Pages that take room.
    pages: BTreeSet<u64>,
}

impl Model {
    fn write(&mut self, at: u64, len: u64, byte: u8) -> Result<usize, Errno> {
        let mut end = at;
        while end < at + len {
            let page = end / PAGE_SIZE;
            if !self.pages.contains(&page) {
                if self.pages.len() as u64 == ROOM {
                    break;
                }
                self.pages.insert(page);
            }
            end = (at + len).min((page + 1) * PAGE_SIZE);
        }
        if end == at && len > 0 {
            return Err(Errno::ENOSPC);
        }
        if len > 0 {
            self.bytes.resize(self.bytes.len().max(end as usize), 0);
            self.bytes[at as usize..end as usize].fill(byte);
        }
        Ok((end - at) as usize)
    }

    fn resize(&mut self, size: u64) {
        self.bytes.resize(size as usize, 0);
        self.pages.retain(|page| page * PAGE_SIZE < size);
    }

    fn punch(&mut self, from: u64, to: u64) {
        let to = to.min(self.bytes.len() as u64);
        if from < to {
            self.bytes[from as usize..to as usize].fill(0);
            self.pages.retain(|page| page * PAGE_SIZE < from || (page + 1) * PAGE_SIZE > to);
        }
    }
}

fn check(fs: &TmpFs, data: &Data, model: &Model) {
    assert_eq!(data.size(), model.bytes.len() as u64);
    let mut bytes = vec![9; model.bytes.len() + 10];
    assert_eq!(data.read(0, &mut bytes), Ok(model.bytes.len()));
    assert!(bytes[..model.bytes.len()] == model.bytes[..], "bytes");
    assert_eq!(data.pages(), model.pages.len() as u64);
    assert_eq!(fs.statfs().unwrap().bfree, ROOM - model.pages.len() as u64);
    let mut at = 0;
    while at < data.size() {
        let start = data.seek_data(at).unwrap_or(data.size());
        assert!(model.bytes[at as usize..start as usize].iter().all(|byte| *byte == 0), "a hole");
        if start < data.size() {
            assert!(model.pages.contains(&(start / PAGE_SIZE)));
            assert_eq!(data.seek_hole(at), Ok(if start == at { data.seek_hole(start).unwrap() } else { at }));
            at = data.seek_hole(start).unwrap();
        } else {
            at = start;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn bytes_and_room_are_the_models(ops in proptest::collection::vec(op(), 1..40), start in any::<bool>()) {
        let options = Options { size: ROOM * PAGE_SIZE, ..Options::new(1) };
        let fs = TmpFs::new(options, Arc::new(HeapMemory));
        let (mut data, mut model) = (Data::default(), Model::default());
        if start {
            data.share(&HeapMemory).unwrap();
        }
        for op in &ops {
            match *op {
                Op::Write { at, len, byte } => {
                    let written = data.write(&fs, at, &vec![byte; len as usize]);
                    assert_eq!(written, model.write(at, len, byte), "{op:?}");
                }
                Op::Resize(size) => {
                    data.resize(&fs, size).unwrap();
                    model.resize(size);
                }
                Op::Punch { from, len } => {
                    data.punch(&fs, from, from + len).unwrap();
                    model.punch(from, from + len);
                }
                Op::Share => drop(data.share(&HeapMemory).unwrap()),
            }
            check(&fs, &data, &model);
        }
    }
}

#[test]
fn a_big_file_leaves_the_heap_with_all_it_has() {
    let fs = TmpFs::new(Options::new(1), Arc::new(HeapMemory));
    let mut data = Data::default();
    let bytes: Vec<u8> = (0..super::HEAP_PAGES * PAGE_SIZE).map(|n| (n / 7) as u8).collect();
    assert_eq!(data.write(&fs, 10 * PAGE_SIZE, &bytes[..100_000]), Ok(100_000));
    assert!(matches!(data.store, super::Store::Heap(_)));
    assert_eq!(data.write(&fs, 100, &bytes), Ok(bytes.len()));
    assert!(matches!(data.store, super::Store::Shared(..)));
    let mut read = vec![1; bytes.len() + 200];
    assert_eq!(data.read(0, &mut read), Ok(bytes.len() + 100));
    assert!(read[..100] == [0; 100] && read[100..bytes.len() + 100] == bytes[..]);
}
