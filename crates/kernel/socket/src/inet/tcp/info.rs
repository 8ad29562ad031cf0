//! What TCP sockets tell of themselves: `TCP_INFO`, and the rows of `/proc/net/tcp` and `SOCK_DIAG`.

use std::time::Instant;

use zerocopy::{Immutable, IntoBytes};

use super::TcpSocket;
use super::splice::Facts;
use super::state::{Role, State};

/// `TCPI_OPT_TIMESTAMPS`, `TCPI_OPT_SACK`, `TCPI_OPT_WSCALE`.
const OPTIONS: u8 = 7;

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
    /// `TCP_INFO`.
    pub(super) fn info(&self) -> Vec<u8> {
        self.with(|state| info(state))
    }
}

/// What a socket in `state` tells. Segments are not counted one by one: one is for what one of Linux would carry.
pub(super) fn info(state: &State) -> Vec<u8> {
    let mut info = Info {
        state: state.tcp_state() as u8,
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
    if let Role::Listening(backlog) = &state.role {
        (info.unacked, info.sacked) = (backlog.ready.len() as u32, backlog.limit as u32);
    }
    if let Some(facts) = state.end().map(|end| end.facts()) {
        info.fill(&facts);
    }
    info.as_bytes().to_vec()
}

impl Info {
    /// Of a connection.
    fn fill(&mut self, facts: &Facts) {
        let ago = |then: Instant| then.elapsed().as_millis().min(u128::from(u32::MAX)) as u32;
        let segment = facts.segment.max(1) as u32;
        let segments = |bytes: u64| bytes.div_ceil(u64::from(segment)).min(u64::from(u32::MAX)) as u32;
        self.options = OPTIONS;
        self.scales = 0x77;
        (self.rto, self.ato) = (200_000, 40_000);
        (self.send_mss, self.receive_mss, self.advertised_mss) = (segment, segment, segment);
        self.pmtu = segment.saturating_add(52).min(65_535);
        (self.last_data_sent, self.last_data_received) = (ago(facts.last_sent), ago(facts.last_received));
        self.last_ack_received = self.last_data_sent;
        if let Some(trip) = facts.round_trip {
            let micros = |time: std::time::Duration| time.as_micros().min(u128::from(u32::MAX)) as u32;
            (self.rtt, self.rtt_variance) = (micros(trip.smoothed), micros(trip.variance));
            self.min_rtt = micros(trip.least);
        }
        self.receive_space = 65_483;
        self.receive_threshold = 65_483;
        (self.bytes_sent, self.bytes_received) = (facts.sent, facts.received);
        self.bytes_acked = facts.sent.saturating_sub(facts.unsent as u64) + 1;
        self.unsent = facts.unsent as u32;
        self.data_segments_out = segments(facts.sent);
        self.data_segments_in = segments(facts.received);
        (self.segments_out, self.segments_in) = (self.data_segments_out + 2, self.data_segments_in + 1);
        self.delivered = self.data_segments_out + 1;
        self.send_window = 65_536;
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
