//! What every backend must do, as functions a backend's tests call.
//!
//! Guests are small pieces of machine code; each test says beside the bytes what they are. A failure
//! panics, as tests do. [`TESTS`] are the suite; [`attack`] and [`lifetime`] take something of the backend's own.
#![allow(clippy::expect_used, clippy::panic, missing_docs)]

pub mod attack;
mod elsewhere;
mod kit;
pub mod lifetime;
mod memory;
mod threads;
mod traps;
mod vdso;

use crate::Platform;

pub use kit::{CODE, DATA};

/// One test.
pub type Test = fn(&dyn Platform);

/// All tests, by name.
pub const TESTS: &[(&str, Test)] = &[
    ("syscall_arguments_and_result", traps::syscall_arguments_and_result),
    ("registers_survive", traps::registers_survive),
    ("vectors_survive", traps::vectors_survive),
    ("faults_are_reported", traps::faults_are_reported),
    ("interrupts_reach_user_code", traps::interrupts_reach_user_code),
    ("interrupts_reach_waits", traps::interrupts_reach_waits),
    ("interrupts_wait_for_handlers", traps::interrupts_wait_for_handlers),
    ("kill_is_reported", traps::kill_is_reported),
    ("mappings_change", memory::mappings_change),
    ("files_are_mapped", memory::files_are_mapped),
    ("time_is_told_without_a_trap", vdso::time_is_told_without_a_trap),
    ("copies_stop_at_holes", memory::copies_stop_at_holes),
    ("words_are_exchanged", memory::words_are_exchanged),
    ("spaces_are_changed_from_elsewhere", elsewhere::spaces_are_changed_from_elsewhere),
    ("waiters_are_woken_from_elsewhere", elsewhere::waiters_are_woken_from_elsewhere),
    ("held_threads_act_for_others", elsewhere::held_threads_act_for_others),
    ("forks_are_independent", threads::forks_are_independent),
    ("threads_share", threads::threads_share),
    ("a_handler_that_sleeps_untold_holds_up_nobody", threads::a_handler_that_sleeps_untold_holds_up_nobody),
    ("shared_processes_share", threads::shared_processes_share),
    ("exec_moves_the_thread", threads::exec_moves_the_thread),
];

/// Runs all of them, one after the other.
pub fn run(platform: &dyn Platform) {
    for (name, test) in TESTS {
        tracing_line(name);
        test(platform);
    }
}

/// Says which test runs, where a hanging backend would otherwise tell nothing.
#[allow(clippy::print_stderr)]
fn tracing_line(name: &str) {
    eprintln!("conformance: {name}");
}
