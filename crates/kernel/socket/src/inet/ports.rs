//! Who has which port, and whether one more may (`bind(2)`, `SO_REUSEADDR`, `SO_REUSEPORT`).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Weak;

use abi::Errno;
use vfs::Result;

/// Ports given to those who ask for none (`net.ipv4.ip_local_port_range`).
pub(super) const EPHEMERAL: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// One socket's claim on a port.
pub(super) struct Claim<T> {
    /// The address; the unspecified one is all of its family, and that of IPv6 also IPv4's unless `only`.
    pub(super) ip: IpAddr,
    /// `IPV6_V6ONLY`.
    pub(super) only: bool,
    /// `SO_REUSEADDR`.
    pub(super) reuse: bool,
    /// `SO_REUSEPORT`.
    pub(super) share: bool,
    /// Owner.
    pub(super) uid: u32,
    /// It listens.
    pub(super) listening: bool,
    /// It is only remembered (`TIME_WAIT`).
    pub(super) waiting: bool,
    /// It was taken by a connect, for one destination: others may for theirs.
    pub(super) connected: bool,
    /// The socket.
    pub(super) socket: Weak<T>,
}

impl<T> Clone for Claim<T> {
    fn clone(&self) -> Self {
        Self { socket: self.socket.clone(), ..*self }
    }
}

/// Do two addresses, each with its `IPV6_V6ONLY`, have one in common?
fn overlap(a: (IpAddr, bool), b: (IpAddr, bool)) -> bool {
    let everything = |(ip, only): (IpAddr, bool)| ip.is_unspecified() && ip.is_ipv6() && !only;
    let same_family = a.0.is_ipv4() == b.0.is_ipv4();
    if !same_family {
        return everything(a) || everything(b);
    }
    a.0 == b.0 || a.0.is_unspecified() || b.0.is_unspecified()
}

impl<T> Claim<T> {
    /// Would the two claims on one port be one too many? Of streams (`listens`) a listener's address is not
    /// reused; of datagrams it always is where both agree.
    fn conflicts(&self, other: &Self, listens: bool) -> bool {
        if !overlap((self.ip, self.only), (other.ip, other.only)) {
            return false;
        }
        if self.reuse && other.reuse && !(listens && other.listening) {
            return false;
        }
        let shared = self.share && other.share && (other.waiting || self.uid == other.uid);
        !shared
    }

    /// How well the claim fits a packet to `to`: not at all, as a wildcard, or exactly.
    pub(super) fn fit(&self, to: IpAddr) -> Option<u8> {
        match (self.ip, to) {
            (ip, to) if ip == to => Some(3),
            (IpAddr::V4(ip), IpAddr::V4(_)) if ip.is_unspecified() => Some(2),
            (IpAddr::V6(ip), IpAddr::V6(_)) if ip.is_unspecified() => Some(2),
            (IpAddr::V6(ip), IpAddr::V4(_)) if ip.is_unspecified() && !self.only => Some(1),
            _ => None,
        }
    }
}

/// Who claims one port.
struct Claims<T> {
    all: HashMap<u64, Claim<T>>,
    /// Those of `all` that listen: few, where there may be very many connections.
    listening: Vec<u64>,
}

/// The ports of one protocol.
pub(super) struct Ports<T> {
    by_port: HashMap<u16, Claims<T>>,
    /// Of a stream protocol.
    listens: bool,
    /// Where the next search for a free port starts; nobody outside can guess it.
    salt: RandomState,
    searches: u64,
}

impl<T> Ports<T> {
    pub(super) fn new(listens: bool) -> Self {
        Self { by_port: HashMap::new(), listens, salt: RandomState::new(), searches: 0 }
    }

    /// Enters a claim on `port`; `EADDRINUSE`.
    pub(super) fn claim(&mut self, port: u16, id: u64, claim: Claim<T>) -> Result<()> {
        if self.is_taken(port, id, &claim) {
            return Err(Errno::EADDRINUSE);
        }
        self.add(port, id, claim);
        Ok(())
    }

    /// Enters one that need not ask, such as an accepted socket's.
    pub(super) fn add(&mut self, port: u16, id: u64, claim: Claim<T>) {
        let new = || Claims { all: HashMap::new(), listening: Vec::new() };
        let claims = self.by_port.entry(port).or_insert_with(new);
        if claim.listening {
            claims.listening.push(id);
        }
        claims.all.insert(id, claim);
    }

