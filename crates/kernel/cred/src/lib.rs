//! Credentials: ids, capabilities, secure bits and user namespaces.
#![forbid(unsafe_code)]

pub mod change;

use std::sync::Arc;

use bitflags::bitflags;

pub use change::CredError;

bitflags! {
    /// A capability set (`capabilities(7)`), one bit a capability, bit number as on Linux.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct CapSet: u64 {
        /// Change owners.
        const CHOWN = 1 << 0;
        /// Bypass file permission checks.
        const DAC_OVERRIDE = 1 << 1;
        /// Bypass read and search checks.
        const DAC_READ_SEARCH = 1 << 2;
        /// Bypass checks that the caller owns the file.
        const FOWNER = 1 << 3;
        /// Keep set-id bits.
        const FSETID = 1 << 4;
        /// Signal anyone.
        const KILL = 1 << 5;
        /// Change group ids.
        const SETGID = 1 << 6;
        /// Change user ids.
        const SETUID = 1 << 7;
        /// Change capabilities.
        const SETPCAP = 1 << 8;
        /// Change immutable flags.
        const LINUX_IMMUTABLE = 1 << 9;
        /// Bind to low ports.
        const NET_BIND_SERVICE = 1 << 10;
        /// Broadcast.
        const NET_BROADCAST = 1 << 11;
        /// Administer the network.
        const NET_ADMIN = 1 << 12;
        /// Raw sockets.
        const NET_RAW = 1 << 13;
        /// Lock memory.
        const IPC_LOCK = 1 << 14;
        /// Own all System V objects.
        const IPC_OWNER = 1 << 15;
        /// Load modules.
        const SYS_MODULE = 1 << 16;
        /// Raw I/O.
        const SYS_RAWIO = 1 << 17;
        /// `chroot`.
        const SYS_CHROOT = 1 << 18;
        /// Trace anyone.
        const SYS_PTRACE = 1 << 19;
        /// Process accounting.
        const SYS_PACCT = 1 << 20;
        /// Administration.
        const SYS_ADMIN = 1 << 21;
        /// Reboot.
        const SYS_BOOT = 1 << 22;
        /// Priorities.
        const SYS_NICE = 1 << 23;
        /// Override resource limits.
        const SYS_RESOURCE = 1 << 24;
        /// Set clocks.
        const SYS_TIME = 1 << 25;
        /// Configure terminals.
        const SYS_TTY_CONFIG = 1 << 26;
        /// Make device nodes.
        const MKNOD = 1 << 27;
        /// Leases.
        const LEASE = 1 << 28;
        /// Write the audit log.
        const AUDIT_WRITE = 1 << 29;
        /// Control auditing.
        const AUDIT_CONTROL = 1 << 30;
        /// Set file capabilities.
        const SETFCAP = 1 << 31;
        /// Override MAC.
        const MAC_OVERRIDE = 1 << 32;
        /// Administer MAC.
        const MAC_ADMIN = 1 << 33;
        /// Read the kernel log.
        const SYSLOG = 1 << 34;
        /// Wake the machine.
        const WAKE_ALARM = 1 << 35;
        /// Block suspend.
        const BLOCK_SUSPEND = 1 << 36;
        /// Read the audit log.
        const AUDIT_READ = 1 << 37;
        /// Performance events.
        const PERFMON = 1 << 38;
        /// BPF.
        const BPF = 1 << 39;
        /// Checkpoint and restore.
        const CHECKPOINT_RESTORE = 1 << 40;
    }
}

/// Identity and privileges of a task. Immutable: a change makes a new one (`credentials(7)`). All ids
/// are kernel ids, those of the root user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Real user.
    pub uid: u32,
    /// Effective user.
    pub euid: u32,
    /// Saved user.
    pub suid: u32,
    /// User for file accesses.
    pub fsuid: u32,
    /// Real group.
    pub gid: u32,
    /// Effective group.
    pub egid: u32,
    /// Saved group.
    pub sgid: u32,
    /// Group for file accesses.
    pub fsgid: u32,
    /// Supplementary groups, sorted.
    pub groups: Arc<[u32]>,
    /// Permitted capabilities.
    pub permitted: CapSet,
    /// Effective capabilities.
    pub effective: CapSet,
    /// Inheritable capabilities.
    pub inheritable: CapSet,
    /// Bounding set.
    pub bounding: CapSet,
    /// Ambient set.
    pub ambient: CapSet,
    /// `SECBIT_*` (`capabilities(7)`).
    pub securebits: u32,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
}

impl Credentials {
    /// Root with every capability.
    pub fn root() -> Self {
        Self {
            uid: 0,
            euid: 0,
            suid: 0,
            fsuid: 0,
            gid: 0,
            egid: 0,
            sgid: 0,
            fsgid: 0,
            groups: Arc::from([]),
            permitted: CapSet::all(),
            effective: CapSet::all(),
            inheritable: CapSet::empty(),
            bounding: CapSet::all(),
            ambient: CapSet::empty(),
            securebits: 0,
            no_new_privs: false,
        }
    }

    /// An ordinary user without capabilities.
    pub fn user(uid: u32, gid: u32) -> Self {
        Self {
            uid,
            euid: uid,
            suid: uid,
            fsuid: uid,
            gid,
            egid: gid,
            sgid: gid,
            fsgid: gid,
            permitted: CapSet::empty(),
            effective: CapSet::empty(),
            ..Self::root()
        }
    }

    /// Has the capability in effect?
    pub fn capable(&self, cap: CapSet) -> bool {
        self.effective.contains(cap)
    }

    /// Is `gid` the group for file accesses or a supplementary one?
    pub fn in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.groups.binary_search(&gid).is_ok()
    }
}
