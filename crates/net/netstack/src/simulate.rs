//! Two stacks and a link between them that loses, doubles, delays and reorders frames, the same way for the same
//! seed. For tests, here and of what is built on this.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::{Config, Egress, Event, Nic, Prefix, Route, Stack};

/// Small and deterministic (xorshift64*).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Does what happens once in a thousand times, `per_mille` times?
    pub fn happens(&mut self, per_mille: u32) -> bool {
        self.number() % 1000 < u64::from(per_mille)
    }
}

/// What a link does to frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Impairment {
    /// Of a thousand frames, those that are lost.
    pub loss: u32,
    /// Those that come twice.
    pub twice: u32,
    /// Those that come later than others.
    pub late: u32,
    /// Those of which a bit is changed.
    pub broken: u32,
    /// How long a frame takes.
    pub delay: Duration,
}

/// Two stacks, `sides[0]` with addresses ending in 1 and `sides[1]` in 2, and the link.
pub struct Pair {
    /// The stacks.
    pub sides: [Stack<u32>; 2],
    /// The clock.
    pub now: Duration,
    impairment: Impairment,
    chance: Chance,
    /// When, to whom, what.
    under_way: Vec<(Duration, usize, Vec<u8>)>,
}

/// Address of a side: `10.0.0.N` or `fd00::N`.
pub fn address(side: usize, v6: bool) -> IpAddr {
    let last = side as u8 + 1;
    if v6 {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()).into()
    } else {
        Ipv4Addr::new(10, 0, 0, last).into()
    }
}

/// What a side is made with.
pub fn config(side: usize, mtu: u32, segments: bool) -> Config {
    let addresses =
        vec![Prefix { ip: address(side, false), bits: 24 }, Prefix { ip: address(side, true), bits: 64 }];
    let route = |to: Prefix| Route { to, gateway: None, nic: 2, source: None, metric: 0 };
    Config {
        routes: addresses.iter().copied().map(route).collect(),
        nics: vec![Nic { index: 2, mac: [2, 0, 0, 0, 0, side as u8 + 1], mtu, addresses, segments }],
        neighbors: Vec::new(),
        egress: Egress::default(),
        seed: 7 + side as u64,
    }
}

impl Pair {
    /// Over a link of `mtu` bytes.
    pub fn new(seed: u64, mtu: u32, impairment: Impairment) -> Self {
        let now = Duration::from_secs(1);
        Self {
            sides: [0, 1].map(|side| Stack::new(config(side, mtu, false), now)),
            now,
            impairment,
            chance: Chance::new(seed),
            under_way: Vec::new(),
        }
    }

    fn carry(&mut self) {
        for side in 0..2 {
            let Some(stack) = self.sides.get_mut(side) else { return };
            while let Some(mut frame) = stack.next_frame() {
                let Impairment { loss, twice, late, broken, delay } = self.impairment;
                let count =
                    if self.chance.happens(loss) { 0 } else { 1 + u32::from(self.chance.happens(twice)) };
                if self.chance.happens(broken) {
                    let bits = frame.bytes.len().saturating_sub(24) as u64 * 8;
                    let bit = self.chance.number() % bits.max(1);
                    // Nobody vouches for what has been changed, unless the device was to: then it is dropped.
                    if let Some(byte) = frame.bytes.get_mut(24 + (bit / 8) as usize) {
                        *byte ^= 1 << (bit % 8);
                    }
                    if frame.bytes.first().is_some_and(|flags| *flags != 0) {
                        continue;
                    }
                }
                for _ in 0..count {
                    let extra =
                        if self.chance.happens(late) { delay * 3 + Duration::from_millis(3) } else { delay };
                    self.under_way.push((self.now + extra, 1 - side, frame.bytes.clone()));
                }
            }
        }
    }

    /// Goes on to the next thing that happens, and lets it happen; not beyond `until`. Returns what the sides are
    /// to hear of.
    pub fn step(&mut self, until: Duration) -> Vec<(usize, Event<u32>)> {
        self.carry();
        let arrival = self.under_way.iter().map(|(at, ..)| *at).min();
        let deadlines = self.sides.iter().filter_map(Stack::deadline);
        let next = deadlines.chain(arrival).min().unwrap_or(until).min(until);
        self.now = self.now.max(next);
        let now = self.now;
        let (due, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.under_way).into_iter().partition(|(at, ..)| *at <= now);
        self.under_way = rest;
        for (_, to, bytes) in due {
            if let Some(stack) = self.sides.get_mut(to) {
                stack.receive(2, &bytes, now);
            }
        }
        let mut events = Vec::new();
        for (side, stack) in self.sides.iter_mut().enumerate() {
            stack.poll(now);
            events.extend(stack.events().into_iter().map(|event| (side, event)));
        }
        events
    }

    /// Has nothing left to happen?
    pub fn is_idle(&self) -> bool {
        let quiet = self.sides.iter().all(|side| side.is_quiet() && side.deadline().is_none());
        quiet && self.under_way.is_empty()
    }
}
