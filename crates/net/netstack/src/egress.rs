//! Who may be reached from here: rules by address and port, the first that fits decides.
//!
//! A datagram that answers one which has come in is no flow of ours, and always goes.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::Prefix;

/// How long somebody who has sent a datagram may be answered, and how many of them are remembered.
const ANSWER_TIME: Duration = Duration::from_secs(120);
const MAX_ANSWERED: usize = 4096;

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What is so may be reached, or may not.
    pub allow: bool,
    /// Where to.
    pub to: Prefix,
    /// Which ports.
    pub ports: RangeInclusive<u16>,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// Nothing may be reached but what a rule allows.
    pub denies: bool,
    /// In order.
    pub rules: Vec<Rule>,
}

impl Egress {
    /// May `to` be reached?
    pub fn allows(&self, to: SocketAddr) -> bool {
        let ip = match to.ip() {
            // Written as the other it is the same.
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(to.ip(), IpAddr::V4),
            v4 => v4,
        };
        let fits = |rule: &&Rule| rule.to.contains(ip) && rule.ports.contains(&to.port());
        self.rules.iter().find(fits).map_or(!self.denies, |rule| rule.allow)
    }

    /// May all of `ip` be reached: is each port of it let go, whichever rule says so?
    pub(crate) fn allows_all(&self, ip: IpAddr) -> bool {
        let mut edges = vec![0, u16::MAX];
        for rule in &self.rules {
            edges.extend([*rule.ports.start(), rule.ports.end().saturating_add(1)]);
        }
        edges.into_iter().all(|port| self.allows(SocketAddr::new(ip, port)))
    }

    /// Is there anything that may not be reached?
    pub(crate) fn is_strict(&self) -> bool {
        self.denies || self.rules.iter().any(|rule| !rule.allow)
    }
}

/// Our end, and the other.
type Ends = (SocketAddr, SocketAddr);

/// Those who may be answered.
#[derive(Default)]
pub(crate) struct Answerable {
    until: HashMap<Ends, Duration>,
    order: VecDeque<(Duration, Ends)>,
}

impl Answerable {
    /// One of them has sent a datagram.
    pub(crate) fn heard(&mut self, ends: Ends, now: Duration) {
        let until = now + ANSWER_TIME;
        // Once a second is often enough.
        if self.until.get(&ends).is_some_and(|known| *known + Duration::from_secs(1) > until) {
            return;
        }
        self.until.insert(ends, until);
        self.order.push_back((until, ends));
        while let Some((until, ends)) = self.order.front().copied() {
            if until > now && self.order.len() <= MAX_ANSWERED {
                break;
            }
            self.order.pop_front();
            if self.until.get(&ends) == Some(&until) {
                self.until.remove(&ends);
            }
        }
    }

    /// May this one be answered?
    pub(crate) fn has(&self, ends: Ends, now: Duration) -> bool {
        self.until.get(&ends).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::{ANSWER_TIME, Answerable, Egress, MAX_ANSWERED, Rule};
    use crate::config::Prefix;
    use std::net::SocketAddr;
    use std::time::Duration;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rule = |allow, ip: &str, bits, ports| Rule {
            allow,
            to: Prefix { ip: ip.parse().expect("an address"), bits },
            ports,
        };
        let rules = vec![
            rule(false, "10.0.0.9", 32, 0..=u16::MAX),
            rule(true, "10.0.0.0", 8, 443..=443),
            rule(true, "fd00::", 16, 0..=u16::MAX),
        ];
        let egress = Egress { denies: true, rules };
        for (to, allowed) in [
            ("10.0.0.9:443", false),
            ("10.1.2.3:443", true),
            ("10.1.2.3:80", false),
            ("[::ffff:10.1.2.3]:443", true),
            ("[fd00::1]:1", true),
            ("[2001:db8::1]:443", false),
        ] {
            assert_eq!(egress.allows(at(to)), allowed, "{to}");
        }
        assert!(Egress::default().allows(at("192.0.2.1:1")) && !Egress::default().is_strict());
    }

    #[test]
    fn who_has_asked_is_answered_for_a_while() {
        let mut all = Answerable::default();
        let ends = (at("10.0.0.2:53"), at("10.0.0.1:9"));
        let now = Duration::from_secs(5);
        assert!(!all.has(ends, now));
        all.heard(ends, now);
        assert!(all.has(ends, now) && !all.has((ends.1, ends.0), now) && !all.has(ends, now + ANSWER_TIME));
        for port in 0..u16::MAX {
            all.heard((ends.0, SocketAddr::new(ends.1.ip(), port)), now);
        }
        assert!(all.until.len() <= MAX_ANSWERED && all.order.len() <= MAX_ANSWERED);
    }
}
