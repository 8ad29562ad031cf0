//! Locks with an order, wait queues, and the hook that tells a platform a thread is about to block.
#![forbid(unsafe_code)]
