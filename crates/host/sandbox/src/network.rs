//! The container's network namespace on the host: what is in it, and taking that over for a sandbox.
//!
//! A sandbox does what the host's kernel would do for the container: it answers for the container's addresses on
//! the container's interfaces. So the host must not: [`Found::take_over`] removes the addresses, and with them
//! the routes, from the interfaces, as gVisor does. They are not put back.

mod netlink;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use control::NetworkConfig;
use hostsys::packet;
use nix::sched::{CloneFlags, setns};

use crate::SandboxError;
use netlink::Netlink;

/// Most interfaces a sandbox is given.
const MAX_LINKS: usize = 16;

/// What was found in a network namespace.
#[derive(Debug)]
pub struct Found {
    namespace: File,
    /// It, without descriptors.
    pub config: NetworkConfig,
    sockets: Vec<OwnedFd>,
}

impl Found {
    /// Looks into the namespace that `path` names; `None` when no Ethernet interface in it is up with an address.
    pub fn look(path: &Path) -> Result<Option<Self>, SandboxError> {
        let failed = |source| SandboxError::Io { path: path.into(), source };
        let namespace = File::open(path).map_err(failed)?;
        let (config, sockets) = inside(&namespace, || {
            let mut config = Netlink::open()?.read()?;
            config.links.truncate(MAX_LINKS);
            let failed = |errno: abi::Errno| std::io::Error::from_raw_os_error(errno.raw().into());
            let sockets = config.links.iter().map(|link| packet::open(link.index).map_err(failed));
            let sockets = sockets.collect::<std::io::Result<Vec<_>>>()?;
            Ok((config, sockets))
        })?;
        Ok((!sockets.is_empty()).then_some(Self { namespace, config, sockets }))
    }

    /// A socket an interface, in their order.
    pub fn sockets(&self) -> Vec<BorrowedFd<'_>> {
        self.sockets.iter().map(AsFd::as_fd).collect()
    }

    /// Has the host's kernel answer no more for the addresses.
    pub fn take_over(self) -> Result<(), SandboxError> {
        inside(&self.namespace, || {
            let netlink = Netlink::open()?;
            for link in &self.config.links {
                for address in &link.addresses {
                    netlink.remove(link.index, *address)?;
                }
            }
            Ok(())
        })
    }
}

/// Does something in a network namespace, on a thread that ends with it.
fn inside<T: Send>(
    namespace: &File,
    work: impl FnOnce() -> std::io::Result<T> + Send,
) -> Result<T, SandboxError> {
    let result = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            work()
        });
        thread.join().unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()))
    });
    result.map_err(|source| SandboxError::Host { doing: "cannot take over the container's network", source })
}
