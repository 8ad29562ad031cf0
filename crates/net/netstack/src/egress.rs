//! Who may be reached from here: rules by address or name, and port; the first that fits decides.
//!
//! A datagram that answers one which has come in is no flow of ours, and always goes. - `names`: what addresses names have,
//! as the resolvers that are believed have told. - `dns`: their messages.

mod dns;
mod names;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::Prefix;
use names::Names;

/// How long somebody who has sent a datagram may be answered, and how many of them are remembered.
const ANSWER_TIME: Duration = Duration::from_secs(120);
const MAX_ANSWERED: usize = 4096;
/// The port of resolvers.
const DNS: u16 = 53;

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What is so may be reached, or may not.
    pub allow: bool,
    /// Where to.
    pub to: Target,
    /// Which ports.
    pub ports: RangeInclusive<u16>,
}

/// What a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The addresses of a network.
    Network(Prefix),
    /// Those that a name has: in small letters, without a dot at the end.
    Name(String),
    /// Those of every name below one.
    Below(String),
}

impl Target {
    /// Is it about the name `name`?
    fn covers(&self, name: &str) -> bool {
        match self {
            Self::Network(_) => false,
            Self::Name(own) => own == name,
            Self::Below(own) => name.strip_suffix(own.as_str()).is_some_and(|rest| rest.ends_with('.')),
        }
    }
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// Nothing may be reached but what a rule allows.
    pub denies: bool,
    /// In order.
    pub rules: Vec<Rule>,
    /// Who is believed about the addresses of names, and may be asked by UDP for those that a rule allows.
    pub resolvers: Vec<IpAddr>,
}

/// Written as IPv6 it is the same.
fn plain(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        v4 => v4,
    }
}

/// The rules at work.
pub(crate) struct Policy {
    egress: Egress,
    names: Names,
    answerable: Answerable,
}

impl Policy {
    pub(crate) fn new(egress: Egress) -> Self {
        Self { egress, names: Names::default(), answerable: Answerable::default() }
    }

    /// Other rules, with what is known of names.
    pub(crate) fn replace(&mut self, egress: Egress) {
        self.egress = egress;
    }

    /// Is there anything that may not be reached?
    pub(crate) fn is_strict(&self) -> bool {
        self.egress.denies || self.egress.rules.iter().any(|rule| !rule.allow)
    }

    /// May `to` be reached?
    pub(crate) fn allows(&self, to: SocketAddr, now: Duration) -> bool {
        let ip = plain(to.ip());
        let fits = |rule: &&Rule| {
            let there = match &rule.to {
                Target::Network(network) => network.contains(ip),
                name => self.names.of(ip, now).any(|known| name.covers(known)),
            };
            there && rule.ports.contains(&to.port())
        };
        self.egress.rules.iter().find(fits).map_or(!self.egress.denies, |rule| rule.allow)
    }

    /// May all of `ip` be reached: is each port of it let go, whichever rule says so?
    pub(crate) fn allows_all(&self, ip: IpAddr, now: Duration) -> bool {
        let mut edges = vec![0, u16::MAX];
        for rule in &self.egress.rules {
            edges.extend([*rule.ports.start(), rule.ports.end().saturating_add(1)]);
        }
        edges.into_iter().all(|port| self.allows(SocketAddr::new(ip, port), now))
    }

    /// May this datagram go from here (`ends.0`) to there? If it asks a resolver for a name, the answer is awaited.
    pub(crate) fn sends(&mut self, ends: Ends, data: &[u8], now: Duration) -> bool {
        let asked = self.is_resolver(ends.1).then(|| dns::query(data)).flatten();
        let wanted = asked.is_some_and(|(id, name)| {
            let wanted = self.egress.rules.iter().any(|rule| rule.allow && rule.to.covers(&name));
            self.names.asked(ends, id, name);
            wanted
        });
        wanted || self.allows(ends.1, now) || self.answerable.has(ends, now)
    }

    /// A datagram has come from there (`ends.1`) to one of our addresses.
    pub(crate) fn hears(&mut self, ends: Ends, data: &[u8], now: Duration) {
        if self.is_resolver(ends.1)
            && let Some(answer) = dns::answer(data)
        {
            self.names.told(ends, &answer, now);
        }
        if self.is_strict() {
            self.answerable.heard(ends, now);
        }
    }

