//! `AF_NETLINK` sockets of protocol `NETLINK_ROUTE` (`netlink(7)`, `rtnetlink(7)`): what interfaces,
//! addresses, routes and neighbours there are.
//!
//! - [`route`]: requests and their answers. - [`Links`]: where the answers come from.
//! - `ways`: routes and neighbours. - `diag`: what sockets there are (`NETLINK_SOCK_DIAG`, `sock_diag(7)`).
//!
//! Deliberately absent: changes (`EOPNOTSUPP` for those who may), multicast news, other protocols.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use abi::Errno;
use abi::poll::PollEvents;
use abi::socket::{AF_NETLINK, AF_UNSPEC, MsgFlags, SocketKind, Ucred};
use cred::CapSet;
use guestmem::{IoSink, IoSource};
use sync::wait::WaitQueue;
use sync::{Mutex, order};
use vfs::Result;

use crate::inet::Network;
use crate::{Ancillary, Asker, Outgoing, Received, Shutdown, Socket, Try, family};

mod diag;
pub mod route;
mod ways;

pub use route::{Address, Link, Links, Loopback};
pub use ways::{Near, Way};

/// `NETLINK_ROUTE`.
const ROUTE: i32 = 0;
/// `NETLINK_SOCK_DIAG`.
const SOCK_DIAG: i32 = 4;
/// `SOL_NETLINK`.
const SOL_NETLINK: i32 = 270;
/// `NETLINK_LISTEN_ALL_NSID`, `NETLINK_CAP_ACK`, ... up to `NETLINK_GET_STRICT_CHK`.
const OPTIONS: std::ops::RangeInclusive<i32> = 1..=12;
/// Bytes of a `sockaddr_nl`.
const ADDRESS: usize = 12;
/// Largest request, and most bytes of answers nobody has read.
const MAX_BYTES: usize = 212_992;

/// The ports in use in a network namespace.
#[derive(Default)]
pub struct Ports(Mutex<order::Leaf, HashSet<u32>>);

impl Ports {
    /// None yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn claim(&self, port: u32) -> Result<u32> {
        if self.0.lock().insert(port) { Ok(port) } else { Err(Errno::EADDRINUSE) }
    }

    /// The process's id when it is free, else a number that is none.
    fn claim_any(&self, pid: i32) -> Result<u32> {
        let mut ports = self.0.lock();
        let wanted = pid as u32;
        let free = std::iter::once(wanted).chain((1 << 31..=u32::MAX - 4096).rev());
        let port = free.into_iter().find(|port| !ports.contains(port)).ok_or(Errno::EADDRINUSE)?;
        ports.insert(port);
        Ok(port)
    }
}

#[derive(Default)]
struct State {
    port: Option<u32>,
    groups: u32,
    queue: VecDeque<Vec<u8>>,
    bytes: usize,
    error: Option<Errno>,
    passes_credentials: bool,
    /// Options that are only kept, one bit each.
    options: u32,
}

/// A netlink socket that talks to the kernel about interfaces.
pub struct NetlinkSocket {
    kind: SocketKind,
    protocol: i32,
    ports: Arc<Ports>,
    links: Arc<Network>,
    wait: WaitQueue,
    state: Mutex<order::FileState, State>,
}

/// Port and groups of a `sockaddr_nl`.
fn parse(address: &[u8]) -> Result<(u32, u32)> {
    let word = |at: usize| address.get(at..).and_then(<[u8]>::first_chunk).map(|b| u32::from_ne_bytes(*b));
    let family = address.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes));
    match (family, word(4), word(8)) {
        (Some(AF_NETLINK), Some(port), Some(groups)) => Ok((port, groups)),
        _ => Err(Errno::EINVAL),
    }
}

fn address(port: u32, groups: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ADDRESS);
    bytes.extend_from_slice(&u32::from(AF_NETLINK).to_ne_bytes());
    bytes.extend_from_slice(&port.to_ne_bytes());
    bytes.extend_from_slice(&groups.to_ne_bytes());
    bytes
}

impl NetlinkSocket {
    /// A fresh socket. `ESOCKTNOSUPPORT` for types other than raw and datagram, `EPROTONOSUPPORT` for
    /// protocols other than `NETLINK_ROUTE` and `NETLINK_SOCK_DIAG`.
    pub fn new(
        kind: SocketKind,
        protocol: i32,
        ports: &Arc<Ports>,
        links: &Arc<Network>,
    ) -> Result<Arc<Self>> {
        if !matches!(kind, SocketKind::Raw | SocketKind::Datagram) {
            return Err(Errno::ESOCKTNOSUPPORT);
        }
        if !matches!(protocol, ROUTE | SOCK_DIAG) {
            return Err(Errno::EPROTONOSUPPORT);
        }
        let (ports, links) = (Arc::clone(ports), Arc::clone(links));
        Ok(Arc::new(Self { kind, protocol, ports, links, wait: WaitQueue::new(), state: Mutex::default() }))
    }

    /// The port, which is taken when there is none yet.
    fn port(&self, pid: i32) -> Result<u32> {
        let mut state = self.state.lock();
        match state.port {
            Some(port) => Ok(port),
            None => Ok(*state.port.insert(self.ports.claim_any(pid)?)),
        }
    }

