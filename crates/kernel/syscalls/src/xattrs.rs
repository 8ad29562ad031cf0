//! Extended attributes (`xattr(7)`).

use abi::fs::{AT_FDCWD, AtFlags};
use abi::{Errno, SysResult};
use guestmem::{MemExt, UserAddr, UserCStr, UserMem};
use vfs::{Caller, FsContext, VfsPath, XattrSet};

use crate::args::Fd;
use crate::at::{At, walk_flags};
use crate::cx::{Cx, Who};

/// Longest value and longest list, in bytes.
const SIZE_MAX: usize = 65536;
/// Longest name with its NUL.
const NAME_MAX: usize = 256;

/// The file a call is about, and who asks.
struct Subject {
    fs: FsContext,
    who: Who,
    path: VfsPath,
}

impl Subject {
    fn by_path(cx: &Cx<'_>, path: UserCStr, flags: AtFlags) -> SysResult<Self> {
        let path = At::new(cx, Fd(AT_FDCWD), path)?.lookup(walk_flags(flags))?;
        Self::of(cx, path)
    }

    fn by_fd(cx: &Cx<'_>, fd: Fd) -> SysResult<Self> {
        let path = cx.io_file(fd)?.path().clone();
        Self::of(cx, path)
    }

    fn of(cx: &Cx<'_>, path: VfsPath) -> SysResult<Self> {
        Ok(Self { fs: cx.task.fs_context()?.get(), who: cx.who(), path })
    }

    fn caller(&self) -> Caller<'_> {
        Caller::new(&self.fs, self.who.cx())
    }

    fn get(&self, cx: &Cx<'_>, name: UserCStr, value: UserAddr, size: usize) -> SysResult<usize> {
        let found = self.caller().xattr(&self.path, &load_name(cx, name)?)?;
        deliver(cx, &found, value, size)
    }

    fn set(&self, cx: &Cx<'_>, name: UserCStr, value: UserAddr, size: usize, flags: u32) -> SysResult<()> {
        let how = match flags {
            0 => XattrSet::Any,
            1 => XattrSet::Create,
            2 => XattrSet::Replace,
            _ => return Err(Errno::EINVAL.into()),
        };
        let name = load_name(cx, name)?;
        if size > SIZE_MAX {
            return Err(Errno::E2BIG.into());
        }
        let mut bytes = vec![0; size];
        cx.mm().read(value, &mut bytes)?;
        Ok(self.caller().set_xattr(&self.path, &name, &bytes, how)?)
    }

    fn list(&self, cx: &Cx<'_>, list: UserAddr, size: usize) -> SysResult<usize> {
        let names = self.caller().list_xattr(&self.path)?;
        if names.len() > SIZE_MAX {
            return Err(Errno::E2BIG.into());
        }
        deliver(cx, &names, list, size)
    }

    fn remove(&self, cx: &Cx<'_>, name: UserCStr) -> SysResult<()> {
        Ok(self.caller().remove_xattr(&self.path, &load_name(cx, name)?)?)
    }
}

fn load_name(cx: &Cx<'_>, name: UserCStr) -> Result<Vec<u8>, Errno> {
    match cx.mm().load_cstr(name, NAME_MAX) {
        Err(Errno::ENAMETOOLONG) => Err(Errno::ERANGE),
        name => name,
    }
}

/// Size zero asks for the length.
fn deliver(cx: &Cx<'_>, bytes: &[u8], to: UserAddr, size: usize) -> SysResult<usize> {
    if size == 0 {
        return Ok(bytes.len());
    }
    if bytes.len() > size {
        return Err(Errno::ERANGE.into());
    }
    cx.mm().write(to, bytes)?;
    Ok(bytes.len())
}

/// `getxattr(2)`.
pub(crate) fn getxattr(
    cx: &mut Cx<'_>,
    path: UserCStr,
    name: UserCStr,
    value: UserAddr,
    size: usize,
) -> SysResult<usize> {
    Subject::by_path(cx, path, AtFlags::empty())?.get(cx, name, value, size)
}

/// `lgetxattr(2)`.
pub(crate) fn lgetxattr(
    cx: &mut Cx<'_>,
    path: UserCStr,
    name: UserCStr,
    value: UserAddr,
    size: usize,
) -> SysResult<usize> {
    Subject::by_path(cx, path, AtFlags::SYMLINK_NOFOLLOW)?.get(cx, name, value, size)
}

/// `fgetxattr(2)`.
pub(crate) fn fgetxattr(
    cx: &mut Cx<'_>,
    fd: Fd,
    name: UserCStr,
    value: UserAddr,
    size: usize,
) -> SysResult<usize> {
    Subject::by_fd(cx, fd)?.get(cx, name, value, size)
}

/// `setxattr(2)`.
pub(crate) fn setxattr(
    cx: &mut Cx<'_>,
    path: UserCStr,
    name: UserCStr,
    value: UserAddr,
    size: usize,
    flags: u32,
) -> SysResult<()> {
    Subject::by_path(cx, path, AtFlags::empty())?.set(cx, name, value, size, flags)
}

/// `lsetxattr(2)`.
pub(crate) fn lsetxattr(
    cx: &mut Cx<'_>,
    path: UserCStr,
    name: UserCStr,
    value: UserAddr,
    size: usize,
    flags: u32,
) -> SysResult<()> {
    Subject::by_path(cx, path, AtFlags::SYMLINK_NOFOLLOW)?.set(cx, name, value, size, flags)
}

/// `fsetxattr(2)`.
pub(crate) fn fsetxattr(
    cx: &mut Cx<'_>,
    fd: Fd,
    name: UserCStr,
    value: UserAddr,
    size: usize,
    flags: u32,
) -> SysResult<()> {
    Subject::by_fd(cx, fd)?.set(cx, name, value, size, flags)
}

/// `listxattr(2)`.
pub(crate) fn listxattr(cx: &mut Cx<'_>, path: UserCStr, list: UserAddr, size: usize) -> SysResult<usize> {
    Subject::by_path(cx, path, AtFlags::empty())?.list(cx, list, size)
}

/// `llistxattr(2)`.
pub(crate) fn llistxattr(cx: &mut Cx<'_>, path: UserCStr, list: UserAddr, size: usize) -> SysResult<usize> {
    Subject::by_path(cx, path, AtFlags::SYMLINK_NOFOLLOW)?.list(cx, list, size)
}

/// `flistxattr(2)`.
pub(crate) fn flistxattr(cx: &mut Cx<'_>, fd: Fd, list: UserAddr, size: usize) -> SysResult<usize> {
    Subject::by_fd(cx, fd)?.list(cx, list, size)
}

/// `removexattr(2)`.
pub(crate) fn removexattr(cx: &mut Cx<'_>, path: UserCStr, name: UserCStr) -> SysResult<()> {
    Subject::by_path(cx, path, AtFlags::empty())?.remove(cx, name)
}

/// `lremovexattr(2)`.
pub(crate) fn lremovexattr(cx: &mut Cx<'_>, path: UserCStr, name: UserCStr) -> SysResult<()> {
    Subject::by_path(cx, path, AtFlags::SYMLINK_NOFOLLOW)?.remove(cx, name)
}

/// `fremovexattr(2)`.
pub(crate) fn fremovexattr(cx: &mut Cx<'_>, fd: Fd, name: UserCStr) -> SysResult<()> {
    Subject::by_fd(cx, fd)?.remove(cx, name)
}
