//! What a command printed.

use std::process::Output;

/// What a command printed.
#[derive(Clone, Debug)]
pub struct Shown {
    pub ok: bool,
    /// The exit code; none where a signal ended it.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Shown {
    fn from(output: Output) -> Self {
        Self {
            ok: output.status.success(),
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Shown {
    /// What was printed, where the command succeeded.
    ///
    /// # Panics
    /// Where it failed.
    pub fn good(self) -> String {
        assert!(self.ok, "{}{}", self.out, self.err);
        self.out
    }

    /// The message, where the command failed.
    ///
    /// # Panics
    /// Where it succeeded.
    pub fn bad(self) -> String {
        assert!(!self.ok, "should have failed: {}", self.out);
        self.err
    }
}
