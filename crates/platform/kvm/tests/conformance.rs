//! The conformance suite on KVM.

use platform::conformance;
use platform_kvm::Kvm;

#[test]
fn conforms() {
    let platform = match Kvm::new() {
        Ok(platform) => platform,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    conformance::run(&platform);
}
