//! What a filter decides: the value it returns (`SECCOMP_RET_*`, `seccomp(2)`).

/// A decoded filter result, the harshest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Kill the process as if by SIGSYS.
    KillProcess,
    /// Kill the thread as if by SIGSYS.
    KillThread,
    /// Send SIGSYS; the data goes to `si_errno`.
    Trap(u16),
    /// Fail with this errno (0 succeeds without running; above 4095 counts as 4095).
    Errno(u16),
    /// Ask the listener.
    UserNotif,
    /// Ask the tracer; the data is its event message.
    Trace(u16),
    /// Run it, and log it.
    Log,
    /// Run it.
    Allow,
}

impl Action {
    /// The value a filter returns for it.
    pub const fn to_raw(self) -> u32 {
        match self {
            Self::KillProcess => 0x8000_0000,
            Self::KillThread => 0,
            Self::Trap(data) => 0x0003_0000 | data as u32,
            Self::Errno(data) => 0x0005_0000 | data as u32,
            Self::UserNotif => 0x7fc0_0000,
            Self::Trace(data) => 0x7ff0_0000 | data as u32,
            Self::Log => 0x7ffc_0000,
            Self::Allow => 0x7fff_0000,
        }
    }

    /// What Linux does with a value returned: an action it does not know kills the process.
    pub const fn from_raw(raw: u32) -> Self {
        let data = raw as u16;
        match raw & 0xffff_0000 {
            0 => Self::KillThread,
            0x0003_0000 => Self::Trap(data),
            0x0005_0000 => Self::Errno(data),
            0x7fc0_0000 => Self::UserNotif,
            0x7ff0_0000 => Self::Trace(data),
            0x7ffc_0000 => Self::Log,
            0x7fff_0000 => Self::Allow,
            _ => Self::KillProcess,
        }
    }

    /// Where the action stands when several filters judge one call: the lowest wins, and of equals
    /// the filter installed last. The data does not count.
    pub const fn precedence(self) -> i32 {
        (self.to_raw() & 0xffff_0000) as i32
    }
}

#[cfg(test)]
mod tests {
    use super::Action;

    const ALL: [Action; 8] = [
        Action::KillProcess,
        Action::KillThread,
        Action::Trap(7),
        Action::Errno(38),
        Action::UserNotif,
        Action::Trace(9),
        Action::Log,
        Action::Allow,
    ];

    #[test]
    fn raw_values_round_trip_and_rank_as_declared() {
        for action in ALL {
            assert_eq!(Action::from_raw(action.to_raw()), action);
        }
        assert!(ALL.is_sorted_by_key(|action| action.precedence()));
        assert_eq!(Action::from_raw(0x1234_0000), Action::KillProcess);
    }
}
