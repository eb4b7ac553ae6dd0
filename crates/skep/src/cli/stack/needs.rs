//! What a new service of a stack waits for before it is created: `depends_on`.

use crate::cli::progress::job::Job;
use crate::cli::query::{filters, text};
use crate::cli::say;
use crate::cli::tasks::{has_ended, newest_of_slots};
use crate::client::{Client, escape};
use anyhow::{Result, bail};
use compose::{Condition, Dependency};
use serde_json::Value;
use std::time::Duration;

/// How often the cluster is asked.
const PERIOD: Duration = Duration::from_millis(250);

/// How far a service is that another one waits for.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Met,
    NotYet,
    /// It never will be, for this reason.
    Never(String),
}

/// Waits until every one that `service` needs is as far as it must be; says what is waited for.
pub(super) async fn wait(client: &Client, service: &str, needs: &[Dependency]) -> Result<()> {
    for need in needs {
        let name = &need.service;
        let (mut is_said, mut trouble, mut hopeless) = (false, String::new(), 0);
        loop {
            let (found, tasks) = look(client, name).await?;
            match progress(need.condition, &found, &tasks) {
                Progress::Met => break,
                Progress::Never(why) if hopeless > 0 => {
                    bail!("service {service} waits for {name}: {why}")
                }
                // Between an end and what follows from it.
                Progress::Never(_) => hopeless += 1,
                Progress::NotYet => hopeless = 0,
            }
            if !is_said {
                let end = match need.condition {
                    Condition::Started => "runs",
                    Condition::Healthy => "is healthy",
                    Condition::Completed => "has completed",
                };
                say(&format!("Waiting until service {name} {end}"));
                is_said = true;
            }
            // What keeps it from that is told, each time that it is something else.
            if let Some(found) = newest_trouble(&tasks).filter(|found| *found != trouble) {
                say(&format!("  {name}: {found}"));
                trouble = found;
            }
            tokio::time::sleep(PERIOD).await;
        }
    }
    Ok(())
}

/// A service, and its tasks by its present spec.
async fn look(client: &Client, name: &str) -> Result<(Value, Vec<Value>)> {
    let found: Value = client.get(&format!("/services/{}", escape(name))).await?;
    let query = filters(&[], &[("service", text(&found, "/ID")), ("_up-to-date", "true")])?;
    let tasks = client.get(&format!("/tasks?filters={query}")).await?;
    Ok((found, tasks))
}

/// A task with a health check is `running` once it is healthy.
fn progress(condition: Condition, service: &Value, tasks: &[Value]) -> Progress {
    let mode = &service["Spec"]["Mode"];
    let by_node = mode["Global"].is_object() || mode["GlobalJob"].is_object();
    let newest = newest_of_slots(tasks, by_node);
    let is = |word: &str, task: &Value| text(task, "/Status/State") == word;
    let count = |word: &str| newest.values().filter(|task| is(word, task)).count();
    if wanted(service) == Some(0) {
        return match condition {
            Condition::Completed => Progress::Met,
            Condition::Started | Condition::Healthy => {
                Progress::Never("it is to have no tasks".to_owned())
            }
        };
    }
    let met = match condition {
        Condition::Healthy => count("running") > 0,
        Condition::Started => count("running") + count("complete") > 0,
        // One that waits for its time has no task of the present run.
        Condition::Completed => match (Job::of(service, tasks), wanted(service)) {
            (Some(job), _) => job.is_over && !newest.is_empty(),
            (None, Some(replicas)) => {
                usize::try_from(replicas).is_ok_and(|it| it <= count("complete"))
            }
            (None, None) => !newest.is_empty() && newest.len() == count("complete"),
        },
    };
    if met {
        return Progress::Met;
    }
    if condition == Condition::Completed && !label(service, types::SCHEDULE_LABEL).is_empty() {
        return Progress::Never("it runs by a schedule".to_owned());
    }
    if !newest.is_empty() && newest.values().all(|task| has_ended(task)) {
        let why = newest_trouble(tasks).unwrap_or_else(|| "no error".to_owned());
        return Progress::Never(format!("its tasks have ended, and are not restarted: {why}"));
    }
    Progress::NotYet
}

fn label<'a>(service: &'a Value, name: &str) -> &'a str {
    service["Spec"]["Labels"][name].as_str().unwrap_or_default()
}

/// How many tasks it is to have, where it says so.
fn wanted(service: &Value) -> Option<i64> {
    let mode = &service["Spec"]["Mode"];
    mode["Replicated"]["Replicas"]
        .as_i64()
        .or_else(|| mode["ReplicatedJob"]["TotalCompletions"].as_i64())
}

