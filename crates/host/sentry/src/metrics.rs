//! What was counted, as `runsc` shows it: everything in [`obs`], and what there is of processes and traffic.

use control::metrics::{Family, Kind};
use kernel::Kernel;
use netstack::Counters;
use obs::Reading;
use socket::inet::Network;

/// All of it, as it stands.
pub(crate) fn gather(kernel: &Kernel, network: &Network) -> Vec<Family> {
    let (counted, stubs): (Vec<_>, Vec<_>) =
        obs::snapshot().into_iter().partition(|reading| !matches!(reading, Reading::Stub { .. }));
    let mut families: Vec<Family> = counted.into_iter().filter_map(counted_family).collect();
    families.push(unimplemented(&stubs));
    let processes = kernel.processes().len() as u64;
    families.push(Family::single("processes", "Processes of guests", Kind::Gauge, processes));
    let tasks = u64::try_from(kernel.live_tasks()).unwrap_or(0);
    families.push(Family::single("tasks", "Threads of guests", Kind::Gauge, tasks));
    families.extend(traffic(&network.traffic()));
    let denied = "Connections and datagrams that were not let out";
    families.push(Family::single("network_denied", denied, Kind::Counter, network.denied()));
    families
}

/// A counter or a tally.
fn counted_family(reading: Reading) -> Option<Family> {
    // In the registry names are paths.
    let name = |name: &str| name.replace('.', "_");
    Some(match reading {
        Reading::Counter { name: path, help, value } => {
            Family::single(&name(path), help, Kind::Counter, value)
        }
        Reading::Tally { name: path, help, label, counts } => {
            labelled(&name(path), help, label, counts.into_iter().map(|(kind, count)| (kind.into(), count)))
        }
        Reading::Stub { .. } => return None,
    })
}

/// All stubs are one family.
fn unimplemented(stubs: &[Reading]) -> Family {
    let samples = stubs.iter().filter_map(|stub| match stub {
        Reading::Stub { name, hits, .. } => Some(((*name).to_owned(), *hits)),
        _ => None,
    });
    labelled("unimplemented", "Times that a guest asked for what is not implemented", "what", samples)
}

fn traffic(interfaces: &[(String, Counters)]) -> Vec<Family> {
    type Pick = fn(&Counters) -> u64;
    let families: [(&str, &str, Pick); 6] = [
        ("network_receive_packets", "Frames received", |counters| counters.received.0),
        ("network_receive_bytes", "Bytes received", |counters| counters.received.1),
        ("network_receive_errors", "Frames received that made no sense", |counters| counters.bad),
        ("network_transmit_packets", "Frames sent", |counters| counters.sent.0),
        ("network_transmit_bytes", "Bytes sent", |counters| counters.sent.1),
        ("network_drops", "Frames that found no room", |counters| counters.dropped),
    ];
    let of = |pick: Pick| interfaces.iter().map(move |(name, counters)| (name.clone(), pick(counters)));
    families.into_iter().map(|(name, help, pick)| labelled(name, help, "interface", of(pick))).collect()
}

fn labelled(name: &str, help: &str, label: &str, samples: impl Iterator<Item = (String, u64)>) -> Family {
    let (name, help, label) = (name.to_owned(), help.to_owned(), Some(label.to_owned()));
    Family { name, help, kind: Kind::Counter, label, samples: samples.collect() }
}

#[cfg(test)]
mod tests {
    use obs::{Counter, Reading};

    use super::{counted_family, traffic, unimplemented};

    #[test]
    fn every_family_can_be_shown() {
        static READ: Counter = Counter::new("sentry.test.read", "readings");
        READ.increment();
        let families: Vec<_> = obs::snapshot().into_iter().filter_map(counted_family).collect();
        assert!(families.iter().any(|family| family.name == "sentry_test_read"));
        let stubs = [Reading::Stub { name: "ioctl.X", reason: "a test", hits: 2 }];
        assert_eq!(unimplemented(&stubs).samples, [("ioctl.X".to_owned(), 2)]);
        let one = [("eth0".to_owned(), netstack::Counters { received: (1, 60), ..Default::default() })];
        for family in families.iter().chain(&traffic(&one)).chain([&unimplemented(&[])]) {
            assert!(family.check(), "{family:?}");
        }
    }
}
