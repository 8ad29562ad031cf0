//! Guests end with the platform, and with the program it is in, whatever they are doing.

use platform::conformance::lifetime;
use platform_systrap::Systrap;

fn new() -> Systrap {
    Systrap::new().expect("this machine can run systrap")
}

#[test]
fn dropping_the_platform_ends_its_guests() {
    lifetime::dropping_ends_guests(new());
}

#[test]
fn guests_die_with_their_sentry() {
    // The zygote and two guests.
    lifetime::guests_die_with_their_sentry("victim", 3);
}

/// The program that [`guests_die_with_their_sentry`] kills; no test by itself.
#[test]
fn victim() {
    lifetime::victim(new);
}
