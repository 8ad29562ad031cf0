//! Who is on the link: Ethernet addresses by IP address (RFC 826, RFC 4861), and the packets that wait for one.
//!
//! Times are durations since the start of the stack's clock. Deliberately absent: states beyond what decides
//! whether to ask (`STALE`, `DELAY` and `PROBE` are one).

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use crate::config::Neighbor;
use crate::packet::Outgoing;

/// An Ethernet address.
pub(crate) type Mac = [u8; 6];

/// How long somebody is believed to be where they were.
const FRESH: Duration = Duration::from_secs(60);
/// Between two questions, and how many are asked.
const PAUSE: Duration = Duration::from_secs(1);
const TRIES: u8 = 3;
/// Most neighbours that are remembered, packets that wait for one, and for all of them.
const MAX_NEIGHBORS: usize = 1024;
const MAX_WAITING: usize = 64;
const MAX_WAITING_BYTES: usize = 4 << 20;

enum Entry {
    /// Asked for.
    Asked { waiting: VecDeque<Outgoing>, tries: u8, again: Duration },
    /// Known; `tries` questions have gone unanswered since `until` has passed. Without it, for ever.
    Known { mac: Mac, until: Option<Duration>, tries: u8, again: Duration },
}

/// What is to be done with a packet.
pub(crate) enum Way {
    /// Send it there.
    To(Mac, Outgoing),
    /// It is kept.
    Kept,
}

/// A question that is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// Who.
    pub(crate) ip: IpAddr,
    /// Where they were last.
    pub(crate) last: Option<Mac>,
}

/// The neighbours on one link.
pub(crate) struct Neighbors {
    entries: HashMap<IpAddr, Entry>,
    /// Bytes that wait.
    bytes: usize,
    /// When the next question is due.
    due: Option<Duration>,
}

impl Neighbors {
    pub(crate) fn new(known: impl IntoIterator<Item = Neighbor>) -> Self {
        let forever = |neighbor: Neighbor| {
            let entry = Entry::Known { mac: neighbor.mac, until: None, tries: 0, again: Duration::ZERO };
            (neighbor.ip, entry)
        };
        let entries = known.into_iter().take(MAX_NEIGHBORS).map(forever).collect();
        Self { entries, bytes: 0, due: None }
    }

    fn expect(&mut self, at: Duration) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Where a packet to `ip` goes. Who is not known is asked for, as soon as [`poll`](Self::poll) is called.
    pub(crate) fn way(&mut self, ip: IpAddr, out: Outgoing, now: Duration) -> Way {
        match self.entries.get_mut(&ip) {
            Some(Entry::Known { mac, until, again, .. }) => {
                let (mac, stale) = (*mac, until.is_some_and(|until| until <= now));
                if stale {
                    let at = *again;
                    self.expect(at.max(now));
                }
                return Way::To(mac, out);
            }
            Some(Entry::Asked { waiting, .. }) => {
                if waiting.len() < MAX_WAITING && self.bytes < MAX_WAITING_BYTES {
                    self.bytes += out.bytes.len();
                    waiting.push_back(out);
                }
                return Way::Kept;
            }
            None => {}
        }
        self.make_room();
        self.bytes += out.bytes.len();
        let waiting = VecDeque::from([out]);
        self.entries.insert(ip, Entry::Asked { waiting, tries: 0, again: now });
        self.expect(now);
        Way::Kept
    }

