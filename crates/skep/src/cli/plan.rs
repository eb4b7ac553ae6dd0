//! What a change would do, before it is made: which tasks are replaced, in which order, and how
//! many of a service go on meanwhile.

use super::print;
use anyhow::{Result, bail};
use serde_json::Value;
use std::fmt::Write as _;
use std::process::ExitCode;
use types::{FailureAction, ServiceMode, ServiceSpec, UpdateConfig, UpdateOrder};

/// The exit code where something would change; 2 is for a mistyped flag.
const CHANGES: u8 = 3;
/// Longer values are cut.
const VALUE_MAX: usize = 60;

/// What would become of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Created,
    /// It is changed, and nothing of it restarts.
    Changed,
    /// Its tasks are replaced.
    Replaced,
    Removed,
    Kept,
}

/// What would become of everything that a change is about.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    lines: Vec<String>,
    fates: Vec<Fate>,
}

impl Plan {
    /// `name` says what it is, too, e.g. `service web`; `effect` may be empty.
    pub(crate) fn add(&mut self, fate: Fate, name: &str, effect: &str, details: &[String]) {
        let sign = match fate {
            Fate::Created => '+',
            Fate::Changed | Fate::Replaced => '~',
            Fate::Removed => '-',
            Fate::Kept => ' ',
        };
        let colon = if effect.is_empty() { "" } else { ": " };
        self.lines.push(format!("{sign} {name}{colon}{effect}"));
        self.lines.extend(details.iter().map(|detail| format!("    {detail}")));
        self.fates.push(fate);
    }

    /// Adds what would become of a service. Fails where managers would refuse the change.
    pub(crate) fn service(
        &mut self,
        before: Option<&ServiceSpec>,
        after: &ServiceSpec,
    ) -> Result<()> {
        let name = format!("service {}", after.name);
        let Some(before) = before else {
            self.add(Fate::Created, &name, &size(after.mode), &[]);
            return Ok(());
        };
        let (was, is) = (before.mode.as_str(), after.mode.as_str());
        if was != is {
            bail!("{name}: its mode cannot be changed from {was} to {is}: remove it first");
        }
        let is_scheduled = after.labels.contains_key(types::SCHEDULE_LABEL);
        // That is how users run a job again: by writing it.
        let runs_anew = after.mode.is_job() && !is_scheduled;
        let replaces = runs_anew || !before.task.makes_same(&after.task);
        let mut details = Vec::new();
        let (old, new) =
            (engine_api::render_service_spec(before), engine_api::render_service_spec(after));
        differences("", &old, &new, &mut details);
        if !replaces {
            // The same task in other words.
            details.retain(|line| !line.starts_with("TaskTemplate"));
        }
        let mut effects = Vec::new();
        if replaces {
            effects.push(replacement(before.mode, &after.update));
        }
        if before.mode != after.mode {
            effects.push(format!("from {} to {}", size(before.mode), size(after.mode)));
        }
        if !replaces && !details.is_empty() {
            effects.push("no task restarts".to_owned());
        }
        let fate = match (replaces, details.is_empty()) {
            (true, _) => Fate::Replaced,
            (false, false) => Fate::Changed,
            (false, true) => Fate::Kept,
        };
        self.add(fate, &name, &effects.join("; "), &details);
        Ok(())
    }

    /// Shows all of it; the exit code is 3 where something would change.
    pub(crate) fn print(&self) -> ExitCode {
        print(&self.text());
        let changes = self.fates.iter().any(|fate| *fate != Fate::Kept);
        ExitCode::from(if changes { CHANGES } else { 0 })
    }

    fn text(&self) -> String {
        let count = |fate: Fate| self.fates.iter().filter(|it| **it == fate).count();
        let (replaced, changed) = (count(Fate::Replaced), count(Fate::Changed));
        let mut text = self.lines.join("\n");
        let _ = write!(
            text,
            "\n\nPlan: {} to create, {} to change ({replaced} with new tasks), {} to remove, {} as before.\n",
            count(Fate::Created),
            replaced + changed,
            count(Fate::Removed),
            count(Fate::Kept),
        );
        text
    }
}

