//! The conformance suite on systrap.

use platform::{Platform, conformance};
use platform_systrap::Systrap;

#[test]
fn conforms() {
    let platform = Systrap::new().expect("this machine can run systrap");
    assert!(platform.features().host_vdso, "the host's vDSO cannot be given to guests");
    conformance::run(&platform);
}
