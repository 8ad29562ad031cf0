//! The systrap platform: guests as host processes with private memory, caught by seccomp.