    /// Would `claim` of socket `id` be refused?
    fn is_taken(&self, port: u16, id: u64, claim: &Claim<T>) -> bool {
        let others = self.claims(port).filter(|(other, _)| **other != id);
        others.into_iter().any(|(_, other)| claim.conflicts(other, self.listens))
    }

    fn claims(&self, port: u16) -> impl Iterator<Item = (&u64, &Claim<T>)> {
        self.by_port.get(&port).into_iter().flat_map(|claims| &claims.all)
    }

    /// Where search `n` starts: in an order that nobody outside can guess, but none twice before all have been.
    /// A port that has just been used is still remembered by whoever was at the other end, who may take another
    /// connection from it for the old one.
    fn scattered(&self, n: u64, count: u64) -> u64 {
        let (turn, mut at) = (n / count, n % count);
        // A permutation of 16 bits (Feistel), walked until it is in the range; it is a cycle, so this ends.
        loop {
            let (mut left, mut right) = ((at >> 8) as u8, at as u8);
            for round in 0..4_u8 {
                let mixed = left ^ self.salt.hash_one((turn, round, right)) as u8;
                (left, right) = (right, mixed);
            }
            at = u64::from(left) << 8 | u64::from(right);
            if at < count {
                return at;
            }
        }
    }

    /// As [`claim`](Self::claim), on a port that is free; `usable` has the last word. `EADDRINUSE` when there
    /// is none.
    pub(super) fn claim_any(
        &mut self,
        id: u64,
        claim: Claim<T>,
        usable: impl Fn(u16) -> bool,
    ) -> Result<u16> {
        let (first, last) = (*EPHEMERAL.start(), *EPHEMERAL.end());
        let count = u64::from(last - first) + 1;
        self.searches += 1;
        let start = self.scattered(self.searches, count);
        for n in 0..count {
            // Within the range, so it fits.
            let port = first + ((start + n) % count) as u16;
            let free = match self.by_port.get(&port) {
                None => true,
                // As on Linux, who takes any port shares none but for different destinations.
                Some(others) => claim.connected && others.all.values().all(|other| other.connected),
            };
            if free && usable(port) {
                self.add(port, id, claim);
                return Ok(port);
            }
        }
        Err(Errno::EADDRINUSE)
    }

    /// Changes the claim of socket `id`.
    pub(super) fn change(&mut self, port: u16, id: u64, change: impl FnOnce(&mut Claim<T>)) {
        let Some(claims) = self.by_port.get_mut(&port) else { return };
        let Some(claim) = claims.all.get_mut(&id) else { return };
        change(claim);
        let listening = claim.listening;
        claims.listening.retain(|listener| *listener != id);
        if listening {
            claims.listening.push(id);
        }
    }

    /// The claim of socket `id` starts to listen; `EADDRINUSE` when another's does already.
    pub(super) fn listen(&mut self, port: u16, id: u64) -> Result<()> {
        let claim = self.by_port.get(&port).and_then(|claims| claims.all.get(&id)).ok_or(Errno::EINVAL)?;
        if self.is_taken(port, id, &Claim { listening: true, ..claim.clone() }) {
            return Err(Errno::EADDRINUSE);
        }
        self.change(port, id, |claim| claim.listening = true);
        Ok(())
    }

    /// Gives the claim of socket `id` up.
    pub(super) fn release(&mut self, port: u16, id: u64) {
        if let Some(claims) = self.by_port.get_mut(&port) {
            claims.all.remove(&id);
            claims.listening.retain(|listener| *listener != id);
            if claims.all.is_empty() {
                self.by_port.remove(&port);
            }
        }
    }

    /// The listeners whose addresses fit `to` best, the oldest first.
    pub(super) fn listeners(&self, to: SocketAddr) -> Vec<(u64, Weak<T>)> {
        let claims = self.by_port.get(&to.port());
        let all = claims.into_iter().flat_map(|claims| {
            claims.listening.iter().filter_map(|id| claims.all.get(id).map(|claim| (*id, claim)))
        });
        let mut best = Vec::new();
        let mut degree = 0;
        for (id, claim) in all {
            let Some(fit) = claim.fit(to.ip()) else { continue };
            if fit > degree {
                best.clear();
                degree = fit;
            }
            if fit == degree {
                best.push((id, claim.socket.clone()));
            }
        }
        best.sort_unstable_by_key(|(id, _)| *id);
        best
    }

