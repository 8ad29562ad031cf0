//! libFuzzer on [`rampart_tests::fuzz::frames::frames`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rampart_tests::fuzz::frames::frames(data));
