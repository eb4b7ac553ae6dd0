//! Stack files: from text to what the cluster is asked for.
//!
//! Reads one or more Compose files (format 3, as `docker stack deploy` takes them) and returns
//! networks and services as the cluster's own specs, named and labelled for their stack. It knows
//! no socket, no file and no environment but what the caller hands it. Start with [`load`].
//!
//! The way of a file: [`tree`] (YAML with the place of every value), [`interpolate`] (variables in
//! values), [`assemble`] (what files include and services extend) with [`merge`] (one over another), then [`project`] and its neighbours, which turn the tree
//! into specs.
//!
//! Invariants: nothing in a file is dropped silently. A key is honoured, or a warning says that it
//! is not, or it is an error; each names file, line and column. All errors of a file are reported
//! at once. Arbitrary text never panics.

mod access;
mod assemble;
mod deploy;
mod dotenv;
mod extends;
mod fields;
mod file;
mod health;
mod include;
mod interpolate;
mod merge;
mod network;
mod order;
mod paths;
mod port;
mod project;
mod remark;
mod scalar;
mod service;
mod shell;
mod tree;
mod volume;

pub use dotenv::variables;
pub use file::StackFile;
pub use order::{Condition, Dependency};
pub use port::parse_short as parse_port;
pub use project::{Project, StackNetwork};
pub use remark::{ComposeError, Remark};
pub use scalar::capability;
pub use shell::split;

use std::collections::BTreeMap;
use std::path::Path;

/// The label of everything that belongs to a stack.
pub const LABEL_NAMESPACE: &str = types::STACK_LABEL;
/// The label of a service that keeps the image as the user wrote it.
pub const LABEL_IMAGE: &str = "com.docker.stack.image";

/// What a stack file is read with.
pub struct Around<'a> {
    /// The stack's name: the prefix of every name in the cluster.
    pub stack: &'a str,
    /// The absolute folder that relative paths in the files start from.
    pub folder: &'a Path,
    /// The variables for `${NAME}`.
    pub env: &'a BTreeMap<String, String>,
    /// The profiles that are active; `*` is every one.
    pub profiles: &'a [String],
    /// Reads what files name: others to include or extend, an `env_file`, what is in secrets and configs.
    pub read: &'a dyn Fn(&Path) -> Result<Vec<u8>, String>,
}

/// A stack as it was read, and what the user should know about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub project: Project,
    pub warnings: Vec<Remark>,
}

/// Reads stack files, each a name and its text; later ones override earlier ones.
pub fn load(files: &[(String, String)], around: &Around<'_>) -> Result<Loaded, ComposeError> {
    if files.is_empty() {
        return Err(ComposeError::NoFile);
    }
    let mut log = remark::Log::default();
    let whole = assemble::whole(files, around, &mut log);
    let project = whole.map(|node| project::read(&node, around, &mut log));
    log.finish(project.unwrap_or_default())
}
