//! Messages between runsc and a running sandbox, over one Unix socket.
#![forbid(unsafe_code)]
