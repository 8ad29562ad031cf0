//! A socket as a file.

use std::any::Any;
use std::sync::Arc;

use abi::poll::PollEvents;
use abi::socket::MsgFlags;
use guestmem::{IoSink, IoSource};
use memmap::Mappable;
use sync::wait::WaitQueue;
use vfs::{File, FileContext, IoctlRequest, OpenFile, Result};

use crate::options::Options;
use crate::{Ancillary, Asker, Outgoing, Socket};

/// What the descriptor of a socket refers to: the socket, and the options that are the same for all.
pub struct SocketFile {
    socket: Arc<dyn Socket>,
    pub(crate) options: Options,
}

impl SocketFile {
    /// With default options.
    pub fn new(socket: Arc<dyn Socket>) -> Arc<Self> {
        Arc::new(Self { socket, options: Options::default() })
    }

    /// The socket behind a description; `None` when that is something else.
    pub fn of(file: &OpenFile) -> Option<&Self> {
        file.file().as_any().downcast_ref()
    }

    /// The socket.
    pub fn socket(&self) -> &Arc<dyn Socket> {
        &self.socket
    }
}

impl File for SocketFile {
    fn read(&self, _cx: &FileContext<'_>, _offset: u64, sink: &mut dyn IoSink) -> Result<usize> {
        // Unlike recv(2), read(2) of nothing does not look at the socket.
        if sink.remaining() == 0 {
            return Ok(0);
        }
        self.socket.receive(sink, MsgFlags::empty()).map(|received| received.bytes)
    }

    fn write(&self, cx: &FileContext<'_>, _offset: u64, source: &mut dyn IoSource) -> Result<usize> {
        let message = Outgoing { flags: MsgFlags::empty(), to: None, ancillary: &Ancillary::default() };
        Ok(self.socket.send(&Asker::plain(cx), source, &message)?)
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self) -> PollEvents {
        self.socket.poll()
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(self.socket.wait_queue())
    }

    fn ioctl(&self, _cx: &FileContext<'_>, request: &IoctlRequest<'_>) -> Result<u64> {
        self.socket.ioctl(request)
    }

    fn mappable(&self) -> Option<Arc<dyn Mappable>> {
        self.socket.mappable()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
