//! Descriptors of mapped files among the guests', kept for a while: a program maps the same ones again and again.

use std::os::fd::AsFd;
use std::sync::{Arc, Weak};

use memmap::HostObject;
use parking_lot::Mutex;
use platform::PlatformError;

use crate::master::Master;

/// Most descriptors kept.
const MOST: usize = 64;

/// A descriptor that guests have, while this lives.
pub(crate) struct Given {
    pub(crate) number: i32,
    master: Arc<Master>,
}

impl Drop for Given {
    fn drop(&mut self) {
        self.master.take_back(self.number);
    }
}

/// See the module.
pub(crate) struct Files {
    master: Arc<Master>,
    /// By object; the oldest first.
    kept: Mutex<Vec<(Weak<HostObject>, Arc<Given>)>>,
}

impl Files {
    /// Without any.
    pub(crate) fn new(master: Arc<Master>) -> Self {
        Self { master, kept: Mutex::default() }
    }

    /// Guests' descriptor of `object`, which stays while the caller holds it.
    pub(crate) fn given(&self, object: &Arc<HostObject>) -> Result<Arc<Given>, PlatformError> {
        let mut kept = self.kept.lock();
        let place = Arc::as_ptr(object);
        if let Some((_, given)) = kept.iter().find(|(of, _)| of.as_ptr() == place) {
            return Ok(Arc::clone(given));
        }
        let number = self.master.give(object.as_fd())?;
        let given = Arc::new(Given { number, master: Arc::clone(&self.master) });
        if kept.len() >= MOST {
            kept.remove(0);
        }
        kept.push((Arc::downgrade(object), Arc::clone(&given)));
        Ok(given)
    }

    /// Lets go of files that nobody else has any more.
    pub(crate) fn sweep(&self) {
        self.kept.lock().retain(|(object, _)| object.strong_count() > 0);
    }
}
