//! Attributes read: `stat(2)`, `statx(2)`, `statfs(2)`, `access(2)`.

use abi::fs::{AT_FDCWD, AtFlags, FileType, Stat, StatFs, dev_major, dev_minor};
use abi::time::Timespec;
use abi::{Errno, SysResult};
use guestmem::{MemExt, UserCStr, UserPtr};
use vfs::{Access, Attr, MountFlags, VfsPath};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::args::Fd;
use crate::at::{At, at_flags, walk_flags};
use crate::cx::Cx;

/// `struct statx_timestamp`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct StatxTime {
    sec: i64,
    nsec: u32,
    pad: i32,
}

impl From<Timespec> for StatxTime {
    fn from(time: Timespec) -> Self {
        Self { sec: time.sec, nsec: time.nsec as u32, pad: 0 }
    }
}

/// `struct statx`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Statx {
    mask: u32,
    blksize: u32,
    attributes: u64,
    nlink: u32,
    uid: u32,
    gid: u32,
    mode: u16,
    pad0: u16,
    ino: u64,
    size: u64,
    blocks: u64,
    attributes_mask: u64,
    atime: StatxTime,
    btime: StatxTime,
    ctime: StatxTime,
    mtime: StatxTime,
    rdev_major: u32,
    rdev_minor: u32,
    dev_major: u32,
    dev_minor: u32,
    mount: u64,
    direct_io: [u32; 2],
    spare: [u64; 12],
}

/// `STATX_BASIC_STATS`.
const BASIC: u32 = 0x7ff;
/// `STATX_BTIME`.
const BTIME: u32 = 0x800;
/// `STATX_MNT_ID`.
const MOUNT_ID: u32 = 0x1000;
/// `STATX__RESERVED`.
const RESERVED: u32 = 0x8000_0000;
/// `STATX_ATTR_MOUNT_ROOT`.
const MOUNT_ROOT: u64 = 0x2000;

/// Flags of the `stat` family.
const STAT_FLAGS: AtFlags = AtFlags::SYMLINK_NOFOLLOW
    .union(AtFlags::NO_AUTOMOUNT)
    .union(AtFlags::EMPTY_PATH)
    .union(AtFlags::STATX_FORCE_SYNC)
    .union(AtFlags::STATX_DONT_SYNC);

fn mode(attr: &Attr) -> u32 {
    attr.kind.bits() | u32::from(attr.perm.bits())
}

fn stat_of(path: &VfsPath, attr: &Attr) -> Stat {
    Stat {
        dev: path.inode().fs().dev(),
        ino: attr.ino,
        nlink: u64::from(attr.nlink),
        mode: mode(attr),
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        size: i64::try_from(attr.size).unwrap_or(i64::MAX),
        blksize: i64::from(attr.blksize),
        blocks: i64::try_from(attr.blocks).unwrap_or(i64::MAX),
        atime: attr.atime,
        mtime: attr.mtime,
        ctime: attr.ctime,
        ..Stat::default()
    }
}

/// What a `stat` call is about: a path, or with an empty one a descriptor of any kind.
fn target(cx: &Cx<'_>, dirfd: Fd, path: UserCStr, flags: AtFlags) -> SysResult<VfsPath> {
    At::new(cx, dirfd, path)?.lookup(walk_flags(flags))
}

fn put(cx: &Cx<'_>, path: &VfsPath, out: UserPtr<Stat>) -> SysResult<()> {
    let attr = path.inode().attr()?;
    Ok(cx.mm().store(out, &stat_of(path, &attr))?)
}

/// `stat(2)`.
pub(crate) fn stat(cx: &mut Cx<'_>, path: UserCStr, out: UserPtr<Stat>) -> SysResult<()> {
    newfstatat(cx, Fd(AT_FDCWD), path, out, 0)
}

/// `lstat(2)`.
pub(crate) fn lstat(cx: &mut Cx<'_>, path: UserCStr, out: UserPtr<Stat>) -> SysResult<()> {
    newfstatat(cx, Fd(AT_FDCWD), path, out, AtFlags::SYMLINK_NOFOLLOW.bits())
}

/// `fstat(2)`.
pub(crate) fn fstat(cx: &mut Cx<'_>, fd: Fd, out: UserPtr<Stat>) -> SysResult<()> {
    let file = cx.file(fd)?;
    put(cx, file.path(), out)
}

/// `newfstatat(2)`, the `fstatat` of 64-bit machines.
pub(crate) fn newfstatat(
    cx: &mut Cx<'_>,
    dirfd: Fd,
    path: UserCStr,
    out: UserPtr<Stat>,
    flags: u32,
) -> SysResult<()> {
    let flags = at_flags(flags, STAT_FLAGS)?;
    let path = target(cx, dirfd, path, flags)?;
    put(cx, &path, out)
}

