//! Clocks and timers: the clock trait, and one timer thread for all deadlines.
#![forbid(unsafe_code)]
