//! How far one task is here.

/// An operation that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Pull {
        aborting: bool,
    },
    Create,
    /// With the files of this refresh; 0: with its first ones.
    Start(u64),
    /// Up to this one.
    Refresh(u64),
    Drain,
    Stop,
    Remove,
}

/// What is known of the task's process, while it has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Process {
    NotStarted,
    Started,
    Unhealthy,
}

/// What the engine told of the process last, whatever came of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Nothing,
    Running,
}

/// What the cluster wants of the task, here and now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Prepared,
    Running,
    Stopped,
}
