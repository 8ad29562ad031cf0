//! Options of level `SOL_SOCKET` (`socket(7)`).
//!
//! Many of them mean nothing to any family here; as on Linux they are kept and given back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use abi::Errno;
use abi::time::Timeval;
use cred::{CapSet, Credentials};
use sync::{Mutex, order};
use vfs::Result;
use zerocopy::{FromBytes, IntoBytes};

use crate::SocketFile;

/// The level.
pub const SOL_SOCKET: i32 = 1;

const SO_DEBUG: i32 = 1;
const SO_TYPE: i32 = 3;
const SO_ERROR: i32 = 4;
const SO_SNDBUF: i32 = 7;
const SO_RCVBUF: i32 = 8;
const SO_PRIORITY: i32 = 12;
const SO_LINGER: i32 = 13;
const SO_REUSEPORT: i32 = 15;
const SO_PASSCRED: i32 = 16;
const SO_PEERCRED: i32 = 17;
const SO_RCVLOWAT: i32 = 18;
const SO_SNDLOWAT: i32 = 19;
const SO_RCVTIMEO: i32 = 20;
const SO_SNDTIMEO: i32 = 21;
const SO_PEERNAME: i32 = 28;
const SO_ACCEPTCONN: i32 = 30;
const SO_SNDBUFFORCE: i32 = 32;
const SO_RCVBUFFORCE: i32 = 33;
const SO_MARK: i32 = 36;
const SO_PROTOCOL: i32 = 38;
const SO_DOMAIN: i32 = 39;
const SO_COOKIE: i32 = 57;
const SO_PEERGROUPS: i32 = 59;
const SO_RCVTIMEO_NEW: i32 = 66;
const SO_SNDTIMEO_NEW: i32 = 67;

/// Options that are on or off and change nothing: `SO_REUSEADDR`, `SO_DONTROUTE`, `SO_BROADCAST`,
/// `SO_KEEPALIVE`, `SO_OOBINLINE`, `SO_NO_CHECK`, `SO_TIMESTAMP`, `SO_PASSSEC`, `SO_TIMESTAMPNS`,
/// `SO_RXQ_OVFL`, `SO_NOFCS`, `SO_SELECT_ERR_QUEUE`.
const SWITCHES: [i32; 13] = [SO_DEBUG, 2, 5, 6, 9, 10, 11, 29, 34, 35, 40, 43, 45];

/// Default and largest size that is asked for (`net.core.[rw]mem_{default,max}`).
const BUFFER_BYTES: i32 = 212_992;
const MIN_SEND_BYTES: i32 = 4608;
const MIN_RECEIVE_BYTES: i32 = 2304;

/// What a guest has set.
#[derive(Default)]
pub(crate) struct Options {
    state: Mutex<order::Leaf, State>,
}

#[derive(Default)]
struct State {
    /// Integers by option; what is missing has its default.
    values: BTreeMap<i32, i32>,
    linger: [i32; 2],
    receive_timeout: Option<Duration>,
    send_timeout: Option<Duration>,
    cookie: Option<u64>,
}

/// The integer at the front of a value; `EINVAL` when there is none.
fn int(value: &[u8]) -> Result<i32> {
    value.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)).ok_or(Errno::EINVAL)
}

impl SocketFile {
    /// How long a receive may wait (`SO_RCVTIMEO`); `None`: for ever.
    pub fn receive_timeout(&self) -> Option<Duration> {
        self.options.state.lock().receive_timeout
    }

    /// How long a send may wait (`SO_SNDTIMEO`).
    pub fn send_timeout(&self) -> Option<Duration> {
        self.options.state.lock().send_timeout
    }

    /// The options a socket from `accept` takes over from its listener.
    pub fn inherit(&self, from: &Self) {
        let (values, linger, timeouts) = {
            let state = from.options.state.lock();
            (state.values.clone(), state.linger, (state.receive_timeout, state.send_timeout))
        };
        let mut state = self.options.state.lock();
        (state.values, state.linger) = (values, linger);
        if self.socket().family() != abi::socket::AF_UNIX {
            (state.receive_timeout, state.send_timeout) = timeouts;
        }
    }

    /// `getsockopt(2)`: the whole value, which the caller cuts; `asked` is what stands in its place. `ENOPROTOOPT`.
    pub fn option(&self, level: i32, name: i32, asked: &[u8]) -> Result<Vec<u8>> {
        let socket = self.socket();
        if level != SOL_SOCKET {
            return socket.option_for(level, name, asked);
        }
        let number = match name {
            SO_TYPE => socket.kind().raw() as i32,
            SO_ERROR => socket.take_error().map_or(0, |errno| i32::from(errno.raw())),
            SO_PASSCRED => i32::from(socket.passes_credentials()),
            SO_ACCEPTCONN => i32::from(socket.is_listening()),
            SO_PROTOCOL => socket.protocol(),
            SO_DOMAIN => i32::from(socket.family()),
            SO_SNDLOWAT => 1,
            SO_PEERCRED => return Ok(self.peer_credentials()),
            SO_PEERGROUPS => {
                let (_, groups) = socket.peer_identity().ok_or(Errno::ENODATA)?;
                return Ok(groups.as_bytes().to_vec());
            }
            SO_PEERNAME => return socket.peer_name(),
            _ => return self.kept(name),
        };
        Ok(number.to_ne_bytes().to_vec())
    }