    fn is_resolver(&self, to: SocketAddr) -> bool {
        to.port() == DNS && self.egress.resolvers.contains(&plain(to.ip()))
    }
}

/// Our end, and the other.
pub(crate) type Ends = (SocketAddr, SocketAddr);

/// Those who may be answered.
#[derive(Default)]
struct Answerable {
    until: HashMap<Ends, Duration>,
    order: VecDeque<(Duration, Ends)>,
}

impl Answerable {
    /// One of them has sent a datagram.
    fn heard(&mut self, ends: Ends, now: Duration) {
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
    fn has(&self, ends: Ends, now: Duration) -> bool {
        self.until.get(&ends).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::{ANSWER_TIME, Answerable, Egress, MAX_ANSWERED, Policy, Rule, Target};
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
            to: Target::Network(Prefix { ip: ip.parse().expect("an address"), bits }),
            ports,
        };
        let rules = vec![
            rule(false, "10.0.0.9", 32, 0..=u16::MAX),
            rule(true, "10.0.0.0", 8, 443..=443),
            rule(true, "fd00::", 16, 0..=u16::MAX),
        ];
        let policy = Policy::new(Egress { denies: true, rules, resolvers: Vec::new() });
        for (to, allowed) in [
            ("10.0.0.9:443", false),
            ("10.1.2.3:443", true),
            ("10.1.2.3:80", false),
            ("[::ffff:10.1.2.3]:443", true),
            ("[fd00::1]:1", true),
            ("[2001:db8::1]:443", false),
        ] {
            assert_eq!(policy.allows(at(to), Duration::ZERO), allowed, "{to}");
        }
        let free = Policy::new(Egress::default());
        assert!(free.allows(at("192.0.2.1:1"), Duration::ZERO) && !free.is_strict());
        assert!(!policy.allows_all(at("10.1.2.3:0").ip(), Duration::ZERO));
        assert!(policy.allows_all(at("[fd00::1]:0").ip(), Duration::ZERO));
    }

    #[test]
    fn names_are_learned_from_who_is_believed() {
        let rule = |to| Rule { allow: true, to, ports: 443..=443 };
        let rules = vec![rule(Target::Name("a.test".into())), rule(Target::Below("b.test".into()))];
        let resolver = at("10.0.0.53:53");
        let mut policy = Policy::new(Egress { denies: true, rules, resolvers: vec![resolver.ip()] });
        let (own, now) = (at("10.0.0.2:4000"), Duration::from_secs(1));
        let web = at("192.0.2.7:443");
        // A name that no rule allows is not asked for, nor is anybody else, nor is the resolver told other things.
        assert!(!policy.sends((own, resolver), &super::dns::tests::query(7, "c.test"), now));
        assert!(!policy.sends((own, at("10.0.0.54:53")), &super::dns::tests::query(7, "a.test"), now));
        assert!(!policy.sends((own, resolver), b"something else", now));
        assert!(policy.sends((own, resolver), &super::dns::tests::query(7, "A.test"), now));
        // What was not asked, of somebody else or with another number, is not believed.
        let answer = |id, name| super::dns::tests::answer(id, name, [192, 0, 2, 7], 60);
        policy.hears((own, at("10.0.0.54:53")), &answer(7, "a.test"), now);
        policy.hears((own, resolver), &answer(8, "a.test"), now);
        policy.hears((own, resolver), &answer(7, "x.b.test"), now);
        assert!(!policy.allows(web, now));
        policy.hears((own, resolver), &answer(7, "a.test"), now);
        assert!(policy.allows(web, now) && !policy.allows(at("192.0.2.7:80"), now));
        assert!(!policy.allows(web, now + Duration::from_secs(86_401)));
        // An answer is believed once.
        policy.hears((own, resolver), &super::dns::tests::answer(7, "a.test", [192, 0, 2, 8], 60), now);
        assert!(!policy.allows(at("192.0.2.8:443"), now));
        assert!(policy.sends((own, resolver), &super::dns::tests::query(9, "x.b.test"), now));
        policy.hears((own, resolver), &super::dns::tests::answer(9, "x.b.test", [192, 0, 2, 8], 60), now);
        assert!(policy.allows(at("192.0.2.8:443"), now));
        policy.replace(Egress { denies: true, ..Egress::default() });
        assert!(!policy.allows(web, now));
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
