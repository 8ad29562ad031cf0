//! What a task shares with others, given up (`unshare(2)`).

use std::sync::Arc;

use abi::process::CloneFlags;
use abi::{Errno, SysResult};

use crate::cx::Cx;

/// `unshare(2)`: files and directories; namespaces are not made.
pub(crate) fn unshare(cx: &mut Cx<'_>, flags: u64) -> SysResult<()> {
    let flags = CloneFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let known = CloneFlags::FILES | CloneFlags::FS | CloneFlags::SYSVSEM;
    if !known.contains(flags) {
        obs::stub!("unshare of a namespace", "there is one of each kind");
        return Err(Errno::EINVAL.into());
    }
    if flags.contains(CloneFlags::FILES) {
        let own = cx.fds()?.fork();
        cx.task.set_fds(Arc::new(own));
    }
    if flags.contains(CloneFlags::FS) {
        cx.task.set_fs(cx.task.fs()?.fork());
    }
    Ok(())
}
