//! What happened in a run, for people and for comparing two runs.

use std::time::Duration;

/// How much of a run is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Nothing: the quickest.
    #[default]
    Nothing,
    /// What a person wants to read: users, faults, tasks, nodes.
    Story,
    /// Every message and every event: two runs of a seed have the same.
    Everything,
}

/// Lines of a run, oldest first.
#[derive(Debug, Default)]
pub struct History {
    detail: Detail,
    lines: Vec<String>,
}

impl History {
    pub fn new(detail: Detail) -> Self {
        Self { detail, lines: Vec::new() }
    }

    /// Notes what a person wants to read.
    pub fn tell(&mut self, now: Duration, line: impl FnOnce() -> String) {
        self.note(Detail::Story, now, line);
    }

    /// Notes what only shows that two runs are the same.
    pub fn trace(&mut self, now: Duration, line: impl FnOnce() -> String) {
        self.note(Detail::Everything, now, line);
    }

    fn note(&mut self, detail: Detail, now: Duration, line: impl FnOnce() -> String) {
        if detail <= self.detail {
            self.lines.push(format!("{:>10.4} {}", now.as_secs_f64(), line()));
        }
    }

    /// Says whether people want to read of it.
    pub fn is_told(&self) -> bool {
        self.detail >= Detail::Story
    }

    pub fn into_lines(self) -> Vec<String> {
        self.lines
    }
}
