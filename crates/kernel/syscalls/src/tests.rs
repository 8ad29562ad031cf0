//! Calls as a guest makes them, over a tmpfs.

mod anything;
mod files;
mod readiness;
mod system;
