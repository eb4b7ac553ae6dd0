//! What a new service of a stack waits for before it is created: `depends_on`.

use crate::cli::query::{filters, number, text};
use crate::cli::say;
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
        let (mut is_said, mut trouble) = (false, String::new());
        loop {
            let found: Value = client.get(&format!("/services/{}", escape(name))).await?;
            let query = filters(&[], &[("service", text(&found, "/ID"))])?;
            let tasks: Vec<Value> = client.get(&format!("/tasks?filters={query}")).await?;
            match progress(need.condition, &found, &tasks) {
                Progress::Met => break,
                Progress::Never(why) => bail!("service {service} waits for {name}: {why}"),
                Progress::NotYet => {
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
        }
    }
    Ok(())
}

/// A task with a health check is `running` once it is healthy.
fn progress(condition: Condition, service: &Value, tasks: &[Value]) -> Progress {
    let state = |task: &Value| text(task, "/Status/State").to_owned();
    let count = |word: &str| tasks.iter().filter(|task| state(task) == word).count();
    let met = match condition {
        Condition::Healthy => count("running") > 0,
        Condition::Started => count("running") + count("complete") > 0,
        Condition::Completed => completed(service, tasks) <= count("complete"),
    };
    if met {
        return Progress::Met;
    }
    let restart = text(service, "/Spec/TaskTemplate/RestartPolicy/Condition");
    let ended = tasks.iter().find(|task| matches!(state(task).as_str(), "failed" | "rejected"));
    match ended {
        Some(task) if restart == "none" => {
            let why = text(task, "/Status/Err");
            Progress::Never(format!("its task has {}: {why}", state(task)))
        }
        _ => Progress::NotYet,
    }
}

/// What the newest task that has ended badly, or waits for a node, says of it.
fn newest_trouble(tasks: &[Value]) -> Option<String> {
    let tells = |task: &&Value| !text(task, "/Status/Err").is_empty();
    let newest = tasks.iter().filter(tells).max_by_key(|task| text(task, "/Status/Timestamp"))?;
    Some(text(newest, "/Status/Err").to_owned())
}

/// How many tasks must have completed.
fn completed(service: &Value, tasks: &[Value]) -> usize {
    let mode = "/Spec/Mode";
    let total = number(service, &format!("{mode}/ReplicatedJob/TotalCompletions"));
    let replicas = number(service, &format!("{mode}/Replicated/Replicas"));
    let all = usize::try_from(total.max(replicas)).unwrap_or(0);
    // One on each node, however many there are.
    if all == 0 { tasks.len().max(1) } else { all }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tasks(states: &[&str]) -> Vec<Value> {
        let task = |state| json!({"Status": {"State": state, "Err": "exit 3"}});
        states.iter().map(task).collect()
    }

    #[test]
    fn each_condition_is_met_by_the_states_of_tasks() {
        use Condition::{Completed, Healthy, Started};
        let two = json!({"Spec": {"Mode": {"Replicated": {"Replicas": 2}}}});
        for (condition, states, is_met) in [
            (Started, &[][..], false),
            (Started, &["starting"], false),
            (Started, &["failed", "running"], true),
            (Started, &["complete"], true),
            (Healthy, &["complete"], false),
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
        let job = json!({"Spec": {"Mode": {"ReplicatedJob": {"TotalCompletions": 3}}}});
        assert_eq!(progress(Completed, &job, &tasks(&["complete"; 2])), Progress::NotYet);
        assert_eq!(progress(Completed, &job, &tasks(&["complete"; 3])), Progress::Met);
        let everywhere = json!({"Spec": {"Mode": {"GlobalJob": {}}}});
        assert_eq!(progress(Completed, &everywhere, &[]), Progress::NotYet);
        assert_eq!(progress(Completed, &everywhere, &tasks(&["complete"])), Progress::Met);
    }

    #[test]
    fn the_newest_trouble_is_told() {
        let task = |time, why| json!({"Status": {"Timestamp": time, "Err": why}});
        let tasks = [task("2026-01-01T00:00:02Z", "b"), task("2026-01-01T00:00:01Z", "a")];
        assert_eq!(newest_trouble(&tasks).as_deref(), Some("b"));
        assert_eq!(newest_trouble(&[task("2026-01-01T00:00:03Z", "")]), None);
    }

    #[test]
    fn what_failed_and_is_not_restarted_is_not_waited_for() {
        let mut service =
            json!({"Spec": {"TaskTemplate": {"RestartPolicy": {"Condition": "any"}}}});
        let failed = tasks(&["failed"]);
        assert_eq!(progress(Condition::Completed, &service, &failed), Progress::NotYet);
        service["Spec"]["TaskTemplate"]["RestartPolicy"]["Condition"] = "none".into();
        let why = Progress::Never("its task has failed: exit 3".to_owned());
        assert_eq!(progress(Condition::Completed, &service, &failed), why);
    }
}
