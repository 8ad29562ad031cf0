//! `ioctl(2)`: what is the same for every file; the rest is the file's.

use abi::fs::{FileType, OpenFlags};
use abi::ioctl::{FIOASYNC, FIOCLEX, FIONBIO, FIONCLEX, FIONREAD, FIOQSIZE};
use abi::{Errno, SysResult};
use guestmem::{MemExt, UserAddr, UserPtr};
use socket::SocketFile;
use vfs::{IoctlRequest, OpenFile, SeekFrom};

use crate::args::Fd;
use crate::cx::Cx;
use crate::sigio;

/// Block size of the file system.
const FIGETBSZ: u32 = 2;

/// `ioctl(2)`.
pub(crate) fn ioctl(cx: &mut Cx<'_>, fd: Fd, cmd: u32, arg: u64) -> SysResult<u64> {
    let file = cx.io_file(fd)?;
    let (mm, addr) = (cx.mm(), UserAddr(arg));
    match cmd {
        FIOCLEX | FIONCLEX => cx.fds()?.set_cloexec(fd.0, cmd == FIOCLEX)?,
        FIONBIO | FIOASYNC => {
            let on = mm.load(UserPtr::<i32>::new(addr))? != 0;
            let flag = if cmd == FIONBIO { OpenFlags::NONBLOCK } else { OpenFlags::ASYNC };
            let mut flags = file.flags();
            flags.set(flag, on);
            file.set_flags(flags)?;
            if cmd == FIOASYNC && !sigio::follow_flags(cx, &file, fd.0) {
                return Err(Errno::ENOTTY.into());
            }
        }
        FIOQSIZE => {
            let attr = file.inode().attr()?;
            if !matches!(attr.kind, FileType::Regular | FileType::Directory | FileType::Symlink) {
                return Err(Errno::ENOTTY.into());
            }
            mm.store(UserPtr::new(addr), &attr.size)?;
        }
        FIGETBSZ => mm.store(UserPtr::new(addr), &file.inode().attr()?.blksize)?,
        FIONREAD if file.inode().kind() == FileType::Regular && file.file().is_seekable() => {
            mm.store(UserPtr::new(addr), &unread(&file)?)?;
        }
        _ => {
            let request = IoctlRequest { cmd, arg, mem: mm.as_ref() };
            return Ok(match file.file().ioctl(&cx.who().cx(), &request) {
                // Every socket answers for interfaces, of whatever family.
                Err(Errno::ENOTTY) if SocketFile::of(&file).is_some() => {
                    socket::inet::interface_ioctl(&cx.services.network, &request)?
                }
                outcome => outcome?,
            });
        }
    }
    Ok(0)
}

/// Bytes from the offset to the end.
fn unread(file: &OpenFile) -> vfs::Result<i32> {
    let (size, at) = (file.inode().attr()?.size, file.seek(SeekFrom::Current(0))?);
    Ok(i32::try_from(size as i64 - at as i64).unwrap_or(i32::MAX))
}
