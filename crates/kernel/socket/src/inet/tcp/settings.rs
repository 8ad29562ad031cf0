//! Options of a TCP socket, inherited by what its listener accepts.

use std::time::Duration;

use abi::Errno;
use vfs::Result;

use super::splice::Sizes;
use crate::inet::options::IpOptions;

/// `IPPROTO_TCP` as a level.
pub(crate) const SOL_TCP: i32 = 6;

/// Bytes unread by default (the middle of `net.ipv4.tcp_rmem`), as `SO_RCVBUF` shows it.
pub(super) const RECEIVE_BYTES: i32 = 131_072;
/// `SO_SNDBUF` before there is a connection (the middle of `net.ipv4.tcp_wmem`), and what Linux makes of it
/// on the loopback.
pub(super) const SEND_BYTES: i32 = 16_384;
pub(super) const CONNECTED_SEND_BYTES: i32 = 2_626_560;
/// Bytes under way beside those unread, while nobody has set a size.
const SEND_ROOM: usize = 262_144;

const NODELAY: i32 = 1;
const MAXSEG: i32 = 2;
const CORK: i32 = 3;
const KEEPIDLE: i32 = 4;
const KEEPINTVL: i32 = 5;
const KEEPCNT: i32 = 6;
const SYNCNT: i32 = 7;
const LINGER2: i32 = 8;
const DEFER_ACCEPT: i32 = 9;
const WINDOW_CLAMP: i32 = 10;
const QUICKACK: i32 = 12;
const CONGESTION: i32 = 13;
const USER_TIMEOUT: i32 = 18;
const FASTOPEN: i32 = 23;
const TIMESTAMP: i32 = 24;
const NOTSENT_LOWAT: i32 = 25;
const SAVE_SYN: i32 = 27;
const FASTOPEN_CONNECT: i32 = 30;
const INQ: i32 = 36;
const TX_DELAY: i32 = 37;

/// Congestion controls there are (`net.ipv4.tcp_available_congestion_control`).
pub(crate) const CONGESTION_CONTROLS: [&str; 2] = ["reno", "cubic"];
/// Bytes of a name of one (`TCP_CA_NAME_MAX`).
const NAME_BYTES: usize = 16;
/// Segment size on the loopback (RFC 6691: its MTU less both headers).
const LOOPBACK_MSS: i32 = 65_483;
/// What `TCP_MAXSEG` shows without a connection.
const DEFAULT_MSS: i32 = 536;

/// What a guest has set.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) ip: IpOptions,
    /// `SO_REUSEADDR`, `SO_REUSEPORT`.
    pub(super) reuse: bool,
    pub(super) share: bool,
    /// `SO_KEEPALIVE`.
    pub(super) keepalive: bool,
    /// `SO_OOBINLINE`.
    pub(super) inline: bool,
    pub(super) lowat: usize,
    /// `SO_LINGER`.
    pub(super) linger: Option<u32>,
    /// `SO_RCVBUF`, `SO_SNDBUF` as accounted.
    pub(super) receive: Option<usize>,
    pub(super) send: Option<usize>,
    nodelay: bool,
    cork: bool,
    quickack: bool,
    max_segment: i32,
    pub(super) keep_idle: i32,
    keep_interval: i32,
    keep_count: i32,
    syn_count: i32,
    linger2: i32,
    defer_accept: i32,
    window_clamp: i32,
    user_timeout: i32,
    fast_open: i32,
    fast_open_connect: bool,
    unsent_lowat: i32,
    save_syn: i32,
    inq: bool,
    /// Index among the congestion controls.
    congestion: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ip: IpOptions::default(),
            reuse: false,
            share: false,
            keepalive: false,
            inline: false,
            lowat: 1,
            linger: None,
            receive: None,
            send: None,
            nodelay: false,
            cork: false,
            quickack: true,
            max_segment: 0,
            keep_idle: 7200,
            keep_interval: 75,
            keep_count: 9,
            syn_count: 6,
            linger2: 60,
            defer_accept: 0,
            window_clamp: 0,
            user_timeout: 0,
            fast_open: 0,
            fast_open_connect: false,
            unsent_lowat: 0,
            save_syn: 0,
            inq: false,
            congestion: 1,
        }
    }
}

