//! Volumes: directories with names.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use types::{Labels, Timestamp};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    pub name: String,
    pub labels: Labels,
    pub created: Timestamp,
    /// Made for one container, without a name of its own.
    pub anonymous: bool,
    /// Where its files are.
    #[serde(skip)]
    pub path: PathBuf,
}
