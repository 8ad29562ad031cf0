//! What messages of ICMP mean to the sockets whose packets they are about.

use abi::Errno;
use netstack::Report;

/// What a socket is told, and whether also one that has not asked to hear of everything (`IP_RECVERR`): errors that may
/// pass by themselves are for those who have. `None` for messages that mean nothing.
pub(super) fn meaning(report: &Report) -> Option<(Errno, bool)> {
    if report.from.is_ipv4() {
        meaning4(report.kind, report.code)
    } else {
        meaning6(report.kind, report.code)
    }
}

fn meaning4(kind: u8, code: u8) -> Option<(Errno, bool)> {
    Some(match (kind, code) {
        (3, 0 | 11) => (Errno::ENETUNREACH, false),
        (3, 1 | 12) => (Errno::EHOSTUNREACH, false),
        (3, 2) => (Errno::ENOPROTOOPT, true),
        (3, 3) => (Errno::ECONNREFUSED, true),
        (3, 4) => (Errno::EMSGSIZE, false),
        (3, 5) => (Errno::EOPNOTSUPP, false),
        (3, 6 | 9) => (Errno::ENETUNREACH, true),
        (3, 7) => (Errno::EHOSTDOWN, true),
        (3, 8) => (Errno::ENONET, true),
        (3, 10 | 13..=15) => (Errno::EHOSTUNREACH, true),
        (11, _) => (Errno::EHOSTUNREACH, false),
        (12, _) => (Errno::EPROTO, true),
        _ => return None,
    })
}

fn meaning6(kind: u8, code: u8) -> Option<(Errno, bool)> {
    Some(match (kind, code) {
        (1, 0) => (Errno::ENETUNREACH, false),
        (1, 2 | 3) => (Errno::EHOSTUNREACH, false),
        (1, 1 | 5 | 6) => (Errno::EACCES, true),
        (1, 4) => (Errno::ECONNREFUSED, true),
        (2, _) => (Errno::EMSGSIZE, false),
        (3, _) => (Errno::EHOSTUNREACH, false),
        (4, _) => (Errno::EPROTO, true),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::meaning;
    use abi::Errno;
    use netstack::Report;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn families_have_codes_of_their_own() {
        let four = |kind, code| meaning(&Report { from: Ipv4Addr::LOCALHOST.into(), kind, code, info: 0 });
        let six = |kind, code| meaning(&Report { from: Ipv6Addr::LOCALHOST.into(), kind, code, info: 0 });
        assert_eq!(four(3, 3), Some((Errno::ECONNREFUSED, true)));
        assert_eq!(four(11, 0), Some((Errno::EHOSTUNREACH, false)));
        assert_eq!((four(3, 16), six(1, 7)), (None, None));
        assert_eq!(six(1, 4), four(3, 3));
        assert_eq!(six(3, 3), four(11, 1));
    }
}
