//! What is done to a file's data as a whole: `fsync(2)`, `ftruncate(2)`, `fallocate(2)`, advice.

use abi::fs::FileType;
use abi::limits::{INFINITY, Resource};
use abi::signal::Signal;
use abi::{Errno, SysResult};
use vfs::{Caller, OpenFile};

use crate::args::Fd;
use crate::cx::Cx;

/// `fsync(2)`.
pub(crate) fn fsync(cx: &mut Cx<'_>, fd: Fd) -> SysResult<()> {
    Ok(write_back(&*cx.io_file(fd)?, false)?)
}

/// `fdatasync(2)`.
pub(crate) fn fdatasync(cx: &mut Cx<'_>, fd: Fd) -> SysResult<()> {
    Ok(write_back(&*cx.io_file(fd)?, true)?)
}

fn write_back(file: &OpenFile, data_only: bool) -> vfs::Result<()> {
    match file.file().fsync(data_only) {
        // Few file systems do anything of their own for a directory.
        Err(Errno::EINVAL) if file.inode().kind() == FileType::Directory => file.inode().fs().sync(),
        result => result,
    }
}

/// `syncfs(2)`.
pub(crate) fn syncfs(cx: &mut Cx<'_>, fd: Fd) -> SysResult<()> {
    Ok(cx.io_file(fd)?.inode().fs().sync()?)
}

/// `sync_file_range(2)`: writes all of the file back.
pub(crate) fn sync_file_range(cx: &mut Cx<'_>, fd: Fd, offset: i64, len: i64, flags: u32) -> SysResult<()> {
    let file = cx.io_file(fd)?;
    if flags & !7 != 0 || offset < 0 || len < 0 || offset.checked_add(len).is_none() {
        return Err(Errno::EINVAL.into());
    }
    match file.inode().kind() {
        FileType::Regular | FileType::BlockDevice | FileType::Directory | FileType::Symlink => {}
        _ => return Err(Errno::ESPIPE.into()),
    }
    Ok(write_back(&file, true)?)
}

/// `RLIMIT_FSIZE` against a new size.
pub(crate) fn check_size_limit(cx: &Cx<'_>, size: u64) -> SysResult<()> {
    let limit = cx.task.group().limit(Resource::FileSize).cur;
    if limit != INFINITY && size > limit {
        cx.task.signal_self(Signal::SIGXFSZ);
        return Err(Errno::EFBIG.into());
    }
    Ok(())
}

/// `ftruncate(2)`.
pub(crate) fn ftruncate(cx: &mut Cx<'_>, fd: Fd, size: i64) -> SysResult<()> {
    let size = u64::try_from(size).map_err(|_| Errno::EINVAL)?;
    let file = cx.io_file(fd)?;
    if file.inode().kind() != FileType::Regular || !file.flags().writable() {
        return Err(Errno::EINVAL.into());
    }
    if size > file.inode().attr()?.size {
        check_size_limit(cx, size)?;
    }
    let (fs, who) = (cx.task.fs_context()?.get(), cx.who());
    Ok(Caller::new(&fs, who.cx()).set_size(file.path(), size)?)
}

/// `fallocate(2)`.
pub(crate) fn fallocate(cx: &mut Cx<'_>, fd: Fd, mode: u32, offset: i64, len: i64) -> SysResult<()> {
    let file = cx.io_file(fd)?;
    let (Ok(start), Ok(bytes)) = (u64::try_from(offset), u64::try_from(len)) else {
        return Err(Errno::EINVAL.into());
    };
    if bytes == 0 {
        return Err(Errno::EINVAL.into());
    }
    if !file.flags().writable() {
        return Err(Errno::EBADF.into());
    }
    match file.inode().kind() {
        FileType::Regular => {}
        FileType::Fifo => return Err(Errno::ESPIPE.into()),
        FileType::Directory => return Err(Errno::EISDIR.into()),
        _ => return Err(Errno::ENODEV.into()),
    }
    let end = offset.checked_add(len).ok_or(Errno::EFBIG)? as u64;
    const KEEP_SIZE: u32 = 1;
    if mode & KEEP_SIZE == 0 {
        check_size_limit(cx, end)?;
    }
    Ok(file.file().allocate(mode, start, bytes)?)
}

/// `posix_fadvise(2)`: good advice, which nothing here can follow.
pub(crate) fn fadvise64(cx: &mut Cx<'_>, fd: Fd, _offset: i64, len: i64, advice: u32) -> SysResult<()> {
    let file = cx.io_file(fd)?;
    if file.inode().kind() == FileType::Fifo {
        return Err(Errno::ESPIPE.into());
    }
    if len < 0 || advice > 5 {
        return Err(Errno::EINVAL.into());
    }
    Ok(())
}

/// `readahead(2)`: as [`fadvise64`].
pub(crate) fn readahead(cx: &mut Cx<'_>, fd: Fd, _offset: i64, _count: usize) -> SysResult<()> {
    let file = cx.io_file(fd)?;
    if !file.flags().readable() {
        return Err(Errno::EBADF.into());
    }
    if file.inode().kind() == FileType::Regular { Ok(()) } else { Err(Errno::EINVAL.into()) }
}
