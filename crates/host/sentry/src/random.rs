//! Random bytes, from the host's generator by a descriptor opened before the Sentry locks itself in.

use std::fs::File;
use std::io::{self, Read};

use abi::Errno;
use devfs::devices::Randomness;
use loader::Entropy;

/// The host's `/dev/urandom`.
#[derive(Debug)]
pub(crate) struct HostRandom(File);

impl HostRandom {
    /// Opens it; must come before the root is taken away.
    pub(crate) fn open() -> io::Result<Self> {
        File::open("/dev/urandom").map(Self)
    }

    /// What one program load needs.
    pub(crate) fn entropy(&self) -> vfs::Result<Entropy> {
        let mut bytes = [0; Entropy::BYTES];
        self.fill(&mut bytes)?;
        Ok(Entropy::new(bytes))
    }
}

impl Randomness for HostRandom {
    fn fill(&self, buf: &mut [u8]) -> vfs::Result<()> {
        (&self.0).read_exact(buf).map_err(|_| Errno::EIO)
    }
}