    /// `ip` has said that it is at `mac`: returns what has waited for that. Who has not been asked for is
    /// remembered only when `wanted`.
    pub(crate) fn heard(&mut self, ip: IpAddr, mac: Mac, wanted: bool, now: Duration) -> Vec<Outgoing> {
        let fresh = Entry::Known { mac, until: Some(now + FRESH), tries: 0, again: now };
        match self.entries.get_mut(&ip) {
            Some(Entry::Known { until: None, .. }) => Vec::new(),
            Some(entry) => {
                let waiting = match std::mem::replace(entry, fresh) {
                    Entry::Asked { waiting, .. } => waiting,
                    Entry::Known { .. } => VecDeque::new(),
                };
                self.bytes -= waiting.iter().map(|out| out.bytes.len()).sum::<usize>().min(self.bytes);
                waiting.into()
            }
            None if wanted => {
                self.make_room();
                self.entries.insert(ip, fresh);
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    /// A connection with `ip` goes on: it is still there.
    pub(crate) fn confirm(&mut self, ip: IpAddr, mac: Mac, now: Duration) {
        if let Some(Entry::Known { mac: known, until: Some(until), tries, .. }) = self.entries.get_mut(&ip)
            && *known == mac
        {
            (*until, *tries) = (now + FRESH, 0);
        }
    }

    /// Forgets somebody, if there are very many: whoever has not answered, else anybody.
    fn make_room(&mut self) {
        if self.entries.len() < MAX_NEIGHBORS {
            return;
        }
        let silent = |entry: &Entry| matches!(entry, Entry::Asked { .. });
        let passing = |entry: &Entry| matches!(entry, Entry::Known { until: Some(_), .. });
        let all = || self.entries.iter();
        let found =
            all().find(|(_, entry)| silent(entry)).or_else(|| all().find(|(_, entry)| passing(entry)));
        let Some(ip) = found.map(|(ip, _)| *ip) else { return };
        if let Some(Entry::Asked { waiting, .. }) = self.entries.remove(&ip) {
            self.bytes -= waiting.iter().map(|out| out.bytes.len()).sum::<usize>().min(self.bytes);
        }
    }

    /// When [`poll`](Self::poll) has something to do.
    pub(crate) fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Questions that are due, and packets to those who have not answered.
    pub(crate) fn poll(&mut self, now: Duration) -> (Vec<Question>, Vec<Outgoing>) {
        let (mut questions, mut lost) = (Vec::new(), Vec::new());
        if self.due.is_none_or(|due| due > now) {
            return (questions, lost);
        }
        let mut next: Option<Duration> = None;
        self.entries.retain(|ip, entry| {
            let (last, tries, again) = match entry {
                Entry::Asked { tries, again, .. } => (None, tries, again),
                Entry::Known { mac, until: Some(until), tries, again } if *until <= now => {
                    (Some(*mac), tries, again)
                }
                Entry::Known { .. } => return true,
            };
            if *again <= now {
                if *tries == TRIES {
                    if let Entry::Asked { waiting, .. } = entry {
                        self.bytes -=
                            waiting.iter().map(|out| out.bytes.len()).sum::<usize>().min(self.bytes);
                        lost.extend(waiting.drain(..));
                    }
                    return false;
                }
                *tries += 1;
                *again = now + PAUSE;
                questions.push(Question { ip: *ip, last });
            }
            next = Some(next.map_or(*again, |next| next.min(*again)));
            true
        });
        self.due = next;
        (questions, lost)
    }

    /// Those that are known.
    pub(crate) fn known(&self) -> impl Iterator<Item = (IpAddr, Mac, bool)> {
        self.entries.iter().filter_map(|(ip, entry)| match entry {
            Entry::Known { mac, until, .. } => Some((*ip, *mac, until.is_none())),
            Entry::Asked { .. } => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_NEIGHBORS, MAX_WAITING, Neighbors, Question, Way};
    use crate::packet::Outgoing;
    use crate::vnet::VnetHeader;
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    fn out() -> Outgoing {
        Outgoing { bytes: vec![0; 100], vnet: VnetHeader::default() }
    }

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn packets_wait_for_an_answer() {
        let mut all = Neighbors::new([]);
        let zero = Duration::ZERO;
        for _ in 0..2 * MAX_WAITING {
            assert!(matches!(all.way(A, out(), zero), Way::Kept));
        }
        assert_eq!(all.poll(zero).0, [Question { ip: A, last: None }]);
        assert_eq!((all.poll(zero).0.len(), all.due()), (0, Some(SECOND)));
        assert_eq!(all.heard(A, [1; 6], false, SECOND).len(), MAX_WAITING);
        assert!(matches!(all.way(A, out(), SECOND), Way::To([1, 1, 1, 1, 1, 1], _)) && all.bytes == 0);
        // Who was heard of long ago is asked again, and used meanwhile.
        let late = Duration::from_secs(100);
        assert!(matches!(all.way(A, out(), late), Way::To(..)));
        assert_eq!(all.poll(late).0, [Question { ip: A, last: Some([1; 6]) }]);
        all.confirm(A, [1; 6], late);
        assert_eq!(all.poll(late + SECOND).0, []);
        assert_eq!(all.due(), None);
    }

    #[test]
    fn who_does_not_answer_is_given_up() {
        let mut all = Neighbors::new([]);
        let _ = all.way(A, out(), Duration::ZERO);
        for n in 0..3 {
            assert_eq!(all.poll(SECOND * n).0.len(), 1);
        }
        let (questions, lost) = all.poll(SECOND * 3);
        assert_eq!((questions.len(), lost.len(), all.due(), all.bytes), (0, 1, None, 0));
    }

    #[test]
    fn there_are_not_more_than_so_many() {
        let mut all = Neighbors::new([]);
        for n in 0..4 * MAX_NEIGHBORS as u32 {
            let _ = all.way(IpAddr::V4(n.into()), out(), Duration::ZERO);
        }
        assert!(all.entries.len() <= MAX_NEIGHBORS && all.bytes <= MAX_NEIGHBORS * 100);
    }
}
