//! Benchmarks. The guest programs that `cargo xtask bench` runs natively and in sandboxes are in `guest/`, its loads of
//! real programs in `apps/`; criterion benches of single crates are in `benches/` (`cargo bench -p rampart-benches`), one
//! a layer whose time shows in calls: path walk, mappings, the Gofer's messages.
#![forbid(unsafe_code)]
