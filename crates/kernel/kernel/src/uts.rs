//! The names of a system (`uname(2)`, `sethostname(2)`): the state of a UTS namespace.

use abi::Errno;
use sync::{Mutex, order};

/// Longest host or domain name (`__NEW_UTS_LEN`).
pub const NAME_MAX: usize = 64;

/// Host and domain name.
#[derive(Debug)]
pub struct Uts(Mutex<order::Leaf, [Vec<u8>; 2]>);

impl Default for Uts {
    /// As a kernel that has been told nothing: `(none)`.
    fn default() -> Self {
        Self(Mutex::new([b"(none)".to_vec(), b"(none)".to_vec()]))
    }
}

impl Uts {
    /// Host name.
    pub fn hostname(&self) -> Vec<u8> {
        self.0.lock()[0].clone()
    }

    /// NIS domain name.
    pub fn domainname(&self) -> Vec<u8> {
        self.0.lock()[1].clone()
    }

    /// Sets the host name; `EINVAL` when it is too long. Whether the caller may is its business.
    pub fn set_hostname(&self, name: &[u8]) -> Result<(), Errno> {
        self.set(0, name)
    }

    /// Sets the domain name, likewise.
    pub fn set_domainname(&self, name: &[u8]) -> Result<(), Errno> {
        self.set(1, name)
    }

    fn set(&self, which: usize, name: &[u8]) -> Result<(), Errno> {
        if name.len() > NAME_MAX {
            return Err(Errno::EINVAL);
        }
        if let Some(slot) = self.0.lock().get_mut(which) {
            name.clone_into(slot);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Uts;

    #[test]
    fn names_are_bounded() {
        let uts = Uts::default();
        assert_eq!(uts.hostname(), b"(none)");
        uts.set_hostname(b"box").expect("short");
        assert_eq!((uts.hostname(), uts.domainname()), (b"box".to_vec(), b"(none)".to_vec()));
        assert_eq!(uts.set_domainname(&[b'x'; 65]), Err(abi::Errno::EINVAL));
    }
}
