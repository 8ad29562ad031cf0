//! The links to the outside: one TCP/IP stack, and who hears of what it says.
//!
//! The stack is asked by guests' calls and by one thread of the host's that reads frames ([`Outside::take`],
//! [`Outside::tick`]). Only that thread acts on what the stack tells, because a guest's call may hold the lock of
//! the very socket that is told of. Frames are given to the [`Link`] in the order they were made.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant, SystemTime};

use abi::Errno;
use abi::poll::PollEvents;
use netstack::{Config, Counters, Event, Frame, Packet, Stack};
use sync::{Mutex, order};

use super::Network;
use super::address::is_link_local;
use super::tcp::Core as TcpCore;
use super::udp::{self, Datagram};
use super::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, raw};

use crate::packet::{Direction, Taps};

#[cfg(test)]
mod tests;

/// Of so many things that were not let out each is logged.
const MAX_LOGGED: u64 = 100;
/// Nothing is due.
const NEVER: u64 = u64::MAX;

/// Where frames go, and the thread that reads them. Implemented by whoever has the host's descriptors.
pub trait Link: Send + Sync {
    /// Sends a frame. What finds no room is lost.
    fn send(&self, frame: &Frame);

    /// Has the thread that reads call [`Outside::tick`] soon.
    fn wake(&self);
}

/// Who a connection belongs to.
#[derive(Clone)]
pub(super) enum Owner {
    /// It is to be accepted by this listener.
    Listener(Weak<TcpCore>),
    /// This socket.
    Socket(Weak<TcpCore>),
}

/// The stack and what is around it.
pub struct Outside {
    stack: Mutex<order::Network, Stack<Owner>>,
    link: Arc<dyn Link>,
    /// Packet sockets, which hear of every frame.
    taps: OnceLock<Arc<Taps>>,
    /// Held while frames go to the link.
    sending: Mutex<order::Leaf, ()>,
    start: Instant,
    /// Until when the thread sleeps, in microseconds since the start.
    armed: AtomicU64,
}

impl Outside {
    /// A stack made with `config`, which sends by `link`.
    pub fn new(config: Config, link: Arc<dyn Link>) -> Arc<Self> {
        Arc::new(Self {
            stack: Mutex::new(Stack::new(config, Duration::ZERO)),
            link,
            taps: OnceLock::new(),
            sending: Mutex::new(()),
            start: Instant::now(),
            armed: AtomicU64::new(NEVER),
        })
    }

    /// These hear of every frame.
    pub(super) fn tap(&self, taps: &Arc<Taps>) {
        // There is one network only whose sockets could.
        let _ = self.taps.set(Arc::clone(taps));
    }

    fn tapped(&self, nic: u32, frame: &[u8], direction: Direction) {
        if let Some(taps) = self.taps.get() {
            taps.hear(nic, frame, direction);
        }
    }

    /// Looks at the stack.
    pub(super) fn look<T>(&self, with: impl FnOnce(&Stack<Owner>) -> T) -> T {
        with(&self.stack.lock())
    }

    /// Does something with the stack, and sends what follows.
    pub(super) fn with<T>(&self, with: impl FnOnce(&mut Stack<Owner>, Duration) -> T) -> T {
        let mut stack = self.stack.lock();
        // Asked for under the lock, so that the stack's time does not run back.
        let result = with(&mut stack, self.start.elapsed());
        let mut wakes = stack.has_events();
        let due = stack.deadline().map_or(NEVER, micros);
        if due < self.armed.load(Ordering::Relaxed) {
            self.armed.store(due, Ordering::Relaxed);
            wakes = true;
        }
        let frames: Vec<Frame> = std::iter::from_fn(|| stack.next_frame()).collect();
        if !frames.is_empty() {
            // Before they go, or an answer could be seen before what it answers.
            frames.iter().for_each(|frame| self.tapped(frame.nic, &frame.bytes, Direction::Out));
            let _sending = self.sending.lock();
            drop(stack);
            frames.iter().for_each(|frame| self.link.send(frame));
        } else {
            drop(stack);
        }
        if wakes {
            self.link.wake();
        }
        result
    }