    /// Every claim that fits `to`, with how well, in the order they were made.
    pub(super) fn all(&self, to: SocketAddr) -> Vec<(u8, u64, Weak<T>)> {
        let mut all: Vec<_> = self
            .claims(to.port())
            .filter_map(|(id, claim)| Some((claim.fit(to.ip())?, *id, claim.socket.clone())))
            .collect();
        all.sort_unstable_by_key(|(_, id, _)| *id);
        all
    }

    /// All sockets there are, by age.
    pub(super) fn sockets(&self) -> Vec<Weak<T>> {
        let claims = self.by_port.values().flat_map(|claims| &claims.all);
        let mut all: Vec<_> = claims.filter(|(_, claim)| !claim.waiting).collect();
        all.sort_unstable_by_key(|(id, _)| **id);
        all.into_iter().map(|(_, claim)| claim.socket.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Weak;

    use super::{Claim, EPHEMERAL, Ports};
    use abi::Errno;

    fn claim(ip: &str) -> Claim<()> {
        let ip: IpAddr = ip.parse().expect("an address");
        Claim {
            ip,
            only: false,
            reuse: false,
            share: false,
            uid: 0,
            listening: false,
            waiting: false,
            connected: false,
            socket: Weak::new(),
        }
    }

    #[test]
    fn addresses_that_overlap_conflict() {
        let taken = |a: Claim<()>, b: Claim<()>| {
            let mut ports = Ports::new(true);
            ports.claim(80, 1, a).expect("free");
            ports.claim(80, 2, b).is_err()
        };
        assert!(taken(claim("0.0.0.0"), claim("127.0.0.1")) && taken(claim("::"), claim("127.0.0.1")));
        assert!(taken(claim("127.0.0.1"), claim("::")) && !taken(claim("127.0.0.1"), claim("127.0.0.2")));
        let only = || Claim { only: true, ..claim("::") };
        assert!(!taken(only(), claim("0.0.0.0")) && taken(only(), claim("::1")));
        assert!(!taken(claim("::1"), claim("0.0.0.0")));
    }

    #[test]
    fn reuse_wants_both_and_no_listener() {
        let reuse = |listening| Claim { reuse: true, listening, ..claim("0.0.0.0") };
        let mut ports = Ports::new(true);
        ports.claim(80, 1, reuse(false)).expect("free");
        assert_eq!(ports.claim(80, 2, claim("0.0.0.0")), Err(Errno::EADDRINUSE));
        ports.claim(80, 2, reuse(false)).expect("both reuse");
        ports.listen(80, 1).expect("nobody listens");
        assert_eq!(ports.listen(80, 2), Err(Errno::EADDRINUSE));
        assert_eq!(ports.claim(80, 3, reuse(false)), Err(Errno::EADDRINUSE));
        let share = |uid| Claim { share: true, uid, listening: true, ..claim("0.0.0.0") };
        let mut ports = Ports::new(true);
        ports.claim(80, 1, share(5)).expect("free");
        ports.claim(80, 2, share(5)).expect("one user's");
        assert_eq!(ports.claim(80, 3, share(6)), Err(Errno::EADDRINUSE));
    }

    #[test]
    fn a_port_comes_again_only_when_all_have_been() {
        let ports = Ports::<()>::new(true);
        let count = EPHEMERAL.count() as u64;
        let all: std::collections::HashSet<_> = (0..count).map(|n| ports.scattered(n, count)).collect();
        assert_eq!(all.len() as u64, count);
        assert!((0..100).any(|n| ports.scattered(n + 1, count) != ports.scattered(n, count) + 1));
    }

    #[test]
    fn any_port_is_one_of_the_range_until_there_is_none() {
        let mut ports = Ports::new(true);
        let count = EPHEMERAL.count() as u64;
        for id in 0..count {
            let port = ports.claim_any(id, claim("0.0.0.0"), |_| true).expect("one is free");
            assert!(EPHEMERAL.contains(&port));
        }
        assert_eq!(ports.claim_any(count, claim("::1"), |_| true), Err(Errno::EADDRINUSE));
    }
}
