//! System V shared memory, semaphores and message queues, and their namespace.
#![forbid(unsafe_code)]
