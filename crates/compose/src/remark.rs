//! Errors and warnings, each with its place.

use crate::Loaded;
use crate::project::Project;
use crate::tree::{Node, Position};
use std::fmt;

/// Errors that are shown at once; a file that is no stack file at all has thousands.
const ERRORS_MAX: usize = 20;
/// Warnings that are kept.
const WARNINGS_MAX: usize = 200;

/// Something to tell the user about a place in a stack file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    pub file: String,
    /// Counts from 1; 0 where the place is not known.
    pub line: u64,
    pub column: u64,
    /// E.g. `services.web.ports[0]`; empty for the whole file.
    pub path: String,
    pub text: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.text)
    }
}

/// Why stack files cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    #[error("there is no stack file")]
    NoFile,
    /// At least one.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Remark>),
}

/// Collects errors and warnings while files are read, so that a user sees all of them.
#[derive(Debug, Default)]
pub(crate) struct Log {
    errors: Vec<Remark>,
    warnings: Vec<Remark>,
}

impl Log {
    pub(crate) fn error(&mut self, node: &Node, text: impl Into<String>) {
        self.error_at(&node.at, &node.path, text);
    }

    pub(crate) fn error_at(&mut self, at: &Position, path: &str, text: impl Into<String>) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(remark(at, path, text.into()));
        }
    }

    pub(crate) fn warn(&mut self, node: &Node, text: impl Into<String>) {
        self.warn_at(&node.at, &node.path, text);
    }

    pub(crate) fn warn_at(&mut self, at: &Position, path: &str, text: impl Into<String>) {
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(remark(at, path, text.into()));
        }
    }

    /// Remarks come in the order of the file, not in the order in which it was read.
    pub(crate) fn finish(mut self, project: Project) -> Result<Loaded, ComposeError> {
        for remarks in [&mut self.errors, &mut self.warnings] {
            remarks.sort_by(|one, other| {
                (&one.file, one.line, one.column).cmp(&(&other.file, other.line, other.column))
            });
        }
        if self.errors.is_empty() {
            Ok(Loaded { project, warnings: self.warnings })
        } else {
            Err(ComposeError::Invalid(self.errors))
        }
    }
}

fn remark(at: &Position, path: &str, text: String) -> Remark {
    Remark {
        file: at.file.to_string(),
        line: at.line,
        column: at.column,
        path: path.to_owned(),
        text,
    }
}
