//! Containers of a machine: what they do by themselves.

use crate::random::Random;
use crate::user::Image;
use std::time::Duration;
use types::{Task, TaskId};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Created,
    Running,
    Exited(i32),
}

#[derive(Clone, Debug)]
pub struct Container {
    pub task: TaskId,
    pub image: Image,
    pub has_health_check: bool,
    pub healthy: Option<bool>,
    pub state: State,
    /// Counts what is planned of it: what was planned of a process that is over does not happen.
    pub plans: u64,
}

/// What a process will do by itself.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    Exits(i32),
    Healthy(bool),
}

impl Container {
    pub fn new(task: &Task) -> Self {
        let spec = &task.spec.container;
        Self {
            task: task.id.clone(),
            image: Image::of(&spec.image),
            has_health_check: spec.health.is_some(),
            healthy: None,
            state: State::Created,
            plans: 0,
        }
    }

    pub fn is_running(&self) -> bool {
        self.state == State::Running
    }

    /// What the process that starts now will do, and when.
    pub fn fates(&self, random: &mut Random) -> Vec<(Duration, Fate)> {
        let mut fates = Vec::new();
        if self.has_health_check {
            fates.push((random.millis(200, 4_000), Fate::Healthy(true)));
        }
        match self.image {
            Image::Good | Image::Large | Image::Stubborn | Image::Missing | Image::Broken => {}
            Image::Brief => fates.push((random.millis(5, 3_000), Fate::Exits(1))),
            Image::Job => fates.push((random.seconds(1, 20), Fate::Exits(0))),
            Image::Sick => fates.push((random.seconds(1, 30), Fate::Healthy(false))),
        }
        fates
    }

    /// How long it takes to stop when it is told to.
    pub fn stops_in(&self, grace: Duration, random: &mut Random) -> Duration {
        match self.image {
            Image::Stubborn => grace,
            _ if grace.is_zero() => random.millis(2, 50),
            Image::Good
            | Image::Large
            | Image::Brief
            | Image::Job
            | Image::Missing
            | Image::Broken
            | Image::Sick => random.millis(5, 1_500).min(grace),
        }
    }
}
