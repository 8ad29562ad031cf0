//! Signals as data: sets, queues, actions, and the x86-64 signal frame.
#![forbid(unsafe_code)]
