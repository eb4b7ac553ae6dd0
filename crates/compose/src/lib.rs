//! Stack files: from text to what the cluster is asked for.
//!
//! Reads one or more Compose files (format 3, as `docker stack deploy` takes them) and returns
//! networks and services as the cluster's own specs, named and labelled for their stack. It knows
//! no socket, no file and no environment but what the caller hands it. Start with [`load`].
//!
//! The way of a file: [`tree`] (YAML with the place of every value), [`interpolate`] (variables in
//! values), [`merge`] (several files), then [`project`] and its neighbours, which turn the tree
//! into specs.
//!
//! Invariants: nothing in a file is dropped silently. A key is honoured, or a warning says that it
//! is not, or it is an error; each names file, line and column. All errors of a file are reported
//! at once. Arbitrary text never panics.

mod deploy;
mod fields;
mod file;
mod health;
mod interpolate;
mod merge;
mod network;
mod port;
mod project;
mod remark;
mod scalar;
mod service;
mod shell;
mod tree;
mod volume;

pub use file::StackFile;
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
    /// Reads an `env_file`, and what is in secrets and configs.
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
    let mut whole: Option<tree::Node> = None;
    for (name, text) in files {
        let Some(mut node) = tree::parse(name, text, &mut log) else { continue };
        if node.value == tree::Value::Null {
            log.error(&node, "the file is empty");
            continue;
        }
        project::check_version(&node, &mut log);
        interpolate::file(&mut node, around.env, &mut log);
        whole = Some(match whole {
            None => node,
            Some(base) => merge::merge(base, node),
        });
    }
    let project = whole.map(|node| project::read(&node, around, &mut log));
    log.finish(project.unwrap_or_default())
}
