//! The conformance suite on systrap.

use platform::conformance;
use platform_systrap::Systrap;

// Flaky: `threads_share` sometimes waits for an end of the process that never comes. Run it with --ignored.
#[test]
#[ignore = "threads_share hangs now and then: the end of the process is not always reported"]
fn conforms() {
    let platform = Systrap::new().expect("this machine can run systrap");
    conformance::run(&platform);
}
