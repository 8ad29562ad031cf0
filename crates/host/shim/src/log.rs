//! The shim's log: lines for people, in the fifo that containerd reads, or in a file.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tracing::level_filters::LevelFilter;

/// Name of the fifo in a bundle.
const FIFO: &str = "log";

/// A log that never blocks: a line that does not fit is lost.
struct Sink(File);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::BrokenPipe) => {
                Ok(bytes.len())
            }
            other => other,
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Sends the events of this process to the fifo of `bundle`, as far as somebody reads it.
pub(crate) fn init(bundle: &Path, debug: bool) {
    let fifo = OpenOptions::new().write(true).custom_flags(nix::libc::O_NONBLOCK).open(bundle.join(FIFO));
    let Ok(fifo) = fifo else { return };
    let level = if debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
    let made = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_writer(std::sync::Mutex::new(Sink(fifo)))
        .try_init();
    // There is only one, at the start.
    drop(made);
}
