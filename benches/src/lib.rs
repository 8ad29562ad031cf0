//! Benchmarks. The guest programs that `cargo xtask bench` runs natively and in sandboxes are in `guest/`;
//! criterion benches of single crates are to come.
#![forbid(unsafe_code)]
