//! Round trips, and what must be refused.

use abi::Errno;
use abi::fs::{FileType, OpenFlags, Stat, StatFs};
use abi::time::Timespec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use crate::{
    Attributes, DirEntry, Header, MAX_CLOSE, MAX_MESSAGE, MAX_WALK, Name, NodeAttr, NodeId, Ownership,
    ProtoError, RemoveKind, RenameFlags, Request, Response, SetAttr, SetTime, XattrFlags,
};

fn name() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 1..=255).prop_filter_map("name", |mut bytes| {
        bytes.iter_mut().filter(|b| matches!(**b, 0 | b'/')).for_each(|b| *b = b'x');
        Name::new(&bytes).is_ok().then_some(bytes)
    })
}

fn attributes() -> impl Strategy<Value = Attributes> {
    (any::<u64>(), any::<u64>(), any::<u16>(), 0..=i64::MAX).prop_filter_map(
        "type",
        |(ino, dev, mode, size)| {
            Attributes::new(Stat { ino, dev, mode: mode.into(), size, ..Stat::default() }).ok()
        },
    )
}

fn node_attr() -> impl Strategy<Value = NodeAttr> {
    (1..u64::MAX, attributes()).prop_map(|(id, attr)| NodeAttr { node: NodeId(id), attr })
}

fn set_time() -> impl Strategy<Value = Option<SetTime>> {
    prop_oneof![
        Just(None),
        Just(Some(SetTime::Now)),
        (any::<i64>(), 0..1_000_000_000i64).prop_map(|(sec, nsec)| Some(SetTime::At(Timespec { sec, nsec }))),
    ]
}

fn changes() -> impl Strategy<Value = SetAttr> {
    (
        any::<Option<u32>>(),
        any::<Option<u32>>(),
        proptest::option::of(0..=0o7777u32),
        any::<Option<u64>>(),
        set_time(),
        set_time(),
    )
        .prop_map(|(uid, gid, mode, size, atime, mtime)| SetAttr { uid, gid, mode, size, atime, mtime })
}

fn response() -> impl Strategy<Value = Response> {
    let errno = || (1..4096i32).prop_filter_map("errno", Errno::from_raw);
    let entry = (any::<u64>(), any::<u64>(), any::<bool>(), name()).prop_map(|(ino, cookie, known, name)| {
        DirEntry { ino, cookie, file_type: known.then_some(FileType::Symlink), name }
    });
    prop_oneof![
        errno().prop_map(Response::Error),
        Just(Response::Done),
        node_attr().prop_map(Response::Node),
        attributes().prop_map(Response::Attr),
        (proptest::collection::vec(node_attr(), 0..=MAX_WALK), proptest::option::of(errno()))
            .prop_map(|(nodes, stop)| Response::Walk { nodes, stop }),
        proptest::collection::vec(proptest::option::of(node_attr()), 0..5).prop_map(Response::Found),
        Just(Response::Opened),
        proptest::collection::vec(any::<u8>(), 0..5000).prop_map(Response::Bytes),
        proptest::collection::vec(entry, 0..40).prop_map(Response::Entries),
        any::<u64>().prop_map(|bfree| Response::StatFs(StatFs { bfree, ..StatFs::default() })),
    ]
}

/// Encodes and decodes.
fn round_trip(request: Request<'_>) {
    let mut bytes = vec![1, 2, 3];
    request.encode(77, &mut bytes).expect("encodes");
    assert_eq!(Request::decode(&bytes), Ok((77, request.clone())));
    // Every truncation, and one byte more, is refused: by the size in the header, and without it by
    // the fields.
    for len in 0..bytes.len() {
        assert!(Request::decode(&bytes[..len]).is_err());
        let mut cut = bytes[..len].to_vec();
        fix_size(&mut cut);
        assert!(Request::decode(&cut).is_err(), "{request:?} cut to {len}");
    }
    bytes.push(0);
    fix_size(&mut bytes);
    assert_eq!(Request::decode(&bytes), Err(ProtoError::TrailingBytes));
}

