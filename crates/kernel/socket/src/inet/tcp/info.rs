//! What TCP sockets tell of themselves: `TCP_INFO`, and the rows of `/proc/net/tcp` and `SOCK_DIAG`.

use std::time::Instant;

use zerocopy::{Immutable, IntoBytes};

use super::TcpSocket;
use super::state::Role;

/// `TCPI_OPT_TIMESTAMPS`, `TCPI_OPT_SACK`, `TCPI_OPT_WSCALE`.
const OPTIONS: u8 = 7;
/// Segment size of the loopback.
const MSS: u32 = 65_483;

/// `struct tcp_info` up to `tcpi_rcv_wnd`.
#[derive(Clone, Copy, Default, IntoBytes, Immutable)]
#[repr(C)]
struct Info {
    state: u8,
    ca_state: u8,
    retransmits: u8,
    probes: u8,
    backoff: u8,
    options: u8,
    scales: u8,
    limited: u8,
    rto: u32,
    ato: u32,
    send_mss: u32,
    receive_mss: u32,
    unacked: u32,
    sacked: u32,
    lost: u32,
    retransmitted: u32,
    forward: u32,
    last_data_sent: u32,
    last_ack_sent: u32,
    last_data_received: u32,
    last_ack_received: u32,
    pmtu: u32,
    receive_threshold: u32,
    rtt: u32,
    rtt_variance: u32,
    send_threshold: u32,
    congestion_window: u32,
    advertised_mss: u32,
    reordering: u32,
    receive_rtt: u32,
    receive_space: u32,
    total_retransmitted: u32,
    pacing_rate: u64,
    max_pacing_rate: u64,
    bytes_acked: u64,
    bytes_received: u64,
    segments_out: u32,
    segments_in: u32,
    unsent: u32,
    min_rtt: u32,
    data_segments_in: u32,
    data_segments_out: u32,
    delivery_rate: u64,
    busy_time: u64,
    receive_limited: u64,
    send_limited: u64,
    delivered: u32,
    delivered_marked: u32,
    bytes_sent: u64,
    bytes_retransmitted: u64,
    duplicates: u32,
    reordered: u32,
    out_of_order: u32,
    send_window: u32,
}

impl TcpSocket {
    /// `TCP_INFO`. There are no segments to count: one is counted for what one of Linux would carry.
    pub(super) fn info(&self) -> Vec<u8> {
        let (facts, state, backlog) = self.with(|state| {
            let backlog = match &state.role {
                Role::Listening(backlog) => Some((backlog.ready.len(), backlog.limit)),
                Role::Idle | Role::Calling | Role::Dialing(_) | Role::Connected(_) => None,
            };
            (state.end().map(|end| end.facts()), state.tcp_state(), backlog)
        });
        let mut info = Info {
            state: state as u8,
            rto: 1_000_000,
            send_mss: 536,
            receive_mss: 536,
            reordering: 3,
            congestion_window: 10,
            send_threshold: i32::MAX as u32,
            pacing_rate: u64::MAX,
            max_pacing_rate: u64::MAX,
            ..Info::default()
        };
        if let Some((ready, limit)) = backlog {
            (info.unacked, info.sacked) = (ready as u32, limit as u32);
        }
        if let Some(facts) = facts {
            let ago = |then: Instant| then.elapsed().as_millis().min(u128::from(u32::MAX)) as u32;
            let segments = |bytes: u64| bytes.div_ceil(u64::from(MSS)).min(u64::from(u32::MAX)) as u32;
            info.options = OPTIONS;
            info.scales = 0x77;
            (info.rto, info.ato) = (200_000, 40_000);
            (info.send_mss, info.receive_mss, info.advertised_mss, info.pmtu) = (MSS, MSS, MSS, 65_535);
            (info.last_data_sent, info.last_data_received) = (ago(facts.last_sent), ago(facts.last_received));
            info.last_ack_received = info.last_data_sent;
            (info.rtt, info.rtt_variance, info.min_rtt) = (20, 10, 10);
            info.receive_space = 65_483;
            info.receive_threshold = 65_483;
            (info.bytes_sent, info.bytes_received) = (facts.sent, facts.received);
            info.bytes_acked = facts.sent.saturating_sub(facts.unsent as u64) + 1;
            info.unsent = facts.unsent as u32;
            info.data_segments_out = segments(facts.sent);
            info.data_segments_in = segments(facts.received);
            (info.segments_out, info.segments_in) = (info.data_segments_out + 2, info.data_segments_in + 1);
            info.delivered = info.data_segments_out + 1;
            info.send_window = 65_536;
        }
        info.as_bytes().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::Info;

    #[test]
    fn the_layout_is_the_kernels() {
        assert_eq!(size_of::<Info>(), 232);
    }
}
