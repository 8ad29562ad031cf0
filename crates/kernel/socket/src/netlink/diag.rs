//! Requests of `sock_diag(7)`, and their answers: what TCP and UDP sockets there are.
//!
//! Deliberately absent: questions about one socket (`ENOENT`), filters in the request (who asks filters
//! again), extensions but `INET_DIAG_INFO`, `SOCK_DESTROY`, and Unix sockets, of which none are told.

use abi::Errno;
use abi::socket::{AF_INET, AF_INET6};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::route::{DUMP, Head, attribute, done, message};
use crate::inet::Network;
use crate::inet::show::{Shown, sockets};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
const MULTI: u16 = 2;
/// `INET_DIAG_INFO`: as an attribute, and as a bit of what is asked for.
const INFO: u16 = 2;
const WANTS_INFO: u8 = 1 << (INFO - 1);
/// `INET_DIAG_SKV6ONLY`.
const V6ONLY: u16 = 11;
/// States of sockets without a peer.
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;
/// Bytes of a datagram of answers; one more socket goes into the next.
const DATAGRAM: usize = 16_384;

/// `struct inet_diag_req_v2` up to the addresses, which a dump does not look at.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Request {
    family: u8,
    protocol: u8,
    extensions: u8,
    pad: u8,
    states: u32,
}

/// `struct inet_diag_msg`.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Answer {
    family: u8,
    state: u8,
    timer: u8,
    retransmits: u8,
    local_port: [u8; 2],
    remote_port: [u8; 2],
    local: [u8; 16],
    remote: [u8; 16],
    interface: u32,
    cookie: [u32; 2],
    expires: u32,
    unread: u32,
    unsent: u32,
    uid: u32,
    inode: u32,
}

/// An address in four words, of which IPv4 uses the first.
fn words(v6: bool, ip: std::net::IpAddr) -> [u8; 16] {
    match ip {
        std::net::IpAddr::V6(ip) => ip.octets(),
        std::net::IpAddr::V4(ip) if v6 => ip.to_ipv6_mapped().octets(),
        std::net::IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
    }
}

fn answer_of(socket: &Shown) -> Answer {
    Answer {
        family: if socket.v6 { AF_INET6 } else { AF_INET } as u8,
        state: socket.state,
        timer: 0,
        retransmits: 0,
        local_port: socket.local.port().to_be_bytes(),
        remote_port: socket.remote.port().to_be_bytes(),
        local: words(socket.v6, socket.local.ip()),
        remote: words(socket.v6, socket.remote.ip()),
        interface: 0,
        cookie: [socket.ino as u32, (socket.ino >> 32) as u32],
        expires: 0,
        unread: socket.unread as u32,
        unsent: socket.unsent as u32,
        uid: socket.uid,
        inode: socket.ino as u32,
    }
}

/// Answers one request.
pub(super) fn one(
    head: &Head,
    payload: &[u8],
    port: u32,
    network: &Network,
    out: &mut Vec<Vec<u8>>,
) -> Result<(), Errno> {
    if head.kind != BY_FAMILY {
        return Err(Errno::EINVAL);
    }
    let (request, _) = Request::read_from_prefix(payload).map_err(|_| Errno::EINVAL)?;
    if head.flags & DUMP == 0 {
        return Err(Errno::ENOENT);
    }
    let family = u16::from(request.family);
    let asked = |socket: &Shown| {
        let of_family = family == if socket.v6 { AF_INET6 } else { AF_INET };
        of_family && request.states.checked_shr(u32::from(socket.state)).unwrap_or(0) & 1 != 0
    };
    let mut datagram = Vec::new();
    let with_info = request.extensions & WANTS_INFO != 0;
    let found = sockets(network, request.protocol.into(), with_info);
    for socket in found.iter().filter(|socket| asked(socket)) {
        let mut payload = answer_of(socket).as_bytes().to_vec();
        // Linux tells it of sockets without a peer only.
        if socket.v6 && matches!(socket.state, CLOSE | LISTEN) {
            attribute(&mut payload, V6ONLY, &[u8::from(socket.only)]);
        }
        if !socket.info.is_empty() {
            attribute(&mut payload, INFO, &socket.info);
        }
        datagram.extend(message(head, port, BY_FAMILY, MULTI, &payload));
        if datagram.len() >= DATAGRAM {
            out.push(std::mem::take(&mut datagram));
        }
    }
    if !datagram.is_empty() {
        out.push(datagram);
    }
    out.push(done(head, port));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Answer;

    #[test]
    fn the_layout_is_the_kernels() {
        assert_eq!(size_of::<Answer>(), 72);
    }
}
