//! The standard streams of a container's processes: fifos that containerd made, and files.
//!
//! A process is given the fifo itself, so that nothing is copied on the way. The shim holds the other end of each as
//! well: a client of containerd may go and come back without the process seeing the end of its input or a broken pipe.
//! It lets go of the input when containerd closes it, and of all when the process has ended, so that readers see the
//! end.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::process::Stdio;

use crate::config::Config;
use crate::error::ShimError;

/// Paths as containerd gives them; empty for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Paths {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Whether it is to have a terminal.
    pub(crate) terminal: bool,
}

/// What a process is given.
pub(crate) struct Streams {
    pub(crate) stdin: Stdio,
    pub(crate) stdout: Stdio,
    pub(crate) stderr: Stdio,
}

impl Streams {
    /// Nothing: the process has a terminal.
    pub(crate) fn null() -> Self {
        Self { stdin: Stdio::null(), stdout: Stdio::null(), stderr: Stdio::null() }
    }
}

/// The ends that the shim holds.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) stdin: Option<File>,
    output: Vec<File>,
}

/// An output: what the process writes to, and what is held beside it.
struct Output {
    given: File,
    held: Option<File>,
}

/// Opens the streams of a process without a terminal.
pub(crate) fn open(paths: &Paths, config: &Config) -> Result<(Streams, Held), ShimError> {
    let mut held = Held::default();
    let mut streams = Streams::null();
    if !paths.stdin.is_empty() {
        let (given, keeper) = input(&paths.stdin, config)?;
        held.stdin = keeper;
        streams.stdin = given.into();
    }
    for (path, place) in [(&paths.stdout, &mut streams.stdout), (&paths.stderr, &mut streams.stderr)] {
        if !path.is_empty() {
            let output = output(path, config)?;
            held.output.extend(output.held);
            *place = output.given.into();
        }
    }
    Ok((streams, held))
}

/// Opens an input. A second end keeps it from ending before somebody says so.
pub(crate) fn input(path: &str, config: &Config) -> Result<(File, Option<File>), ShimError> {
    let path = plain(path)?;
    // To write as well, so that it does not wait for whoever writes.
    let keeper = OpenOptions::new().read(true).write(true).open(path).map_err(ShimError::io(path))?;
    own(&keeper, path, config)?;
    let given = File::open(path).map_err(ShimError::io(path))?;
    let keeper = OpenOptions::new().write(true).open(path).map_err(ShimError::io(path)).map(Some)?;
    Ok((given, keeper))
}

fn output(path: &str, config: &Config) -> Result<Output, ShimError> {
    if let Some(path) = path.strip_prefix("file://") {
        let path = Path::new(path);
        let file = OpenOptions::new().create(true).append(true).mode(0o640).open(path);
        return Ok(Output { given: file.map_err(ShimError::io(path))?, held: None });
    }
    let path = plain(path)?;
    let (given, held) = fifo(path)?;
    own(&given, path, config)?;
    Ok(Output { given, held: Some(held) })
}

/// Opens a fifo to write to it, and holds both of its ends.
pub(crate) fn fifo(path: &Path) -> Result<(File, File), ShimError> {
    // Both at once, so that it does not wait for whoever reads.
    let held = OpenOptions::new().read(true).write(true).open(path).map_err(ShimError::io(path))?;
    let given = OpenOptions::new().write(true).open(path).map_err(ShimError::io(path))?;
    Ok((given, held))
}

/// The path of a fifo.
pub(crate) fn plain(text: &str) -> Result<&Path, ShimError> {
    let path = text.strip_prefix("fifo://").unwrap_or(text);
    let invalid =
        |reason: &str| ShimError::Invalid { what: format!("stream {text:?}"), reason: reason.into() };
    if !path.starts_with('/') {
        return Err(invalid("not a fifo or a file: there are no other streams"));
    }
    let path = Path::new(path);
    let kind = std::fs::metadata(path).map_err(ShimError::io(path))?.file_type();
    if !kind.is_fifo() {
        return Err(invalid("not a fifo"));
    }
    Ok(path)
}

fn own(file: &File, path: &Path, config: &Config) -> Result<(), ShimError> {
    if (config.io_uid, config.io_gid) == (0, 0) {
        return Ok(());
    }
    std::os::unix::fs::fchown(file, Some(config.io_uid), Some(config.io_gid)).map_err(ShimError::io(path))
}

#[cfg(test)]
mod tests {
    use super::{Config, Paths, open, plain};
    use std::io::{Read, Write};
    use std::process::Command;

    #[test]
    fn a_reader_sees_the_end_when_all_let_go() {
        let dir = tempfile::tempdir().expect("a folder");
        let fifo = |name: &str| {
            let path = dir.path().join(name);
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
            path.to_str().expect("a name").to_owned()
        };
        let paths = Paths { stdin: fifo("in"), stdout: fifo("out"), ..Paths::default() };
        let (streams, mut held) = open(&paths, &Config::default()).expect("opens");
        let mut child =
            Command::new("cat").stdin(streams.stdin).stdout(streams.stdout).spawn().expect("starts");
        let mut reader = std::fs::File::open(&paths.stdout).expect("opens");
        // A client that goes does not end the input.
        for word in ["one ", "two"] {
            let mut client = std::fs::File::options().write(true).open(&paths.stdin).expect("opens");
            client.write_all(word.as_bytes()).expect("writes");
        }
        drop(held.stdin.take());
        drop(held);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("reads");
        // The reaper of another test may have been faster.
        let _ = child.wait();
        assert_eq!(text, "one two");
    }

    #[test]
    fn others_are_named() {
        for bad in ["binary:///bin/logger", "relative", "/etc/passwd", "/no/such/fifo"] {
            let error = plain(bad).expect_err(bad).to_string();
            assert!(error.contains(bad), "{error}");
        }
    }
}
