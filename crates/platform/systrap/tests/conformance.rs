//! The conformance suite on systrap.

use platform::conformance;
use platform_systrap::Systrap;

#[test]
fn conforms() {
    let platform = Systrap::new().expect("this machine can run systrap");
    conformance::run(&platform);
}