/// `EINVAL` outside of `range`.
fn within(value: i32, range: std::ops::RangeInclusive<i32>) -> Result<i32> {
    if range.contains(&value) { Ok(value) } else { Err(Errno::EINVAL) }
}

/// Seconds until as many SYNs as there are have been sent again, and the other way round; as Linux counts
/// (the first after one second, then always twice as long, no longer than two minutes).
fn seconds_of(count: i32) -> i32 {
    (0..count).map(|n| 1 << n.min(7)).map(|s: i32| s.min(120)).sum()
}

fn count_of(seconds: i32) -> i32 {
    (0..=255).find(|n| seconds_of(*n) >= seconds).unwrap_or(255)
}

impl Settings {
    /// Sizes of an end.
    pub(super) fn sizes(&self) -> Sizes {
        // Half of what is accounted is data, as Linux reckons.
        let receive = self.receive.map_or(RECEIVE_BYTES as usize, |bytes| bytes / 2);
        let send = self.send.map_or(SEND_ROOM, |bytes| bytes / 2);
        Sizes { receive, send, lowat: self.lowat, inline: self.inline, reuse: self.reuse }
    }

    /// `TCP_NODELAY`, and no `TCP_CORK`.
    pub(super) fn is_nodelay(&self) -> bool {
        self.nodelay && !self.cork
    }

    /// The pause after which the other end is asked whether it is there (`TCP_KEEPIDLE`, while `SO_KEEPALIVE`).
    pub(super) fn keepalive_pause(&self) -> Option<Duration> {
        self.keepalive.then(|| Duration::from_secs(self.keep_idle.max(1) as u64))
    }

    /// How long the other end may be silent (`TCP_USER_TIMEOUT`); while it is asked, as long as that takes.
    pub(super) fn silence(&self) -> Option<Duration> {
        if self.user_timeout > 0 {
            return Some(Duration::from_millis(self.user_timeout as u64));
        }
        let asked = u64::from((self.keep_interval * self.keep_count).max(1).unsigned_abs());
        self.keepalive_pause().map(|pause| pause + Duration::from_secs(asked))
    }