/// `statx(2)`: fills everything it knows, asked for or not.
pub(crate) fn statx(
    cx: &mut Cx<'_>,
    dirfd: Fd,
    path: UserCStr,
    flags: u32,
    mask: u32,
    out: UserPtr<Statx>,
) -> SysResult<()> {
    let sync = AtFlags::STATX_FORCE_SYNC | AtFlags::STATX_DONT_SYNC;
    let flags = AtFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    if mask & RESERVED != 0 || flags.contains(sync) || !STAT_FLAGS.contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    let path = target(cx, dirfd, path, flags)?;
    let attr = path.inode().attr()?;
    let dev = path.inode().fs().dev();
    let known = BASIC | MOUNT_ID | if attr.btime.is_some() { BTIME } else { 0 };
    let all = Statx {
        mask: known,
        blksize: attr.blksize,
        attributes: if path.is_mount_root() { MOUNT_ROOT } else { 0 },
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        mode: mode(&attr) as u16,
        ino: attr.ino,
        size: attr.size,
        blocks: attr.blocks,
        attributes_mask: MOUNT_ROOT,
        atime: attr.atime.into(),
        btime: attr.btime.unwrap_or_default().into(),
        ctime: attr.ctime.into(),
        mtime: attr.mtime.into(),
        rdev_major: dev_major(attr.rdev),
        rdev_minor: dev_minor(attr.rdev),
        dev_major: dev_major(dev),
        dev_minor: dev_minor(dev),
        mount: path.mount.id(),
        ..Statx::default()
    };
    Ok(cx.mm().store(out, &all)?)
}

/// `access(2)`.
pub(crate) fn access(cx: &mut Cx<'_>, path: UserCStr, want: u32) -> SysResult<()> {
    faccessat2(cx, Fd(AT_FDCWD), path, want, 0)
}

/// `faccessat(2)`, which has no flags.
pub(crate) fn faccessat(cx: &mut Cx<'_>, dirfd: Fd, path: UserCStr, want: u32) -> SysResult<()> {
    faccessat2(cx, dirfd, path, want, 0)
}

/// `faccessat2(2)`: with the real ids unless told otherwise.
pub(crate) fn faccessat2(cx: &mut Cx<'_>, dirfd: Fd, path: UserCStr, want: u32, flags: u32) -> SysResult<()> {
    let want = u16::try_from(want).ok().and_then(Access::from_bits).ok_or(Errno::EINVAL)?;
    let allowed = AtFlags::EACCESS | AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    let flags = at_flags(flags, allowed)?;
    let mut at = At::new(cx, dirfd, path)?;
    if !flags.contains(AtFlags::EACCESS) {
        at = at.with_real_ids();
    }
    let path = at.lookup(walk_flags(flags))?;
    if want.is_empty() { Ok(()) } else { Ok(at.caller().access(&path, want)?) }
}

/// `statfs(2)`.
pub(crate) fn statfs(cx: &mut Cx<'_>, path: UserCStr, out: UserPtr<StatFs>) -> SysResult<()> {
    let path = At::cwd(cx, path)?.lookup(vfs::WalkFlags::FOLLOW)?;
    put_statfs(cx, &path, out)
}

/// `fstatfs(2)`.
pub(crate) fn fstatfs(cx: &mut Cx<'_>, fd: Fd, out: UserPtr<StatFs>) -> SysResult<()> {
    let file = cx.file(fd)?;
    put_statfs(cx, file.path(), out)
}

fn put_statfs(cx: &Cx<'_>, path: &VfsPath, out: UserPtr<StatFs>) -> SysResult<()> {
    /// `ST_VALID`: the flags are filled in.
    const VALID: i64 = 0x20;
    let fs = path.inode().fs();
    let mut stat = fs.statfs()?;
    let flags = path.mount.flags();
    stat.flags |= VALID;
    // ST_RDONLY, NOSUID, NODEV and NOEXEC have the values of the mount flags.
    for flag in
        [MountFlags::RDONLY, MountFlags::NOSUID, MountFlags::NODEV, MountFlags::NOEXEC, MountFlags::NOATIME]
    {
        if flags.contains(flag) {
            stat.flags |= i64::from(flag.bits());
        }
    }
    if stat.fsid == [0; 2] {
        stat.fsid = [fs.dev() as i32, (fs.dev() >> 32) as i32];
    }
    Ok(cx.mm().store(out, &stat)?)
}

/// A type as `mknod(2)` gives it; no type means a regular file.
pub(crate) fn kind_of_mode(mode: u32) -> Result<FileType, Errno> {
    match mode & FileType::MASK {
        0 => Ok(FileType::Regular),
        _ => FileType::from_mode(mode).ok_or(Errno::EINVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::Statx;

    #[test]
    fn the_layout_is_the_kernels() {
        assert_eq!(size_of::<Statx>(), 256);
    }
}
