//! The base of pseudo file systems: generated directories, text files and links.
#![forbid(unsafe_code)]
