//! The protocol between Sentry and Gofer: messages, checks, and their framing.
#![forbid(unsafe_code)]
