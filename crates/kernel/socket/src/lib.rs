//! Sockets: Unix-domain now, inet and netlink beside them.
#![forbid(unsafe_code)]