/// What the newest task that has ended badly, or waits for a node, says of it.
fn newest_trouble(tasks: &[Value]) -> Option<String> {
    let tells = |task: &&Value| !text(task, "/Status/Err").is_empty();
    let newest = tasks.iter().filter(tells).max_by_key(|task| text(task, "/Status/Timestamp"))?;
    // Others may have written it: nothing of it is for the terminal.
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    Some(text(newest, "/Status/Err").chars().map(plain).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A task in each slot in turn.
    fn tasks(states: &[&str]) -> Vec<Value> {
        let task = |(slot, state): (usize, &&str)| {
            json!({"Slot": slot + 1, "NodeID": slot.to_string(),
            "Status": {"State": state, "Err": if *state == "failed" { "exit 3" } else { "" }}})
        };
        states.iter().enumerate().map(task).collect()
    }

    fn never(why: &str) -> Progress {
        Progress::Never(why.to_owned())
    }

    #[test]
    fn each_condition_is_met_by_the_states_of_tasks() {
        use Condition::{Completed, Healthy, Started};
        let two = json!({"Spec": {"Mode": {"Replicated": {"Replicas": 2}}}});
        for (condition, states, is_met) in [
            (Started, &[][..], false),
            (Started, &["starting"], false),
            (Started, &["failed", "running"], true),
            (Started, &["complete", "starting"], true),
            (Healthy, &["complete", "starting"], false),
            (Healthy, &["running"], true),
            (Completed, &["running", "complete"], false),
            (Completed, &["complete", "complete"], true),
        ] {
            let wanted = if is_met { Progress::Met } else { Progress::NotYet };
            assert_eq!(
                progress(condition, &two, &tasks(states)),
                wanted,
                "{condition:?} {states:?}"
            );
        }
    }

    #[test]
    fn of_a_job_the_present_run_counts() {
        let job = |mode: Value| json!({"Spec": {"Mode": mode}});
        let three = || job(json!({"ReplicatedJob": {"TotalCompletions": 3}}));
        let progress =
            |job: &Value, states: &[&str]| progress(Condition::Completed, job, &tasks(states));
        assert_eq!(progress(&three(), &["complete", "complete", "starting"]), Progress::NotYet);
        assert_eq!(progress(&three(), &["complete"; 3]), Progress::Met);
        let everywhere = job(json!({"GlobalJob": {}}));
        assert_eq!(progress(&everywhere, &[]), Progress::NotYet);
        assert_eq!(progress(&everywhere, &["complete", "starting"]), Progress::NotYet);
        assert_eq!(progress(&everywhere, &["complete", "complete"]), Progress::Met);
        let mut waits = three();
        waits["Spec"]["Labels"] = json!({types::SCHEDULE_LABEL: "@monthly"});
        waits["JobStatus"]["LastExecution"] = json!("0001-01-01T00:00:00Z");
        assert_eq!(progress(&waits, &[]), never("it runs by a schedule"));
    }

    #[test]
    fn what_will_never_be_is_not_waited_for() {
        use Condition::{Completed, Healthy, Started};
        let with =
            |replicas: u64| json!({"Spec": {"Mode": {"Replicated": {"Replicas": replicas}}}});
        assert_eq!(progress(Started, &with(0), &[]), never("it is to have no tasks"));
        assert_eq!(progress(Completed, &with(0), &[]), Progress::Met);
        let over = "its tasks have ended, and are not restarted: ";
        let failed = tasks(&["failed"]);
        assert_eq!(progress(Completed, &with(1), &failed), never(&format!("{over}exit 3")));
        let complete = tasks(&["complete"]);
        assert_eq!(progress(Healthy, &with(1), &complete), never(&format!("{over}no error")));
        // Another one is in its place.
        let mut again = tasks(&["failed"]);
        again.extend(tasks(&["ready"]));
        again[1]["CreatedAt"] = json!("2026-01-01T00:00:01Z");
        assert_eq!(progress(Completed, &with(1), &again), Progress::NotYet);
    }

    #[test]
    fn the_newest_trouble_is_told() {
        let task = |time, why| json!({"Status": {"Timestamp": time, "Err": why}});
        let tasks = [task("2026-01-01T00:00:02Z", "b\u{1b}[2J"), task("2026-01-01T00:00:01Z", "a")];
        assert_eq!(newest_trouble(&tasks).as_deref(), Some("b [2J"));
        assert_eq!(newest_trouble(&[task("2026-01-01T00:00:03Z", "")]), None);
    }
}