    /// Takes frames, each with the number of its interface, acts on them and on what is due. Only ever called by
    /// one thread. Returns how long that may sleep; without limit, until frames come or it is woken.
    pub fn take<'a>(
        &self,
        network: &Arc<Network>,
        frames: impl IntoIterator<Item = (u32, &'a [u8])>,
    ) -> Option<Duration> {
        let frames: Vec<_> = frames.into_iter().collect();
        frames.iter().for_each(|(nic, frame)| self.tapped(*nic, frame, Direction::In));
        // Awake: nobody need wake us for what is due.
        let before = self.armed.swap(0, Ordering::Relaxed);
        let mut events = self.with(|stack, now| {
            for (nic, frame) in &frames {
                stack.receive(*nic, frame, now);
            }
            stack.poll(now);
            stack.events()
        });
        while !events.is_empty() {
            for event in events {
                self.act(network, event);
            }
            events = self.with(|stack, _| stack.events());
        }
        let stack = self.stack.lock();
        let now = self.start.elapsed();
        // A time that was set before is kept while it lies ahead: what is due later is seen then, and whoever
        // sets one that lies between need not wake anybody.
        let kept = if before > micros(now) { before } else { NEVER };
        let due = stack.deadline().map_or(NEVER, micros).min(kept);
        self.armed.store(due, Ordering::Relaxed);
        (due != NEVER).then(|| Duration::from_micros(due).saturating_sub(now))
    }

    /// Acts on what is due.
    pub fn tick(&self, network: &Arc<Network>) -> Option<Duration> {
        self.take(network, [])
    }

    /// What has gone through interface `nic`.
    pub fn counters(&self, nic: u32) -> Counters {
        self.look(|stack| stack.counters(nic))
    }

    /// Something was not let out: logs it, when there are many not each, and says what the guest is told.
    pub(super) fn denied(&self, what: &str, to: SocketAddr) -> Errno {
        let count = self.look(|stack| stack.denied());
        if count <= MAX_LOGGED || count.is_power_of_two() {
            tracing::warn!(what, %to, count, "not let out");
        }
        Errno::EPERM
    }

    /// Acts on something that has happened.
    fn act(&self, network: &Arc<Network>, event: Event<Owner>) {
        match event {
            Event::Syn(syn) => match TcpCore::find_listener_for(network, syn.from, syn.to) {
                Some(listener) => listener.answer(self, &syn),
                None => self.with(|stack, now| stack.refuse(&syn, now)),
            },
            Event::Established(id, Owner::Listener(listener)) => {
                let taken = listener.upgrade().is_some_and(|listener| listener.enqueue(self, id));
                if !taken {
                    self.with(|stack, now| stack.release(id, true, now));
                }
            }
            Event::Changed(Owner::Socket(socket)) => {
                if let Some(socket) = socket.upgrade() {
                    socket.moved();
                }
            }
            Event::Established(..) | Event::Changed(_) | Event::Abandoned(_) => {}
            Event::Datagram(datagram) => self.deliver(network, &datagram),
            Event::Packet(packet) => self.hear(network, &packet),
            Event::Lost { protocol, local, remote, why, data } => {
                if i32::from(protocol) == IPPROTO_UDP {
                    udp::lost(network, (local, remote), &why, &data.clone().into());
                }
                raw::lost(network, protocol, (local, remote), (&why, &data));
            }
        }
    }

    /// Has raw sockets hear a packet. One of a protocol that nobody speaks is refused.
    fn hear(&self, network: &Network, packet: &Packet) {
        let known = [IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMPV6];
        if !raw::hear(network, packet) && !known.contains(&packet.protocol.into()) {
            self.with(|stack, now| stack.reject_packet(packet, now));
        }
    }

    fn deliver(&self, network: &Network, datagram: &netstack::Datagram) {
        let scoped = |address: SocketAddr| match address {
            SocketAddr::V6(mut v6) if is_link_local(*v6.ip()) => {
                v6.set_scope_id(datagram.nic);
                v6.into()
            }
            other => other,
        };
        let message = Datagram {
            data: datagram.data().into(),
            from: scoped(datagram.from),
            to: scoped(datagram.to),
            ttl: datagram.hops,
            tos: datagram.class,
            interface: datagram.nic,
            at: SystemTime::now(),
        };
        if !udp::deliver(network, &message) {
            self.with(|stack, now| stack.reject(datagram, now));
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(NEVER)
}

/// What a waiter is woken for when a connection has changed.
pub(super) const ANY_CHANGE: PollEvents =
    PollEvents::READABLE.union(PollEvents::WRITABLE).union(PollEvents::RDHUP).union(PollEvents::ALWAYS);
