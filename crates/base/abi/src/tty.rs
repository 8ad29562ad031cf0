//! Terminals: `termios`, window size (`termios(3)`, `ioctl_tty(2)`).
