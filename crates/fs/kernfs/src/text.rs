//! Text files: made when read, interpreted when written.

use std::any::Any;
use std::sync::Arc;

use abi::Errno;
use guestmem::{IoSink, IoSource};
use sync::{Mutex, order};
use vfs::{File, FileContext, Result, SeekFrom};

/// Longest text kept for one open file, in bytes; what is longer is cut.
pub const MAX_TEXT: usize = 16 << 20;
/// Longest write a control file takes, in bytes; `EINVAL` beyond.
pub const MAX_WRITE: usize = 65536;

/// The contents of a text file.
pub trait Text: Send + Sync {
    /// The whole text now. Called for a read at offset 0; reads further on see what that one made.
    fn read(&self, cx: &FileContext<'_>) -> Result<Vec<u8>>;

    /// Interprets one write; all of it or nothing.
    fn write(&self, _cx: &FileContext<'_>, _offset: u64, _bytes: &[u8]) -> Result<()> {
        Err(Errno::EIO)
    }
}

impl<F: Fn(&FileContext<'_>) -> Result<Vec<u8>> + Send + Sync> Text for F {
    fn read(&self, cx: &FileContext<'_>) -> Result<Vec<u8>> {
        self(cx)
    }
}

/// An open text file.
pub(crate) struct TextFile {
    text: Arc<dyn Text>,
    /// What the last read at offset 0 made.
    made: Mutex<order::Leaf, Option<Arc<[u8]>>>,
}

impl TextFile {
    pub(crate) fn new(text: Arc<dyn Text>) -> Self {
        Self { text, made: Mutex::new(None) }
    }

    fn bytes(&self, cx: &FileContext<'_>, offset: u64) -> Result<Arc<[u8]>> {
        if offset > 0
            && let Some(made) = self.made.lock().as_ref()
        {
            return Ok(Arc::clone(made));
        }
        let mut text = self.text.read(cx)?;
        text.truncate(MAX_TEXT);
        let text: Arc<[u8]> = text.into();
        *self.made.lock() = Some(Arc::clone(&text));
        Ok(text)
    }
}

/// Seeks where the end is not known: `SEEK_SET` and `SEEK_CUR`.
pub(crate) fn seek(current: u64, to: SeekFrom) -> Result<u64> {
    let target = match to {
        SeekFrom::Start(at) => Some(at),
        SeekFrom::Current(by) => current.checked_add_signed(by),
        SeekFrom::End(_) | SeekFrom::Data(_) | SeekFrom::Hole(_) => None,
    };
    target.filter(|at| i64::try_from(*at).is_ok()).ok_or(Errno::EINVAL)
}

impl File for TextFile {
    fn read(&self, cx: &FileContext<'_>, offset: u64, sink: &mut dyn IoSink) -> Result<usize> {
        let bytes = self.bytes(cx, offset)?;
        let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        if rest.is_empty() { Ok(0) } else { sink.put(rest) }
    }

    fn write(&self, cx: &FileContext<'_>, offset: u64, source: &mut dyn IoSource) -> Result<usize> {
        let len = source.remaining();
        if len > MAX_WRITE {
            return Err(Errno::EINVAL);
        }
        let mut bytes = vec![0; len];
        if source.take(&mut bytes)? < len {
            return Err(Errno::EFAULT);
        }
        self.text.write(cx, offset, &bytes)?;
        Ok(len)
    }

    fn seek(&self, current: u64, to: SeekFrom) -> Result<u64> {
        seek(current, to)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
