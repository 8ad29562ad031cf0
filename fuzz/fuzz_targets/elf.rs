//! libFuzzer on [`rampart_tests::fuzz::elf::load`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rampart_tests::fuzz::elf::load(data));
