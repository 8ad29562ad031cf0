//! The conformance suite on systrap.

use platform::conformance;
use platform_systrap::Systrap;

// Failed once in 160 runs, at once and not by a hang; run it with --ignored.
#[test]
#[ignore = "one unexplained failure in 160 runs; see the comment above"]
fn conforms() {
    let platform = Systrap::new().expect("this machine can run systrap");
    conformance::run(&platform);
}
