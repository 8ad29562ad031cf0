//! Request numbers of `ioctl(2)` that are not of one device only (`ioctl_tty(2)`, `ioctl_list(2)`).

macro_rules! requests {
    ($($name:ident = $value:literal, $doc:literal;)*) => {
        $(#[doc = $doc] pub const $name: u32 = $value;)*
    };
}

requests! {
    TCGETS = 0x5401, "Get the terminal's modes.";
    TCSETS = 0x5402, "Set them now.";
    TCSETSW = 0x5403, "Set them after the output has drained.";
    TCSETSF = 0x5404, "As `TCSETSW`, and discard input.";
    TCSBRK = 0x5409, "Send a break, or wait for output.";
    TCXONC = 0x540a, "Stop or start output.";
    TCFLSH = 0x540b, "Discard queues.";
    TIOCEXCL = 0x540c, "Exclusive mode.";
    TIOCNXCL = 0x540d, "No exclusive mode.";
    TIOCSCTTY = 0x540e, "Become the controlling terminal.";
    TIOCGPGRP = 0x540f, "Get the foreground process group.";
    TIOCSPGRP = 0x5410, "Set it.";
    TIOCOUTQ = 0x5411, "Bytes of output not taken yet.";
    TIOCSTI = 0x5412, "Fake input.";
    TIOCGWINSZ = 0x5413, "Get the window size.";
    TIOCSWINSZ = 0x5414, "Set it.";
    FIONREAD = 0x541b, "Bytes that can be read.";
    TIOCPKT = 0x5420, "Packet mode of a master.";
    FIONBIO = 0x5421, "Set or clear non-blocking mode.";
    TIOCNOTTY = 0x5422, "Give the controlling terminal up.";
    TIOCSETD = 0x5423, "Set the line discipline.";
    TIOCGETD = 0x5424, "Get it.";
    TCSBRKP = 0x5425, "Send a break of a given length.";
    TIOCGSID = 0x5429, "Session of the terminal.";
    TCGETS2 = 0x802c542a, "As `TCGETS`, with speeds.";
    TCSETS2 = 0x402c542b, "As `TCSETS`, with speeds.";
    TCSETSW2 = 0x402c542c, "As `TCSETSW`, with speeds.";
    TCSETSF2 = 0x402c542d, "As `TCSETSF`, with speeds.";
    TIOCGPTN = 0x80045430, "Number of a pseudo-terminal.";
    TIOCSPTLCK = 0x40045431, "Lock or unlock its other end.";
    TIOCSIG = 0x40045436, "Signal the other end.";
    TIOCGPKT = 0x80045438, "Is packet mode on?";
    TIOCGPTLCK = 0x80045439, "Is the other end locked?";
    FIONCLEX = 0x5450, "Clear close-on-exec.";
    FIOCLEX = 0x5451, "Set close-on-exec.";
    FIOASYNC = 0x5452, "Set or clear signal-driven I/O.";
    FIOQSIZE = 0x5460, "Size of a file or directory.";
}