fn size(mode: ServiceMode) -> String {
    match mode {
        ServiceMode::Replicated { replicas: 1 } => "1 task".to_owned(),
        ServiceMode::Replicated { replicas } => format!("{replicas} tasks"),
        ServiceMode::Global => "a task on each node".to_owned(),
        ServiceMode::ReplicatedJob { total_completions, max_concurrent } => {
            format!("a job of {total_completions} tasks, {max_concurrent} at once")
        }
        ServiceMode::GlobalJob => "a job of a task on each node".to_owned(),
    }
}

/// How the tasks that a service has are replaced, and what goes on meanwhile.
fn replacement(mode: ServiceMode, update: &UpdateConfig) -> String {
    let UpdateConfig { parallelism, delay, order, failure_action, .. } = update;
    let tasks = match mode {
        ServiceMode::Replicated { replicas } => Some(replicas),
        ServiceMode::Global => None,
        ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob => {
            return "stops what runs of the job, and runs it anew".to_owned();
        }
    };
    if tasks == Some(0) {
        return "new tasks, of which it has none at present".to_owned();
    }
    let at_once = match (*parallelism, tasks) {
        (0, Some(tasks)) => Some(tasks),
        (0, None) => None,
        (some, Some(tasks)) => Some(some.min(tasks)),
        (some, None) => Some(some),
    };
    let mut text = match tasks {
        Some(1) => "replaces its task".to_owned(),
        Some(tasks) => format!("replaces its {tasks} tasks"),
        None => "replaces its task on each node".to_owned(),
    };
    match at_once {
        None => text.push_str(", all at once"),
        Some(some) if tasks == Some(some) && some > 1 => text.push_str(", all at once"),
        Some(some) if tasks != Some(1) => {
            let _ = write!(text, ", {some} at a time");
        }
        Some(_) => {}
    }
    if !delay.is_zero() && tasks != Some(1) {
        let _ = write!(text, ", {} apart", super::service::pretty::as_go(*delay));
    }
    text.push_str(match order {
        UpdateOrder::StartFirst => ", each new one before the old one stops: all go on meanwhile",
        UpdateOrder::StopFirst => match (tasks, at_once) {
            (Some(tasks), Some(some)) if some < tasks => "",
            (None, Some(_)) => ", each old one stops first",
            _ => ", the old first: none goes on meanwhile",
        },
    });
    if let (UpdateOrder::StopFirst, Some(tasks), Some(some)) = (order, tasks, at_once)
        && some < tasks
    {
        let _ = write!(text, ", the old first: {} go on meanwhile", tasks - some);
    }
    text.push_str(match failure_action {
        FailureAction::Pause => "; a failure stops it",
        FailureAction::Continue => "; a failure does not stop it",
        FailureAction::Rollback => "; a failure takes it back",
    });
    text
}

