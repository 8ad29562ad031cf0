//! [`ExecFile`] over an open file of the VFS.

use std::sync::Arc;

use abi::Errno;
use cred::Credentials;
use guestmem::SliceSink;
use memmap::Mappable;
use vfs::FileContext;

use crate::ExecFile;

/// A file the kernel opened for execution.
pub struct OpenedFile {
    file: Arc<dyn vfs::File>,
    path: Vec<u8>,
    cred: Arc<Credentials>,
}

impl OpenedFile {
    /// `path` is what `/proc/PID/exe` shows; `cred` is who executes it.
    pub fn new(file: Arc<dyn vfs::File>, path: Vec<u8>, cred: Arc<Credentials>) -> Self {
        Self { file, path, cred }
    }
}

impl ExecFile for OpenedFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        // Reading a regular file asks no ids of the reader.
        let cx = FileContext { cred: &self.cred, pid: 0, tid: 0 };
        self.file.read(&cx, offset, &mut SliceSink::new(buf))
    }

    fn mappable(&self) -> Result<Arc<dyn Mappable>, Errno> {
        self.file.mappable().ok_or(Errno::ENODEV)
    }

    fn path(&self) -> Vec<u8> {
        self.path.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::any::Any;
    use std::sync::Arc;

    use abi::Errno;
    use cred::Credentials;
    use guestmem::IoSink;
    use vfs::FileContext;

    use super::OpenedFile;
    use crate::ExecFile;

    struct Text;

    impl vfs::File for Text {
        fn read(&self, _: &FileContext<'_>, offset: u64, sink: &mut dyn IoSink) -> vfs::Result<usize> {
            sink.put(b"#!/bin/sh\n".get(offset as usize..).unwrap_or_default())
        }

        fn as_any(&self) -> &dyn Any {
            self
        }
    }

    #[test]
    fn reads_at_an_offset_and_cannot_map_what_cannot_be_mapped() {
        let file = OpenedFile::new(Arc::new(Text), b"/s".to_vec(), Arc::new(Credentials::root()));
        let mut buf = [0; 4];
        assert_eq!(file.read_at(2, &mut buf), Ok(4));
        assert_eq!(&buf, b"/bin");
        assert_eq!(file.read_at(10, &mut buf), Ok(0));
        assert_eq!(file.mappable().err(), Some(Errno::ENODEV));
    }
}
