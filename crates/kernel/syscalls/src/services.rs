//! What the system calls need beside the kernel, handed in by whoever boots a sandbox.

use std::sync::Arc;

use anonfs::AnonFs;
use vfs::DeviceOpener;

/// Parts of a sandbox that only system calls use. One of each a sandbox.
pub struct Services {
    /// Where pipes live.
    pub pipefs: Arc<AnonFs>,
    /// Where eventfd, epoll, timerfd and their like live.
    pub anon: Arc<AnonFs>,
    /// Opens device nodes that their file system does not open itself.
    pub devices: Arc<dyn DeviceOpener>,
}
