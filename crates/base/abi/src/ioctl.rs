//! `ioctl(2)` requests and their structures.