fn fix_size(message: &mut [u8]) {
    let len = message.len() as u32;
    if let Some(size) = message.get_mut(..4) {
        size.copy_from_slice(&len.to_ne_bytes());
    }
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn requests_round_trip(
        a in 1..u64::MAX, b in 1..u64::MAX, n in name(), m in name(),
        names in proptest::collection::vec(name(), 0..5),
        changes in changes(), mode in 0..=0o7777u32, uid: u32, gid: u32, cookie: u64,
        value in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let (node, dir) = (NodeId(a), NodeId(b));
        let (name, other) = (Name::new(&n).expect("valid"), Name::new(&m).expect("valid"));
        let owner = Ownership { uid, gid };
        let flags = OpenFlags::RDWR | OpenFlags::TRUNC;
        let all = [
            Request::Mount { index: uid },
            Request::WalkStat { dir, names: names.iter().map(|n| Name::new(n).expect("valid")).collect() },
            Request::Stat { node },
            Request::SetStat { node, changes },
            Request::Open { node, flags },
            Request::Create { dir, name, flags, mode, owner },
            Request::Mkdir { dir, name, mode, owner },
            Request::Mknod { dir, name, file_type: FileType::Fifo, mode, owner },
            Request::Symlink { dir, name, target: other.as_bytes(), owner },
            Request::Link { node, dir, name },
            Request::Unlink { dir, name, kind: RemoveKind::Directory },
            Request::Rename { from_dir: dir, from: name, to_dir: node, to: other, flags: RenameFlags::EXCHANGE },
            Request::Readlink { node },
            Request::Readdir { node, cookie, max: gid },
            Request::StatFs { node },
            Request::GetXattr { node, name: name.as_bytes() },
            Request::SetXattr { node, name: name.as_bytes(), value: &value, flags: XattrFlags::CREATE },
            Request::ListXattr { node },
            Request::RemoveXattr { node, name: name.as_bytes() },
            Request::Fsync { node },
            Request::Close { nodes: vec![node, dir] },
            Request::SyncFs { node },
            Request::CreateUnnamed { dir, mode, owner },
            Request::LookupMany { dir, names: names.iter().map(|n| Name::new(n).expect("valid")).collect() },
        ];
        for (index, request) in all.into_iter().enumerate() {
            prop_assert_eq!(request.kind() as usize, index + 1);
            round_trip(request);
        }
    }

    #[test]
    fn responses_round_trip(response in response(), id: u64) {
        let mut bytes = Vec::new();
        response.encode(id, &mut bytes).expect("valid");
        prop_assert!(bytes.len() <= MAX_MESSAGE);
        prop_assert_eq!(Response::decode(&bytes), Ok((id, response)));
    }

    /// Random fields behind a good header reach every decoder, and what is accepted encodes to the
    /// same bytes: a message has one form.
    #[test]
    fn random_bytes_never_panic(
        kind in 0..25u16, fields in proptest::collection::vec(prop_oneof![Just(0u8), Just(1u8), any::<u8>()], 0..400),
    ) {
        let mut message = vec![0; size_of::<Header>()];
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message.extend(&fields);
        fix_size(&mut message);
        let mut again = Vec::new();
        if let Ok((id, request)) = Request::decode(&message) {
            prop_assert!(request.encode(id, &mut again).is_ok());
        }
        if let Ok((id, response)) = Response::decode(&message) {
            prop_assert!(response.encode(id, &mut again).is_ok());
            prop_assert_eq!(&again, &message);
        }
        let _ = Request::decode(&fields);
        let _ = Response::decode(&fields);
    }
}

#[test]
fn names_that_could_leave_a_directory_are_refused() {
    let long = [b'a'; 256];
    for bad in [&b""[..], b".", b"..", b"/", b"a/b", b"../x", b"a\0", &long] {
        assert_eq!(Name::new(bad), Err(ProtoError::BadName), "{}", bad.escape_ascii());
    }
    for good in [&b"a"[..], b"...", b".a", b"..a", b" ", b"\xff\xfe", &long[..255]] {
        assert!(Name::new(good).is_ok());
    }
}

#[test]
fn a_walk_with_a_bad_name_is_refused_whole() {
    let mut bytes = Vec::new();
    let names = vec![Name::new(b"ab").expect("valid"), Name::new(b"xy").expect("valid")];
    Request::WalkStat { dir: NodeId(1), names }.encode(1, &mut bytes).expect("valid");
    let end = bytes.len();
    bytes[end - 2..].copy_from_slice(b"..");
    assert_eq!(Request::decode(&bytes), Err(ProtoError::BadName));
}

#[test]
fn lists_are_bounded_on_both_sides() {
    let mut bytes = Vec::new();
    let nodes = vec![NodeId(1); MAX_CLOSE + 1];
    assert_eq!(Request::Close { nodes }.encode(1, &mut bytes), Err(ProtoError::TooLong("close")));
    let names = vec![Name::new(b"a").expect("valid"); MAX_WALK];
    Request::WalkStat { dir: NodeId(1), names }.encode(1, &mut bytes).expect("valid");
    bytes[24..28].copy_from_slice(&(MAX_WALK as u32 + 1).to_ne_bytes());
    assert_eq!(Request::decode(&bytes), Err(ProtoError::TooLong("walk")));
}

#[test]
fn creation_flags_and_path_handles_are_refused() {
    for flags in [
        OpenFlags::CREAT,
        OpenFlags::PATH,
        OpenFlags::TMPFILE_BIT | OpenFlags::DIRECTORY | OpenFlags::RDWR,
        OpenFlags::WRONLY | OpenFlags::RDWR,
    ] {
        let mut bytes = Vec::new();
        Request::Open { node: NodeId(1), flags }.encode(1, &mut bytes).expect("valid");
        assert_eq!(Request::decode(&bytes), Err(ProtoError::BadValue("open flags")));
    }
}

#[test]
fn device_nodes_cannot_be_asked_for() {
    let mut bytes = Vec::new();
    Request::Mknod {
        dir: NodeId(1),
        name: Name::new(b"sda").expect("valid"),
        file_type: FileType::BlockDevice,
        mode: 0o600,
        owner: Ownership { uid: 0, gid: 0 },
    }
    .encode(1, &mut bytes)
    .expect("valid");
    assert_eq!(Request::decode(&bytes), Err(ProtoError::BadValue("file type")));
}
