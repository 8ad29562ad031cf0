//! Terminals: the end of a pseudo-terminal that `runsc` hands over, and the thread that carries bytes between it and
//! containerd's fifos.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use abi::tty::Winsize;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::ShimError;
use crate::stdio::{Held, Paths, fifo, plain};

/// Most bytes that are on their way in one direction.
const BUFFER: usize = 16 << 10;

/// A socket at which the end of a terminal is waited for; its file goes with this.
pub(crate) struct Console {
    listener: UnixListener,
    pub(crate) path: PathBuf,
}

impl Console {
    pub(crate) fn listen(path: PathBuf) -> Result<Self, ShimError> {
        let listener = UnixListener::bind(&path).map_err(ShimError::io(&path))?;
        listener.set_nonblocking(true).map_err(ShimError::io(&path))?;
        Ok(Self { listener, path })
    }

    /// Takes what `runsc` has sent: it has ended, so that nothing is waited for.
    fn receive(&self) -> Result<File, ShimError> {
        let (stream, _) = self.listener.accept().map_err(ShimError::io(&self.path))?;
        let mut name = [0; 64];
        let received = hostsys::file::receive_message(stream.as_fd(), &mut name)
            .map_err(|errno| ShimError::io(&self.path)(std::io::Error::other(errno.to_string())))?;
        let nothing = || ShimError::Runsc { command: "create", reason: "no terminal was sent".into() };
        received.fds.into_iter().next().map(File::from).ok_or_else(nothing)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // It may be gone with its directory.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A terminal in use. Its thread ends with the last user of the other end, or with this.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: File,
    _stop: PipeWriter,
}

impl Terminal {
    /// Takes the end that came to `console`, and begins to carry. Also returns what holds its input open.
    pub(crate) fn attach(console: &Console, paths: &Paths) -> Result<(Self, Held), ShimError> {
        let master = console.receive()?;
        let mut held = Held::default();
        let input = match paths.stdin.as_str() {
            "" => None,
            path => {
                let path = plain(path)?;
                let nonblocking = nix::libc::O_NONBLOCK;
                let input = OpenOptions::new().read(true).custom_flags(nonblocking).open(path);
                let input = input.map_err(ShimError::io(path))?;
                held.stdin = Some(OpenOptions::new().write(true).open(path).map_err(ShimError::io(path))?);
                Some(input)
            }
        };
        let output = match paths.stdout.as_str() {
            "" => None,
            path => Some(fifo(plain(path)?)?),
        };
        let pipe = Path::new("a pipe");
        let (stopped, stop) = std::io::pipe().map_err(ShimError::io(pipe))?;
        let own = master.try_clone().map_err(ShimError::io(pipe))?;
        for file in std::iter::once(&own).chain(output.as_ref().map(|(given, _)| given)) {
            fcntl(file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(ShimError::host(pipe))?;
        }
        let relay =
            Relay { master: own, input, output, to_guest: Buffer::default(), to_client: Buffer::default() };
        std::thread::spawn(move || relay.run(&stopped));
        Ok((Self { master, _stop: stop }, held))
    }

    /// Changes its size, in characters.
    pub(crate) fn resize(&self, width: u16, height: u16) -> Result<(), ShimError> {
        let size = Winsize { rows: height, cols: width, ..Winsize::default() };
        hostsys::file::set_window_size(self.master.as_fd(), size)
            .map_err(|errno| ShimError::Invalid { what: "terminal".into(), reason: errno.to_string() })
    }
}

/// Bytes on their way.
#[derive(Default)]
struct Buffer(Vec<u8>);

impl Buffer {
    /// Takes what there is. False at the end.
    fn fill(&mut self, mut from: &File) -> bool {
        let mut bytes = [0; BUFFER];
        match from.read(&mut bytes) {
            Ok(0) => false,
            Ok(length) => {
                self.0.extend_from_slice(bytes.get(..length).unwrap_or_default());
                true
            }
            // A terminal that nobody has open any more says that this is an error.
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    /// Passes on what can be. False when nobody takes it any more.
    fn drain(&mut self, mut to: &File) -> bool {
        match to.write(&self.0) {
            Ok(length) => drop(self.0.drain(..length)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => {
                self.0.clear();
                return false;
            }
        }
        true
    }
}

struct Relay {
    master: File,
    input: Option<File>,
    /// Where output goes, and what holds its other end.
    output: Option<(File, File)>,
    to_guest: Buffer,
    to_client: Buffer,
}

impl Relay {
    fn run(mut self, stop: &PipeReader) {
        let mut open = true;
        while open || !self.to_client.0.is_empty() {
            let Some([master, input, output]) = self.wait(stop, open) else { return };
            if open && master.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
                open = self.to_client.fill(&self.master);
            }
            if master.contains(PollFlags::POLLOUT) {
                self.to_guest.drain(&self.master);
            }
            if let Some(file) = self.input.as_ref().filter(|_| !input.is_empty())
                && !self.to_guest.fill(file)
            {
                self.input = None;
            }
            match &self.output {
                Some((file, _)) if output.contains(PollFlags::POLLOUT) => drop(self.to_client.drain(file)),
                Some(_) => {}
                None => self.to_client.0.clear(),
            }
        }
    }

    /// Waits for something to do. What can be done with each; `None` when it is to stop.
    fn wait(&self, stop: &PipeReader, open: bool) -> Option<[PollFlags; 3]> {
        let when = |wanted: bool, flag: PollFlags| if wanted { flag } else { PollFlags::empty() };
        let of_master = when(self.to_client.0.is_empty(), PollFlags::POLLIN)
            | when(!self.to_guest.0.is_empty(), PollFlags::POLLOUT);
        let mut fds = vec![PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        // One that hung up would be reported for ever, and so is not looked at while its bytes wait for a place.
        let master = (open && !of_master.is_empty()).then(|| PollFd::new(self.master.as_fd(), of_master));
        let input = self.input.as_ref().filter(|_| self.to_guest.0.is_empty());
        let input = input.map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN));
        let output = self.output.as_ref().filter(|_| !self.to_client.0.is_empty());
        let output = output.map(|(file, _)| PollFd::new(file.as_fd(), PollFlags::POLLOUT));
        let wanted = [master, input, output];
        fds.extend(wanted.iter().flatten().cloned());
        loop {
            match poll(&mut fds, PollTimeout::NONE) {
                Err(nix::Error::EINTR) => {}
                Err(_) => return None,
                Ok(_) => break,
            }
        }
        let mut seen = fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        if seen.next().is_some_and(|stop| !stop.is_empty()) {
            return None;
        }
        Some(wanted.map(|fd| fd.and_then(|_| seen.next()).unwrap_or(PollFlags::empty())))
    }
}

#[cfg(test)]
mod tests {
    use super::{Console, Terminal};
    use crate::stdio::Paths;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn bytes_go_both_ways_until_the_end() {
        let dir = tempfile::tempdir().expect("a folder");
        let fifo = |name: &str| {
            let path = dir.path().join(name);
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
            path.to_str().expect("a name").to_owned()
        };
        let paths = Paths { stdin: fifo("in"), stdout: fifo("out"), terminal: true, ..Paths::default() };
        let console = Console::listen(dir.path().join("pty")).expect("listens");
        let pty = nix::pty::openpty(None, None).expect("a terminal");
        let mut raw = nix::sys::termios::tcgetattr(&pty.slave).expect("settings");
        nix::sys::termios::cfmakeraw(&mut raw);
        nix::sys::termios::tcsetattr(&pty.slave, nix::sys::termios::SetArg::TCSANOW, &raw).expect("set");
        let stream = UnixStream::connect(&console.path).expect("connects");
        hostsys::file::send_message(stream.as_fd(), b"pty", Some(pty.master.as_fd())).expect("sends");
        let (terminal, held) = Terminal::attach(&console, &paths).expect("attaches");
        drop(pty.master);
        terminal.resize(70, 20).expect("resizes");
        let size = hostsys::file::window_size(pty.slave.as_fd()).expect("a size");
        assert_eq!((size.cols, size.rows), (70, 20));

        let mut slave = std::fs::File::from(pty.slave);
        let mut out = std::fs::File::open(&paths.stdout).expect("opens");
        std::fs::File::options()
            .write(true)
            .open(&paths.stdin)
            .expect("opens")
            .write_all(b"ab")
            .expect("writes");
        let mut typed = [0; 2];
        slave.read_exact(&mut typed).expect("reads");
        assert_eq!(&typed, b"ab");
        let long = vec![b'x'; 100_000];
        let writer = std::thread::spawn(move || slave.write_all(&long).expect("writes"));
        let mut text = Vec::new();
        out.read_to_end(&mut text).expect("reads");
        writer.join().expect("wrote all");
        assert_eq!(text.len(), 100_000);
        drop((terminal, held));
    }
}
