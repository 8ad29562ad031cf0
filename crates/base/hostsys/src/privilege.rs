//! Giving up privileges, for good.

mod raw;

use abi::Errno;
use caps::{CapSet, Capability, CapsHashSet};
use thiserror::Error;

/// Why privileges could not be given up.
#[derive(Debug, Error)]
pub enum PrivilegeError {
    /// A set of capabilities cannot be changed.
    #[error("cannot drop capabilities: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    /// A capability stays in the bounding set.
    #[error("cannot drop capability {0} from the bounding set: {1}")]
    Bounding(u32, Errno),
    /// `PR_SET_NO_NEW_PRIVS` failed.
    #[error("cannot set no_new_privs: {0}")]
    NoNewPrivs(Errno),
}

/// Keeps only `kept` of the calling thread's capabilities, in the permitted and effective sets; empties
/// the bounding, inheritable and ambient ones (`capabilities(7)`), and sets `no_new_privs`. Capabilities
/// that are not held are not gained.
pub fn keep_only(kept: &[Capability]) -> Result<(), PrivilegeError> {
    empty_bounding_set()?;
    let wanted: CapsHashSet = kept.iter().copied().collect();
    let held = caps::read(None, CapSet::Permitted)?;
    let kept = held.intersection(&wanted).copied().collect();
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    nix::sys::prctl::set_no_new_privs().map_err(|error| PrivilegeError::NoNewPrivs(crate::errno(error)))
}

/// By number up to the first that the host does not know, so that one newer than this program goes too.
fn empty_bounding_set() -> Result<(), PrivilegeError> {
    for number in 0..64 {
        match raw::in_bounding_set(number) {
            Ok(true) => {
                raw::drop_from_bounding_set(number)
                    .map_err(|error| PrivilegeError::Bounding(number, error))?;
            }
            Ok(false) => {}
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::keep_only;
    use caps::Capability;
    use std::process::Command;

    const CHILD: &str = "HOSTSYS_PRIVILEGE_CHILD";

    #[test]
    fn only_what_is_kept_is_left() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let output = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "privilege::tests::child", "--nocapture", "--test-threads=1"])
            .env(CHILD, "1")
            .output()
            .expect("runs");
        assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The body of that child; passes when it is not one.
    #[test]
    fn child() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        keep_only(&[Capability::CAP_CHOWN]).expect("drops");
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("status");
        let field = |name| {
            let line = status.lines().find(|line| line.starts_with(name)).expect("field");
            u64::from_str_radix(line.split_whitespace().nth(1).expect("value"), 16).expect("number")
        };
        assert_eq!([field("CapPrm"), field("CapEff")], [1, 1]);
        assert_eq!([field("CapBnd"), field("CapInh"), field("CapAmb")], [0, 0, 0]);
        assert_eq!(field("NoNewPrivs"), 1);
        std::process::exit(7);
    }
}
