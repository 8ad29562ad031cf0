//! How large packets may be on the way to somebody (RFC 1191, RFC 8201), as routers have told.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

/// How long it is believed; then larger ones are tried again.
const TIME: Duration = Duration::from_secs(600);
/// Most ways that are remembered.
const MAX_PATHS: usize = 1024;
/// The smallest that anybody may ask for.
const LEAST4: usize = 576;
const LEAST6: usize = 1280;
/// Sizes that links have, largest first. TCP goes by the next smaller one.
pub(crate) const STEPS: [usize; 7] = [1492, 1472, 1440, 1400, 1280, 1006, 576];

/// The narrow ways.
#[derive(Default)]
pub(crate) struct Paths {
    known: HashMap<IpAddr, (usize, Duration)>,
    order: VecDeque<(Duration, IpAddr)>,
}

impl Paths {
    /// Bytes of the largest packet to `ip`, when less than the link takes.
    pub(crate) fn mtu(&self, ip: IpAddr, now: Duration) -> usize {
        if self.known.is_empty() {
            return usize::MAX;
        }
        self.known.get(&ip).filter(|(_, until)| *until > now).map_or(usize::MAX, |(mtu, _)| *mtu)
    }

    /// A router has said that packets to `ip` may have `told` bytes; 0 from one that does not say.
    pub(crate) fn told(&mut self, ip: IpAddr, told: u32, link: usize, now: Duration) {
        let least = if ip.is_ipv4() { LEAST4 } else { LEAST6 };
        let mtu = match told as usize {
            0 => STEPS.into_iter().find(|step| *step < self.mtu(ip, now).min(link)).unwrap_or(least),
            told => told,
        };
        let mtu = mtu.max(least);
        // One that is told to send more than it may, or has, learns nothing.
        if mtu >= self.mtu(ip, now).min(link) {
            return;
        }
        let until = now + TIME;
        self.known.insert(ip, (mtu, until));
        self.order.push_back((until, ip));
        while let Some((until, ip)) = self.order.front().copied() {
            if until > now && self.order.len() <= MAX_PATHS {
                break;
            }
            self.order.pop_front();
            if self.known.get(&ip).is_some_and(|(_, known)| *known == until) {
                self.known.remove(&ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_PATHS, Paths, TIME};
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    #[test]
    fn what_is_told_is_believed_for_a_while() {
        let mut paths = Paths::default();
        let (ip, now) = (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), Duration::from_secs(1));
        paths.told(ip, 1600, 1500, now);
        assert_eq!(paths.mtu(ip, now), usize::MAX);
        for (told, known) in [(1450, 1450), (1480, 1450), (0, 1440), (3, 576), (0, 576)] {
            paths.told(ip, told, 1500, now);
            assert_eq!(paths.mtu(ip, now), known, "{told}");
        }
        assert_eq!(paths.mtu(ip, now + TIME), usize::MAX);
        let six = IpAddr::V6(Ipv6Addr::LOCALHOST);
        paths.told(six, 600, 1500, now);
        assert_eq!(paths.mtu(six, now), 1280);
        for n in 0..2 * MAX_PATHS as u32 {
            paths.told(IpAddr::V4(n.into()), 1000, 1500, now);
        }
        assert!(paths.known.len() <= MAX_PATHS && paths.order.len() <= MAX_PATHS);
    }
}
