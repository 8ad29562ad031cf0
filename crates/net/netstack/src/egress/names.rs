//! What addresses names have, as those who are believed have told in answer to questions of ours.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::Ends;
use super::dns::{Answer, Record};

/// Most questions that are awaited.
const MAX_ASKED: usize = 1024;
/// Most addresses of names that are remembered, and most names of one address.
const MAX_KNOWN: usize = 16_384;
const MAX_NAMES: usize = 32;
/// How long an address is believed at least, and at most: programs keep addresses for longer than they are told to.
const LEAST_TIME: Duration = Duration::from_secs(300);
const MOST_TIME: Duration = Duration::from_secs(86_400);

/// A question: who was asked from where, and with which number.
type Question = (Ends, u16);

/// All of it.
#[derive(Default)]
pub(super) struct Names {
    asked: HashMap<Question, String>,
    asked_order: VecDeque<Question>,
    known: HashMap<IpAddr, Vec<(String, Duration)>>,
    known_order: VecDeque<IpAddr>,
}

impl Names {
    /// The names that `ip` has.
    pub(super) fn of(&self, ip: IpAddr, now: Duration) -> impl Iterator<Item = &str> {
        let names = self.known.get(&ip).into_iter().flatten();
        names.filter(move |(_, until)| *until > now).map(|(name, _)| name.as_str())
    }

    /// A question is on its way.
    pub(super) fn asked(&mut self, ends: Ends, id: u16, name: String) {
        if self.asked.insert((ends, id), name).is_none() {
            self.asked_order.push_back((ends, id));
        }
        if self.asked_order.len() > MAX_ASKED
            && let Some(oldest) = self.asked_order.pop_front()
        {
            self.asked.remove(&oldest);
        }
    }

    /// An answer has come: believed, once, if it is one to a question that was asked.
    pub(super) fn told(&mut self, ends: Ends, answer: &Answer, now: Duration) {
        let question = (ends, answer.id);
        if self.asked.get(&question) != Some(&answer.name) {
            return;
        }
        self.asked.remove(&question);
        self.asked_order.retain(|other| *other != question);
        let mut same = vec![answer.name.as_str()];
        for (owner, time, record) in &answer.records {
            if !same.contains(&owner.as_str()) {
                continue;
            }
            match record {
                Record::Alias(alias) => same.push(alias),
                Record::Address(ip) => {
                    let until = now + (*time).clamp(LEAST_TIME, MOST_TIME);
                    self.learn(*ip, &answer.name, until);
                }
            }
        }
    }

    fn learn(&mut self, ip: IpAddr, name: &str, until: Duration) {
        if !self.known.contains_key(&ip) {
            if self.known_order.len() >= MAX_KNOWN
                && let Some(oldest) = self.known_order.pop_front()
            {
                self.known.remove(&oldest);
            }
            self.known_order.push_back(ip);
        }
        let names = self.known.entry(ip).or_default();
        names.retain(|(known, _)| known != name);
        if names.len() >= MAX_NAMES {
            names.remove(0);
        }
        names.push((name.to_owned(), until));
    }
}

#[cfg(test)]
mod tests {
    use super::super::dns::{Answer, Record};
    use super::{MAX_ASKED, MAX_KNOWN, MAX_NAMES, Names};
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};
    use std::time::Duration;

    #[test]
    fn there_are_not_more_than_so_many() {
        let mut names = Names::default();
        let end = |n: u32| SocketAddr::new(IpAddr::V4(Ipv4Addr::from(n)), 53);
        for n in 0..2 * MAX_ASKED as u32 {
            names.asked((end(n), end(1)), 1, "a".into());
        }
        assert_eq!((names.asked.len(), names.asked_order.len()), (MAX_ASKED, MAX_ASKED));
        for n in 0..2 * MAX_KNOWN as u32 {
            names.learn(end(n).ip(), "a", Duration::MAX);
        }
        for n in 0..2 * MAX_NAMES {
            names.learn(end(u32::MAX).ip(), &n.to_string(), Duration::MAX);
        }
        assert_eq!((names.known.len(), names.known_order.len()), (MAX_KNOWN, MAX_KNOWN));
        assert_eq!(names.of(end(u32::MAX).ip(), Duration::ZERO).count(), MAX_NAMES);
    }

    #[test]
    fn only_what_the_name_leads_to_is_learned() {
        let mut names = Names::default();
        let end = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53);
        let ip = |n: u8| IpAddr::V4(Ipv4Addr::new(192, 0, 2, n));
        names.asked((end, end), 1, "a".into());
        let time = Duration::from_secs(1);
        let records = vec![
            ("other".into(), time, Record::Address(ip(1))),
            ("a".into(), time, Record::Alias("b".into())),
            ("b".into(), time, Record::Address(ip(2))),
        ];
        names.told((end, end), &Answer { id: 1, name: "a".into(), records }, time);
        assert_eq!(names.of(ip(1), time).count(), 0);
        assert_eq!(names.of(ip(2), time).collect::<Vec<_>>(), ["a"]);
    }
}
