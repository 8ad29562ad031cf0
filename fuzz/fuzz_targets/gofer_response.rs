//! libFuzzer on [`rampart_tests::fuzz::gofer::response`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rampart_tests::fuzz::gofer::response(data));
