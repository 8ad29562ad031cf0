//! The lock order: every class of lock in the Sentry, outermost first.
//!
//! A thread may take a lock only of a class that stands *below* all classes it holds. Two locks of
//! one class are taken together only through the methods that say how (by address, or parent first);
//! such classes are marked `nested`.

/// A place in the lock order. Implemented only by the classes of this module.
pub trait Class: 'static {
    /// Position, outermost first.
    const RANK: u16;
    /// Name for the panic message.
    const NAME: &'static str;
    /// May several locks of this class be held at once?
    const NESTED: bool;
    /// Is it held while a guest thread carries something out? Then whoever waits for it must first hand
    /// over its duty of serving guests, or the guest thread could never report back.
    const OVER_GUEST: bool;
}

macro_rules! classes {
    ($($(#[$doc:meta])* $name:ident $(: $($trait:ident)+)?;)*) => {
        #[allow(clippy::upper_case_acronyms)]
        #[repr(u16)]
        enum Rank { $($name),* }
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub struct $name;
            impl Class for $name {
                const RANK: u16 = Rank::$name as u16;
                const NAME: &'static str = stringify!($name);
                const NESTED: bool = classes!(@has nested $($($trait)+)?);
                const OVER_GUEST: bool = classes!(@has over_guest $($($trait)+)?);
            }
        )*
    };
    (@has $wanted:ident) => { false };
    (@has nested nested $($rest:ident)*) => { true };
    (@has over_guest over_guest $($rest:ident)*) => { true };
    (@has $wanted:ident $other:ident $($rest:ident)*) => { classes!(@has $wanted $($rest)*) };
}

classes! {
    /// The set of containers of a sandbox.
    Containers;
    /// The process table: tasks, groups, sessions, parents and children.
    Tasks;
    /// A thread group's signal state: actions, shared queue, stop state.
    SignalHandlers;
    /// One task's own signal queue and mask.
    TaskSignals: nested;
    /// Serialises renames between directories of one file system.
    Rename;
    /// A mount namespace's tree.
    Mounts;
    /// Children of a dentry; parent before child.
    Dentry: nested;
    /// An inode's metadata; where two are needed, parent before child, else by address.
    Inode: nested;
    /// A task's root, working directory and umask.
    FsContext;
    /// A descriptor table.
    FdTable: nested;
    /// An open file description's offset.
    FileOffset: nested;
    /// State private to one kind of file (pipe, terminal, socket, epoll); peers by address.
    FileState: nested;
    /// Advisory locks of one inode.
    FileLocks;
    /// An address space's VMA tree.
    Vmas: nested over_guest;
    /// Futex buckets.
    Futex: nested;
    /// System V objects and their registries.
    Ipc: nested;
    /// User namespaces and per-user counts.
    Users: nested;
    /// The timer queue.
    Timers;
    /// The TCP/IP stack of the links to the outside.
    Network;
    /// Waiters of one queue.
    Waiters: nested;
    /// A platform backend's own tables.
    Platform: nested;
    /// Connections to the Gofer.
    Gofer: nested;
    /// Caches and free lists, taken last.
    Leaf: nested;
}
