//! Guest programs run natively and in a sandbox, with their output compared: Linux is the oracle.
#![forbid(unsafe_code)]
