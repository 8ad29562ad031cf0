//! The links of a sandbox to the outside: host sockets that hold whole frames, and the thread that reads them.
//!
//! The sockets were opened by `runsc` in the container's network namespace and came with
//! [`control::Request::Attach`]; the Sentry itself can open none. What the frames mean is `netstack`'s, whose
//! neighbour on the guest's side is [`socket::inet::Outside`].

mod capture;

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use capture::Capture;
use control::{EgressConfig, EgressTarget, LinkConfig, NetworkConfig};
use devfs::Randomness;
use netstack::{
    Config, Egress, EgressRule, EgressTarget as Target, Frame, Neighbor, Nic, Prefix, Route, VNET_LEN,
};
use nix::errno::Errno as HostErrno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, send};
use socket::inet::{Link, Network, Outside};
use socket::netlink;

/// Most frames that are taken at a time, and bytes of one: the largest packet, and its heads.
const BATCH: usize = 64;
const FRAME: usize = VNET_LEN + 18 + 65_535;
/// How long to wait for room in the host's queue before a frame is given up, in milliseconds.
const ROOM_MS: u8 = 10;
/// Pause after a host's error that does not go away by itself.
const PAUSE: Duration = Duration::from_millis(100);
/// Stack of the thread in bytes.
const STACK_SIZE: usize = 512 << 10;
/// `ARPHRD_ETHER`.
const ETHERNET: u16 = 1;

/// What can be made into links once their sockets have come.
pub(crate) struct Connector {
    network: Arc<Network>,
    random: Arc<dyn Randomness>,
    waker: Arc<EventFd>,
    used: AtomicBool,
}

/// Where frames go.
struct Sockets {
    links: Vec<(u32, OwnedFd)>,
    waker: Arc<EventFd>,
    capture: Option<Capture>,
}

impl Connector {
    /// Makes what cannot be made once the Sentry is locked in.
    pub(crate) fn new(network: Arc<Network>, random: Arc<dyn Randomness>) -> std::io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let waker = EventFd::from_value_and_flags(0, flags)?;
        Ok(Self { network, random, waker: Arc::new(waker), used: AtomicBool::new(false) })
    }

    /// Replaces the rules about who may be reached.
    pub(crate) fn set_egress(&self, config: &EgressConfig) -> Result<(), String> {
        if self.network.set_egress(egress(config)) { Ok(()) } else { Err("there is no network".into()) }
    }

    /// Gives the sandbox these links; `sockets` are theirs, and the last the file of `captures`. Only once.
    pub(crate) fn attach(&self, config: &NetworkConfig, mut sockets: Vec<OwnedFd>) -> Result<(), String> {
        let file = if config.captures { sockets.pop() } else { None };
        if sockets.len() != config.links.len() || file.is_some() != config.captures {
            return Err(format!("{} sockets for {} links", sockets.len(), config.links.len()));
        }
        if self.used.swap(true, Ordering::Relaxed) {
            return Err("there is a network already".into());
        }
        let mut seed = [0; 8];
        self.random.fill(&mut seed).map_err(|errno| errno.to_string())?;
        let numbers = config.links.iter().map(|link| link.index);
        let links: Vec<_> = numbers.zip(sockets).collect();
        let sockets =
            Arc::new(Sockets { links, waker: Arc::clone(&self.waker), capture: file.map(Capture::new) });
        let outside =
            Outside::new(stack(config, u64::from_ne_bytes(seed)), Arc::clone(&sockets) as Arc<dyn Link>);
        self.network.add_links(config.links.iter().map(shown));
        self.network.attach(Arc::clone(&outside));
        let (network, waker) = (Arc::clone(&self.network), Arc::clone(&self.waker));
        let thread = std::thread::Builder::new().name("link".into()).stack_size(STACK_SIZE);
        let work = move || read_frames(&sockets, &waker, &outside, &network);
        thread.spawn(work).map(drop).map_err(|error| error.to_string())
    }
}

/// As the guest sees a link.
fn shown(link: &LinkConfig) -> netlink::Link {
    let address = |address: &control::AddressConfig| netlink::Address {
        ip: address.ip,
        prefix: address.prefix,
        scope: address.scope,
    };
    netlink::Link {
        index: link.index,
        name: link.name.clone(),
        hardware: ETHERNET,
        flags: link.flags,
        mtu: link.mtu,
        mac: link.mac,
        addresses: link.addresses.iter().map(address).collect(),
    }
}

/// As the stack sees everything.
fn stack(config: &NetworkConfig, seed: u64) -> Config {
    let nic = |link: &LinkConfig| Nic {
        index: link.index,
        mac: link.mac,
        mtu: link.mtu,
        addresses: link.addresses.iter().map(|at| Prefix { ip: at.ip, bits: at.prefix }).collect(),
        segments: true,
    };
    let route = |route: &control::RouteConfig| Route {
        to: Prefix { ip: route.to, bits: route.prefix },
        gateway: route.gateway,
        nic: route.link,
        source: route.source,
        metric: route.metric,
    };
    let neighbor = |known: &control::NeighborConfig| Neighbor { ip: known.ip, mac: known.mac };
    Config {
        nics: config.links.iter().map(nic).collect(),
        routes: config.routes.iter().map(route).collect(),
        neighbors: config.neighbors.iter().map(neighbor).collect(),
        egress: egress(&config.egress),
        seed,
    }
}

