//! `--pcap-log`: every frame of the links, in a file that Wireshark and tcpdump read (libpcap's format, with
//! nanoseconds).
//!
//! Large segments are in it as they are handed to the device and come from it, with checksums that it has yet to make.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use netstack::VNET_LEN;

/// Most bytes of the file: what a guest sends must not fill the host's disk.
const MAX_BYTES: u64 = 1 << 30;
/// The head: magic number, version 2.4, no zone, no accuracy, longest record, Ethernet.
const HEAD: [u32; 6] = [0xa1b2_3c4d, 2 | 4 << 16, 0, 0, 262_144, 1];

/// The file. Once it is full, or cannot be written to, nothing more is.
pub(super) struct Capture(Mutex<State>);

struct State {
    file: File,
    left: u64,
}

impl State {
    fn write(&mut self, bytes: &[u8]) {
        let len = bytes.len() as u64;
        self.left = match self.left.checked_sub(len) {
            Some(left) if self.file.write_all(bytes).is_ok() => left,
            _ => 0,
        };
    }
}

impl Capture {
    /// Into this file, which is empty.
    pub(super) fn new(file: OwnedFd) -> Self {
        let mut state = State { file: file.into(), left: MAX_BYTES };
        state.write(&HEAD.map(u32::to_ne_bytes).concat());
        Self(Mutex::new(state))
    }

    /// Adds a frame, which stands behind its `virtio_net_hdr`.
    pub(super) fn add(&self, bytes: &[u8]) {
        let frame = bytes.get(VNET_LEN..).unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let len = frame.len() as u32;
        let head = [now.as_secs() as u32, now.subsec_nanos(), len, len].map(u32::to_ne_bytes).concat();
        let record = [head.as_slice(), frame].concat();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(&record);
    }
}

#[cfg(test)]
mod tests {
    use super::{Capture, VNET_LEN};
    use std::io::{Read, Seek};

    #[test]
    fn frames_are_records() {
        let mut file = tempfile::tempfile().expect("a file");
        let capture = Capture::new(file.try_clone().expect("a copy").into());
        capture.add(&[&[0; VNET_LEN][..], b"frame"].concat());
        let mut bytes = Vec::new();
        file.rewind().expect("at the start");
        file.read_to_end(&mut bytes).expect("readable");
        assert_eq!(
            (bytes.len(), &bytes[32..36], &bytes[40..]),
            (24 + 16 + 5, &5u32.to_ne_bytes()[..], &b"frame"[..])
        );
        capture.0.lock().expect("not poisoned").left = 20;
        capture.add(&[0; 60]);
        assert_eq!(file.metadata().map(|data| data.len()).ok(), Some(45));
    }
}
