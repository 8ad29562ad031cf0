//! Numbers below `/proc/sys` that a guest, or a spec's `sysctl`, can change: those of System V IPC and of the network.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::Errno;
use kernel::Kernel;
use procfs::Setting;
use socket::inet::Network;

/// One, kept where it counts.
struct Kept<T> {
    whose: Arc<T>,
    place: fn(&T) -> &AtomicU64,
    range: RangeInclusive<u64>,
}

impl<T: Send + Sync> Setting for Kept<T> {
    fn value(&self) -> u64 {
        (self.place)(&self.whose).load(Ordering::Relaxed)
    }

    fn set(&self, value: u64) -> vfs::Result<()> {
        if !self.range.contains(&value) {
            return Err(Errno::EINVAL);
        }
        (self.place)(&self.whose).store(value, Ordering::Relaxed);
        Ok(())
    }
}

/// All of them, by their names.
pub(crate) fn settings(
    kernel: &Arc<Kernel>,
    network: &Arc<Network>,
) -> Vec<(&'static str, Arc<dyn Setting>)> {
    let ipc = |place: fn(&Kernel) -> &AtomicU64, range| -> Arc<dyn Setting> {
        Arc::new(Kept { whose: Arc::clone(kernel), place, range })
    };
    let net = |place: fn(&Network) -> &AtomicU64, range| -> Arc<dyn Setting> {
        Arc::new(Kept { whose: Arc::clone(network), place, range })
    };
    vec![
        ("kernel.msgmax", ipc(|kernel| &kernel.ipc().limits.message, 0..=ipc::limits::LARGEST_MESSAGE)),
        ("kernel.msgmnb", ipc(|kernel| &kernel.ipc().limits.queue, 0..=ipc::limits::LARGEST_QUEUE)),
        ("kernel.shmmax", ipc(|kernel| &kernel.ipc().limits.segment, 0..=u64::MAX)),
        ("net.core.somaxconn", net(|network| &network.settings().backlog, 0..=65_535)),
        ("net.ipv4.ip_unprivileged_port_start", net(|network| &network.settings().unprivileged, 0..=65_535)),
    ]
}