/// What differs between two values, one line each.
fn differences(path: &str, before: &Value, after: &Value, lines: &mut Vec<String>) {
    if before == after {
        return;
    }
    if let (Value::Object(old), Value::Object(new)) = (before, after) {
        let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for key in keys {
            let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned();
            let (old, new) = (of(old).unwrap_or_default(), of(new).unwrap_or_default());
            differences(&inner, &old, &new, lines);
        }
        return;
    }
    if let (Value::Array(old), Value::Array(new)) = (before, after) {
        let left = old.iter().filter(|item| !new.contains(item)).map(|item| ('-', item));
        let come = new.iter().filter(|item| !old.contains(item)).map(|item| ('+', item));
        let found: Vec<String> = left
            .chain(come)
            .map(|(sign, item)| format!("{path}: {sign} {}", shown(item)))
            .collect();
        if found.is_empty() {
            lines.push(format!("{path}: in another order"));
        }
        lines.extend(found);
        return;
    }
    lines.push(format!("{path}: {} -> {}", shown(before), shown(after)));
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => "nothing".to_owned(),
        value => value.to_string(),
    };
    match text.char_indices().nth(VALUE_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use std::time::Duration;

    fn web(change: impl FnOnce(&mut ServiceSpec)) -> ServiceSpec {
        let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
        spec.mode = ServiceMode::Replicated { replicas: 3 };
        spec.task.container.image = "web:1".into();
        spec.task.container.env = vec!["A=1".into()];
        change(&mut spec);
        spec
    }

    #[test]
    fn a_plan_says_what_becomes_of_each() {
        let mut plan = Plan::default();
        plan.add(Fate::Created, "network net", "", &[]);
        plan.service(None, &web(|_| {})).unwrap();
        plan.service(Some(&web(|_| {})), &web(|_| {})).unwrap();
        plan.service(
            Some(&web(|_| {})),
            &web(|spec| {
                spec.labels.insert("a".into(), "b".into());
                spec.mode = ServiceMode::Replicated { replicas: 5 };
                // Spelled out, it is what there is anyway.
                spec.task.container.init = Some(false);
            }),
        )
        .unwrap();
        plan.service(
            Some(&web(|_| {})),
            &web(|spec| {
                spec.task.container.image = "web:2".into();
                spec.task.container.env = vec!["A=2".into(), "B=x".into()];
            }),
        )
        .unwrap();
        plan.add(Fate::Removed, "service old", "its 2 tasks stop", &[]);
        expect![[r#"
            + network net
            + service web: 3 tasks
              service web
            ~ service web: from 3 tasks to 5 tasks; no task restarts
                Labels.a: nothing -> "b"
                Mode.Replicated.Replicas: 3 -> 5
            ~ service web: replaces its 3 tasks, 1 at a time, the old first: 2 go on meanwhile; a failure stops it
                TaskTemplate.ContainerSpec.Env: - "A=1"
                TaskTemplate.ContainerSpec.Env: + "A=2"
                TaskTemplate.ContainerSpec.Env: + "B=x"
                TaskTemplate.ContainerSpec.Image: "web:1" -> "web:2"
            - service old: its 2 tasks stop

            Plan: 2 to create, 2 to change (1 with new tasks), 1 to remove, 1 as before.
        "#]]
        .assert_eq(&plan.text());
    }

    #[test]
    fn a_job_is_run_anew_by_what_changes_nothing_and_no_mode_becomes_another() {
        let job = ServiceMode::ReplicatedJob { max_concurrent: 1, total_completions: 2 };
        let migrate = web(|spec| spec.mode = job);
        let mut plan = Plan::default();
        plan.service(Some(&migrate), &migrate).unwrap();
        let hourly = web(|spec| {
            spec.mode = job;
            spec.labels.insert(types::SCHEDULE_LABEL.into(), "@hourly".into());
        });
        plan.service(Some(&hourly), &hourly).unwrap();
        expect![[r"
            ~ service web: stops what runs of the job, and runs it anew
              service web

            Plan: 0 to create, 1 to change (1 with new tasks), 0 to remove, 1 as before.
        "]]
        .assert_eq(&plan.text());
        let refused = plan.service(Some(&migrate), &web(|_| {})).unwrap_err().to_string();
        assert!(
            refused.contains("cannot be changed from replicated-job to replicated"),
            "{refused}"
        );
    }

    #[test]
    fn what_goes_on_meanwhile_follows_from_the_update_settings() {
        let told = |replicas: u64, change: fn(&mut UpdateConfig)| {
            let mut update = UpdateConfig::default();
            change(&mut update);
            replacement(ServiceMode::Replicated { replicas }, &update)
        };
        let cases = [
            told(0, |_| {}),
            told(1, |_| {}),
            told(1, |update| update.order = UpdateOrder::StartFirst),
            told(4, |update| update.parallelism = 0),
            told(4, |update| (update.parallelism, update.delay) = (3, Duration::from_secs(10))),
            told(4, |update| {
                update.order = UpdateOrder::StartFirst;
                update.failure_action = FailureAction::Rollback;
            }),
            told(2, |update| update.parallelism = 9),
            replacement(ServiceMode::Global, &UpdateConfig::default()),
        ];
        expect![[r"
            new tasks, of which it has none at present
            replaces its task, the old first: none goes on meanwhile; a failure stops it
            replaces its task, each new one before the old one stops: all go on meanwhile; a failure stops it
            replaces its 4 tasks, all at once, the old first: none goes on meanwhile; a failure stops it
            replaces its 4 tasks, 3 at a time, 10s apart, the old first: 1 go on meanwhile; a failure stops it
            replaces its 4 tasks, 1 at a time, each new one before the old one stops: all go on meanwhile; a failure takes it back
            replaces its 2 tasks, all at once, the old first: none goes on meanwhile; a failure stops it
            replaces its task on each node, 1 at a time, each old one stops first; a failure stops it"]]
        .assert_eq(&cases.join("\n"));
    }
}
