//! Calls as a guest makes them, over a tmpfs.

mod files;
mod readiness;
mod system;
