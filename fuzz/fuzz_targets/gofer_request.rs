//! libFuzzer on [`rampart_tests::fuzz::gofer::request`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rampart_tests::fuzz::gofer::request(data));