    fn peer_credentials(&self) -> Vec<u8> {
        let nobody = abi::socket::Ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
        let peer = self.socket().peer_identity().map_or(nobody, |(cred, _)| cred);
        peer.as_bytes().to_vec()
    }

    /// Options that are only kept.
    fn kept(&self, name: i32) -> Result<Vec<u8>> {
        // Asked before the lock, which stands behind those of sockets.
        let usual = self.socket().usual_buffers().unwrap_or((BUFFER_BYTES, BUFFER_BYTES));
        let mut state = self.options.state.lock();
        let timeout = |after: Option<Duration>| Timeval::from(after.unwrap_or_default()).as_bytes().to_vec();
        let default = match name {
            SO_RCVTIMEO | SO_RCVTIMEO_NEW => return Ok(timeout(state.receive_timeout)),
            SO_SNDTIMEO | SO_SNDTIMEO_NEW => return Ok(timeout(state.send_timeout)),
            SO_LINGER => return Ok(state.linger.as_bytes().to_vec()),
            SO_COOKIE => {
                static NEXT: AtomicU64 = AtomicU64::new(1);
                let cookie = *state.cookie.get_or_insert_with(|| NEXT.fetch_add(1, Ordering::Relaxed));
                return Ok(cookie.to_ne_bytes().to_vec());
            }
            SO_SNDBUF => usual.0,
            SO_RCVBUF => usual.1,
            SO_RCVLOWAT => 1,
            SO_PRIORITY | SO_MARK | SO_REUSEPORT => 0,
            name if SWITCHES.contains(&name) => 0,
            _ => {
                drop(state);
                return self.socket().option(SOL_SOCKET, name).map_err(no_option);
            }
        };
        Ok(state.values.get(&name).copied().unwrap_or(default).to_ne_bytes().to_vec())
    }

    /// `setsockopt(2)`.
    pub fn set_option(&self, cred: &Credentials, level: i32, name: i32, value: &[u8]) -> Result<()> {
        if level != SOL_SOCKET {
            return self.socket().set_option(level, name, value);
        }
        let number = int(value)?;
        let kept = match name {
            SO_RCVTIMEO | SO_SNDTIMEO | SO_RCVTIMEO_NEW | SO_SNDTIMEO_NEW => {
                return self.set_timeout(matches!(name, SO_RCVTIMEO | SO_RCVTIMEO_NEW), value);
            }
            SO_LINGER => {
                let second = value.get(4..).unwrap_or_default();
                let seconds = int(second)?;
                self.options.state.lock().linger = [i32::from(number != 0), seconds];
                self.socket().set_linger((number != 0).then_some(seconds.max(0) as u32));
                return Ok(());
            }
            SO_PASSCRED => return self.socket().set_passes_credentials(number != 0),
            SO_SNDBUF | SO_RCVBUF => return self.set_buffer(name, capped(number)),
            SO_SNDBUFFORCE | SO_RCVBUFFORCE => {
                if !cred.capable(CapSet::NET_ADMIN) {
                    return Err(Errno::EPERM);
                }
                // No further than without: the memory is the sandbox's, not the guest's.
                let name = if name == SO_SNDBUFFORCE { SO_SNDBUF } else { SO_RCVBUF };
                return self.set_buffer(name, capped(number.max(0)));
            }
            SO_RCVLOWAT if number < 0 => i32::MAX,
            SO_RCVLOWAT => number.max(1),
            SO_PRIORITY => {
                let free = (0..=6).contains(&number);
                if !free && !cred.capable(CapSet::NET_ADMIN) && !cred.capable(CapSet::NET_RAW) {
                    return Err(Errno::EPERM);
                }
                number
            }
            SO_MARK => {
                if !cred.capable(CapSet::NET_ADMIN) && !cred.capable(CapSet::NET_RAW) {
                    return Err(Errno::EPERM);
                }
                number
            }
            SO_REUSEPORT if number != 0 && self.socket().family() == abi::socket::AF_UNIX => {
                return Err(Errno::EOPNOTSUPP);
            }
            SO_DEBUG if number != 0 && !cred.capable(CapSet::NET_ADMIN) => return Err(Errno::EACCES),
            SO_REUSEPORT => i32::from(number != 0),
            name if SWITCHES.contains(&name) => i32::from(number != 0),
            _ => return self.socket().set_option(SOL_SOCKET, name, value).map_err(no_option),
        };
        self.options.state.lock().values.insert(name, kept);
        self.socket().switched(name, kept);
        Ok(())
    }