    /// An integer option of `SOL_TCP`; `connected` by the loopback.
    pub(super) fn option(&self, name: i32, connected: bool) -> Result<Vec<u8>> {
        let number = match name {
            NODELAY => i32::from(self.nodelay),
            MAXSEG if connected => LOOPBACK_MSS,
            MAXSEG if self.max_segment != 0 => self.max_segment,
            MAXSEG => DEFAULT_MSS,
            CORK => i32::from(self.cork),
            KEEPIDLE => self.keep_idle,
            KEEPINTVL => self.keep_interval,
            KEEPCNT => self.keep_count,
            SYNCNT => self.syn_count,
            LINGER2 => self.linger2,
            DEFER_ACCEPT => seconds_of(self.defer_accept),
            WINDOW_CLAMP => self.window_clamp,
            QUICKACK => i32::from(self.quickack),
            CONGESTION => {
                let mut name =
                    CONGESTION_CONTROLS.get(self.congestion).copied().unwrap_or_default().to_owned();
                name.extend(std::iter::repeat_n('\0', NAME_BYTES - name.len().min(NAME_BYTES)));
                return Ok(name.into_bytes());
            }
            USER_TIMEOUT => self.user_timeout,
            FASTOPEN => self.fast_open,
            FASTOPEN_CONNECT => i32::from(self.fast_open_connect),
            TIMESTAMP => 0,
            NOTSENT_LOWAT => self.unsent_lowat,
            SAVE_SYN => self.save_syn,
            INQ => i32::from(self.inq),
            TX_DELAY => 0,
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(number.to_ne_bytes().to_vec())
    }

    /// Sets one; `idle` sockets are neither connected nor listening.
    pub(super) fn set_option(&mut self, name: i32, value: &[u8], idle: bool) -> Result<()> {
        if name == CONGESTION {
            let name = value.split(|byte| *byte == 0).next().unwrap_or_default();
            if value.is_empty() {
                return Err(Errno::EINVAL);
            }
            let known = CONGESTION_CONTROLS.iter().position(|known| known.as_bytes() == name);
            self.congestion = known.ok_or(Errno::ENOENT)?;
            return Ok(());
        }
        let value = value.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)).ok_or(Errno::EINVAL)?;
        match name {
            NODELAY => self.nodelay = value != 0,
            MAXSEG if value == 0 => self.max_segment = 0,
            MAXSEG => self.max_segment = within(value, 88..=32_767)?,
            CORK => self.cork = value != 0,
            KEEPIDLE => self.keep_idle = within(value, 1..=32_767)?,
            KEEPINTVL => self.keep_interval = within(value, 1..=32_767)?,
            KEEPCNT => self.keep_count = within(value, 1..=127)?,
            SYNCNT => self.syn_count = within(value, 1..=127)?,
            LINGER2 if value < 0 => self.linger2 = -1,
            LINGER2 => self.linger2 = value.min(120),
            DEFER_ACCEPT => self.defer_accept = if value <= 0 { 0 } else { count_of(value) },
            WINDOW_CLAMP if value == 0 && idle => self.window_clamp = 0,
            WINDOW_CLAMP if value == 0 => return Err(Errno::EINVAL),
            WINDOW_CLAMP => self.window_clamp = value.max(1152),
            QUICKACK => self.quickack = value & 1 != 0,
            USER_TIMEOUT => self.user_timeout = within(value, 0..=i32::MAX)?,
            FASTOPEN if !idle && value != 0 => return Err(Errno::EINVAL),
            FASTOPEN => self.fast_open = within(value, 0..=i32::MAX)?.min(4096),
            FASTOPEN_CONNECT if !idle => return Err(Errno::EINVAL),
            FASTOPEN_CONNECT => self.fast_open_connect = within(value, 0..=1)? != 0,
            NOTSENT_LOWAT => self.unsent_lowat = value,
            SAVE_SYN => self.save_syn = within(value, 0..=2)?,
            INQ => self.inq = within(value, 0..=1)? != 0,
            // TCP_REPAIR, TCP_MD5SIG, TCP_ULP, TCP_ZEROCOPY_RECEIVE, ...
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Settings;
    use abi::Errno;

    #[test]
    fn values_are_bounded_as_on_linux() {
        let mut settings = Settings::default();
        let mut set = |name, value: i32| settings.set_option(name, &value.to_ne_bytes(), true);
        for (name, value) in [(4, 0), (4, 32_768), (5, 0), (6, 128), (7, 0), (18, -1), (2, 87), (36, 2)] {
            assert_eq!(set(name, value), Err(Errno::EINVAL), "{name}");
        }
        assert_eq!(set(999, 1), Err(Errno::ENOPROTOOPT));
        assert_eq!(set(9, 5), Ok(()));
        assert_eq!(settings.set_option(13, b"bbr", true), Err(Errno::ENOENT));
        assert_eq!(settings.set_option(13, b"reno\0", true), Ok(()));
        assert_eq!(settings.option(13, false), Ok(b"reno\0\0\0\0\0\0\0\0\0\0\0\0".to_vec()));
        assert_eq!(settings.option(9, false), Ok(7i32.to_ne_bytes().to_vec()));
        assert_eq!(settings.set_option(4, &[0; 3], true), Err(Errno::EINVAL));
    }
}
