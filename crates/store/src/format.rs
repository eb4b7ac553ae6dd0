//! The format of what is stored.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The form that changes in the log and snapshots have. What says none has the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Format(pub u32);

impl Format {
    /// The newest that this release reads. It rises with every change that a former release would
    /// take for something else; what was written before is still read.
    pub const PRESENT: Self = Self(3);

    /// The one that is written while nothing that is stored is of a later one: managers of the release
    /// before read it, too.
    pub const LEAST: Self = Self(2);

    /// The first with secrets, configs, and services that are jobs: a former release would run those for
    /// ever.
    pub(crate) const FILES: Self = Self(3);

    /// Says whether it is understood: a newer one is not.
    pub fn is_known(self) -> bool {
        self <= Self::PRESENT
    }
}

impl Default for Format {
    fn default() -> Self {
        Self(1)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
