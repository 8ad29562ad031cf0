//! Sockets that take and give whole frames of an interface (`packet(7)`).

mod raw;

use std::os::fd::OwnedFd;

use abi::Errno;

/// Bytes that may wait in either direction.
const BUFFER: i32 = 8 << 20;

/// Opens a socket for all frames of interface `index` of the calling thread's network namespace but those that
/// it sends itself. Before each frame stands a `struct virtio_net_hdr`. Needs `CAP_NET_RAW`, and for buffers of
/// full size `CAP_NET_ADMIN`.
pub fn open(index: u32) -> Result<OwnedFd, Errno> {
    let index = i32::try_from(index).map_err(|_| Errno::ENODEV)?;
    let socket = raw::socket()?;
    raw::set(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1)?;
    raw::set(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1)?;
    for (force, usual) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        raw::set(&socket, libc::SOL_SOCKET, force, &BUFFER)
            .or_else(|_| raw::set(&socket, libc::SOL_SOCKET, usual, &BUFFER))?;
    }
    raw::hear_all_groups(&socket, index)?;
    // Only now does anything come.
    raw::bind(&socket, index)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::open;

    #[test]
    fn there_must_be_such_an_interface() {
        assert!(open(u32::MAX).is_err());
        assert!(open(i32::MAX as u32).is_err());
    }
}