    /// Twice what was asked for, as Linux accounts it.
    fn set_buffer(&self, name: i32, asked: i32) -> Result<()> {
        let least = if name == SO_SNDBUF { MIN_SEND_BYTES } else { MIN_RECEIVE_BYTES };
        let bytes = asked.saturating_mul(2).max(least);
        self.options.state.lock().values.insert(name, bytes);
        if name == SO_SNDBUF {
            self.socket().set_send_buffer(bytes as usize);
        } else {
            self.socket().set_receive_buffer(bytes as usize);
        }
        Ok(())
    }

    fn set_timeout(&self, receive: bool, value: &[u8]) -> Result<()> {
        let (time, _) = Timeval::read_from_prefix(value).map_err(|_| Errno::EINVAL)?;
        if !(0..1_000_000).contains(&time.usec) {
            return Err(Errno::EDOM);
        }
        // A negative time does not wait; zero waits for ever.
        let after = time.to_duration().unwrap_or(Duration::from_nanos(1));
        let after = (!after.is_zero()).then_some(after);
        let mut state = self.options.state.lock();
        *(if receive { &mut state.receive_timeout } else { &mut state.send_timeout }) = after;
        Ok(())
    }
}

/// A family without options of its own has none of this level either.
fn no_option(errno: Errno) -> Errno {
    if errno == Errno::EOPNOTSUPP { Errno::ENOPROTOOPT } else { errno }
}

/// A negative size is a large one.
fn capped(asked: i32) -> i32 {
    if asked < 0 { BUFFER_BYTES } else { asked.min(BUFFER_BYTES) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use abi::Errno;
    use abi::socket::SocketKind;
    use cred::Credentials;

    use super::{SO_RCVTIMEO, SO_SNDBUF, SO_TYPE, SOL_SOCKET};
    use crate::SocketFile;
    use crate::unix::{Names, UnixSocket};

    fn file() -> Arc<SocketFile> {
        SocketFile::new(UnixSocket::new(SocketKind::Stream, &Names::new()))
    }

    fn number(file: &SocketFile, name: i32) -> i32 {
        let value = file.option(SOL_SOCKET, name, &[]).expect("an option");
        i32::from_ne_bytes(value.try_into().expect("four bytes"))
    }

    #[test]
    fn buffers_are_doubled_within_bounds() {
        let (file, user) = (file(), Credentials::user(1, 1));
        assert_eq!(number(&file, SO_SNDBUF), 212_992);
        for (asked, got) in [(1, 4608), (10_000, 20_000), (i32::MAX, 425_984), (-1, 425_984)] {
            file.set_option(&user, SOL_SOCKET, SO_SNDBUF, &asked.to_ne_bytes()).expect("any size");
            assert_eq!(number(&file, SO_SNDBUF), got);
        }
    }

    #[test]
    fn what_cannot_be_set_says_so() {
        let (file, user) = (file(), Credentials::user(1, 1));
        let set = |name, value: &[u8]| file.set_option(&user, SOL_SOCKET, name, value);
        let one = 1i32.to_ne_bytes();
        assert_eq!(set(SO_TYPE, &one), Err(Errno::ENOPROTOOPT));
        assert_eq!(set(999, &one), Err(Errno::ENOPROTOOPT));
        assert_eq!(set(2, &one[..3]), Err(Errno::EINVAL));
        assert_eq!(set(1, &one), Err(Errno::EACCES));
        assert_eq!(set(12, &7i32.to_ne_bytes()), Err(Errno::EPERM));
        assert_eq!(set(32, &one), Err(Errno::EPERM));
        assert_eq!(set(SO_RCVTIMEO, &one), Err(Errno::EINVAL));
        assert_eq!(file.set_option(&user, 6, 1, &one), Err(Errno::EOPNOTSUPP));
        assert_eq!(file.option(SOL_SOCKET, 999, &[]), Err(Errno::ENOPROTOOPT));
    }

    #[test]
    fn timeouts_are_checked_and_kept() {
        let (file, user) = (file(), Credentials::user(1, 1));
        let time = |sec: i64, usec: i64| [sec.to_ne_bytes(), usec.to_ne_bytes()].concat();
        assert_eq!(file.set_option(&user, SOL_SOCKET, SO_RCVTIMEO, &time(0, 1_000_000)), Err(Errno::EDOM));
        file.set_option(&user, SOL_SOCKET, SO_RCVTIMEO, &time(1, 5)).expect("valid");
        assert_eq!(file.receive_timeout(), Some(Duration::from_micros(1_000_005)));
        assert_eq!(file.option(SOL_SOCKET, SO_RCVTIMEO, &[]), Ok(time(1, 5)));
        file.set_option(&user, SOL_SOCKET, SO_RCVTIMEO, &time(0, 0)).expect("valid");
        assert_eq!((file.receive_timeout(), file.send_timeout()), (None, None));
    }
}
