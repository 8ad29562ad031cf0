//! The conformance suite on ptrace.

use platform::{Platform, conformance};
use platform_ptrace::Ptrace;

#[test]
fn conforms() {
    let platform = Ptrace::new().expect("this machine can run ptrace");
    assert!(platform.features().host_vdso, "the host's vDSO cannot be given to guests");
    conformance::run(&platform);
}