/// Likewise of who may be reached.
fn egress(config: &EgressConfig) -> Egress {
    let rule = |rule: &control::EgressRule| EgressRule {
        allow: rule.allow,
        to: match &rule.to {
            EgressTarget::Network { ip, prefix } => Target::Network(Prefix { ip: *ip, bits: *prefix }),
            EgressTarget::Name(name) => Target::Name(name.clone()),
            EgressTarget::Below(name) => Target::Below(name.clone()),
        },
        ports: rule.ports.0..=rule.ports.1,
    };
    let rules = config.rules.iter().map(rule).collect();
    Egress { denies: config.denies, rules, resolvers: config.resolvers.clone() }
}

impl Link for Sockets {
    fn send(&self, frame: &Frame) {
        let Some((_, socket)) = self.links.iter().find(|(nic, _)| *nic == frame.nic) else { return };
        if let Some(capture) = &self.capture {
            capture.add(&frame.bytes);
        }
        for _ in 0..2 {
            match send(socket.as_raw_fd(), &frame.bytes, MsgFlags::MSG_DONTWAIT) {
                Err(HostErrno::EAGAIN | HostErrno::ENOBUFS) => {
                    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
                    // If there is none by then the frame is lost, as in a queue that is full.
                    let _ = poll(&mut fds, PollTimeout::from(ROOM_MS));
                }
                // An interface that is down loses frames.
                _ => return,
            }
        }
    }

    fn wake(&self) {
        // Full only when nobody has looked for ages, and then it is awake.
        let _ = self.waker.write(1);
    }
}

/// Reads frames and hands them on, for ever.
fn read_frames(sockets: &Sockets, waker: &EventFd, outside: &Outside, network: &Arc<Network>) {
    let mut buffers: Vec<Vec<u8>> = (0..BATCH).map(|_| vec![0; FRAME]).collect();
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    let mut wait = outside.tick(network);
    loop {
        let mut fds = vec![PollFd::new(waker.as_fd(), PollFlags::POLLIN)];
        fds.extend(sockets.links.iter().map(|(_, fd)| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, timeout(wait)) {
            Ok(_) | Err(HostErrno::EINTR) => {}
            Err(error) => {
                tracing::error!(%error, "cannot wait for frames");
                std::thread::sleep(PAUSE);
            }
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        if ready.first() == Some(&true) {
            // Only whether it is set is of interest.
            let _ = waker.read();
        }
        let mut sizes = Vec::new();
        for (n, (nic, socket)) in sockets.links.iter().enumerate() {
            if ready.get(n + 1) == Some(&true) {
                let free = buffers.get_mut(sizes.len()..).unwrap_or_default();
                sizes.extend(receive(socket, free, &mut headers).into_iter().map(|len| (*nic, len)));
            }
        }
        if let Some(capture) = &sockets.capture {
            let frames = sizes.iter().zip(&buffers);
            frames.for_each(|((_, len), buffer)| capture.add(buffer.get(..*len).unwrap_or_default()));
        }
        let frames = sizes.iter().zip(&buffers);
        wait = outside
            .take(network, frames.map(|((nic, len), buffer)| (*nic, buffer.get(..*len).unwrap_or_default())));
    }
}

/// Takes as many frames as there are, and buffers for them, in one call; their sizes. None when there is nothing, or the
/// interface is down; which is told once.
fn receive(socket: &OwnedFd, buffers: &mut [Vec<u8>], headers: &mut MultiHeaders<()>) -> Vec<usize> {
    let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
    let flags = MsgFlags::MSG_DONTWAIT;
    let received = recvmmsg(socket.as_raw_fd(), headers, slices.iter_mut(), flags, None);
    received.map(|frames| frames.map(|frame| frame.bytes).collect()).unwrap_or_default()
}

/// In whole milliseconds, not too early.
fn timeout(wait: Option<Duration>) -> PollTimeout {
    match wait {
        None => PollTimeout::NONE,
        Some(wait) => PollTimeout::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::{Connector, stack};
    use crate::random::HostRandom;
    use control::{AddressConfig, LinkConfig, NetworkConfig, RouteConfig};
    use socket::inet::Network;
    use std::sync::Arc;

    fn config() -> NetworkConfig {
        let address = AddressConfig { ip: [10, 0, 0, 2].into(), prefix: 24, scope: 0 };
        let link = LinkConfig {
            index: 4,
            name: "eth0".into(),
            mac: [2; 6],
            mtu: 1500,
            flags: 0x1043,
            addresses: vec![address],
        };
        let gateway = Some([10, 0, 0, 1].into());
        let route = RouteConfig { to: [0; 4].into(), prefix: 0, gateway, link: 4, source: None, metric: 0 };
        NetworkConfig { links: vec![link], routes: vec![route], ..NetworkConfig::default() }
    }

    #[test]
    fn the_stack_is_told_what_was_found() {
        let made = stack(&config(), 5);
        assert_eq!(made.source([8, 8, 8, 8].into()), Some([10, 0, 0, 2].into()));
        assert_eq!((made.nics[0].index, made.seed), (4, 5));
    }

    #[test]
    fn sockets_and_links_go_together() {
        let random = Arc::new(HostRandom::open().expect("random bytes"));
        let connector = Connector::new(Network::loopback(), random).expect("an eventfd");
        assert!(connector.attach(&config(), Vec::new()).is_err());
    }
}