    /// Queues answers; what does not fit is lost, and the reader told.
    fn answer(&self, datagrams: Vec<Vec<u8>>) {
        let mut state = self.state.lock();
        for datagram in datagrams {
            if state.bytes + datagram.len() > MAX_BYTES {
                state.error = Some(Errno::ENOBUFS);
                break;
            }
            state.bytes += datagram.len();
            state.queue.push_back(datagram);
        }
        drop(state);
        self.wait.notify(PollEvents::READABLE);
    }
}

impl Drop for NetlinkSocket {
    fn drop(&mut self) {
        if let Some(port) = self.state.get_mut().port {
            self.ports.0.lock().remove(&port);
        }
    }
}

impl Socket for NetlinkSocket {
    fn family(&self) -> u16 {
        AF_NETLINK
    }

    fn kind(&self) -> SocketKind {
        self.kind
    }

    fn protocol(&self) -> i32 {
        self.protocol
    }

    fn bind(&self, asker: &Asker<'_>, address: &[u8]) -> Result<()> {
        let (wanted, groups) = parse(address)?;
        let mut state = self.state.lock();
        state.port = Some(match state.port {
            Some(port) if wanted == port || wanted == 0 => port,
            Some(_) => return Err(Errno::EINVAL),
            None if wanted == 0 => self.ports.claim_any(asker.pid)?,
            None => self.ports.claim(wanted)?,
        });
        state.groups = groups;
        Ok(())
    }

    fn connect(&self, asker: &Asker<'_>, address: &[u8]) -> Try<()> {
        // Only to the kernel, which is the peer anyway.
        let unspecified = family(address) == Some(AF_UNSPEC);
        if !unspecified && parse(address)? != (0, 0) && !asker.cred.capable(CapSet::NET_ADMIN) {
            return Err(Errno::EPERM.into());
        }
        self.port(asker.pid)?;
        Ok(())
    }

    fn name(&self) -> Vec<u8> {
        let state = self.state.lock();
        address(state.port.unwrap_or(0), state.groups)
    }

    fn peer_name(&self) -> Result<Vec<u8>> {
        Ok(address(0, 0))
    }

    fn send(&self, asker: &Asker<'_>, source: &mut dyn IoSource, message: &Outgoing<'_>) -> Try<usize> {
        if message.flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP.into());
        }
        if let Some(to) = message.to {
            let (port, groups) = parse(to)?;
            if (port, groups) != (0, 0) {
                let may = asker.cred.capable(CapSet::NET_ADMIN);
                return Err(if may { Errno::ECONNREFUSED } else { Errno::EPERM }.into());
            }
        }
        let port = self.port(asker.pid)?;
        let len = source.remaining();
        if len > MAX_BYTES {
            return Err(Errno::EMSGSIZE.into());
        }
        let request = source.take_exact(len)?;
        let privileged = asker.cred.capable(CapSet::NET_ADMIN);
        self.answer(match self.protocol {
            SOCK_DIAG => route::answer_each(&request, port, |head, payload, out| {
                diag::one(head, payload, port, &self.links, out)
            }),
            _ => route::answer(&request, port, privileged, self.links.as_ref()),
        });
        Ok(len)
    }

    fn receive(&self, sink: &mut dyn IoSink, flags: MsgFlags) -> Result<Received> {
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let (datagram, passes) = {
            let mut state = self.state.lock();
            if let Some(errno) = state.error.take() {
                return Err(errno);
            }
            let peeked = flags.contains(MsgFlags::PEEK).then(|| state.queue.front().cloned());
            let datagram = peeked.unwrap_or_else(|| {
                let taken = state.queue.pop_front();
                state.bytes -= taken.as_ref().map_or(0, Vec::len);
                taken
            });
            (datagram.ok_or(Errno::EAGAIN)?, state.passes_credentials)
        };
        let bytes = sink.put_all(&datagram)?;
        let mut out = MsgFlags::empty();
        out.set(MsgFlags::TRUNC, bytes < datagram.len());
        // The kernel is nobody's process, and root.
        let ancillary = Ancillary { credentials: passes.then(Ucred::default), ..Ancillary::default() };
        let from = Some(address(0, 0));
        Ok(Received { bytes, full_len: datagram.len(), ancillary, from, flags: out, end: false })
    }

    fn shutdown(&self, _: Shutdown) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn poll(&self) -> PollEvents {
        let state = self.state.lock();
        let mut events = PollEvents::WRITABLE;
        events.set(PollEvents::READABLE, !state.queue.is_empty());
        events.set(PollEvents::ERR, state.error.is_some());
        events
    }

    fn wait_queue(&self) -> &WaitQueue {
        &self.wait
    }

    fn take_error(&self) -> Option<Errno> {
        self.state.lock().error.take()
    }

    fn set_passes_credentials(&self, on: bool) -> Result<()> {
        self.state.lock().passes_credentials = on;
        Ok(())
    }

    fn passes_credentials(&self) -> bool {
        self.state.lock().passes_credentials
    }

    fn option(&self, level: i32, name: i32) -> Result<Vec<u8>> {
        if level != SOL_NETLINK || !OPTIONS.contains(&name) {
            return Err(Errno::ENOPROTOOPT);
        }
        let on = self.state.lock().options >> name & 1;
        Ok(on.to_ne_bytes().to_vec())
    }

    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        if level != SOL_NETLINK || !OPTIONS.contains(&name) {
            return Err(Errno::ENOPROTOOPT);
        }
        let value = value.first_chunk().map(|b| u32::from_ne_bytes(*b)).ok_or(Errno::EINVAL)?;
        let mut state = self.state.lock();
        state.options = state.options & !(1 << name) | u32::from(value != 0) << name;
        Ok(())
    }
}
