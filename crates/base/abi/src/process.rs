//! Processes: clone flags, wait status, `prctl` options, `rusage` (`clone(2)`, `wait(2)`).
