//! A sandbox from outside: its processes, namespaces, cgroups, state directory and life.
#![forbid(unsafe_code)]
