//! How far a job is: it is over when all its tasks have completed.

use super::{STATE_WIDTH, TASKS_MAX};
use crate::cli::human;
use crate::cli::query::{number, text};
use crate::cli::tasks::newest_of_slots;
use serde_json::Value;

/// How far a job is in its present iteration.
pub(crate) struct Job {
    pub(crate) is_over: bool,
    pub(super) lines: Vec<String>,
}

impl Job {
    /// `None`: the service is no job.
    pub(crate) fn of(service: &Value, tasks: &[Value]) -> Option<Self> {
        let replicated = service.pointer("/Spec/Mode/ReplicatedJob");
        if replicated.is_none() && service.pointer("/Spec/Mode/GlobalJob").is_none() {
            return None;
        }
        // Go's zero time: its own time has not come.
        if text(service, "/JobStatus/LastExecution").starts_with("0001-") {
            let lines = vec!["job waits for the time of its schedule".to_owned()];
            return Some(Self { is_over: true, lines });
        }
        let iteration = number(service, "/JobStatus/JobIteration/Index");
        let is_present = |task: &&Value| number(task, "/JobIteration/Index") == iteration;
        let newest = newest_of_slots(tasks.iter().filter(is_present), replicated.is_none());
        let is = |state: &str| {
            newest.values().filter(|task| text(task, "/Status/State") == state).count()
        };
        let (completed, failed) = (is("complete"), is("failed") + is("rejected"));
        let total = match replicated {
            Some(job) => usize::try_from(number(job, "/TotalCompletions")).unwrap_or(0),
            None => newest.len(),
        };
        let active = newest.len().saturating_sub(completed + failed);
        let mut lines = vec![
            format!("job progress: {completed} out of {total} complete"),
            format!("active tasks: {active}"),
        ];
        if total as u64 <= TASKS_MAX {
            lines.extend(newest.iter().map(|((slot, node), task)| {
                let name = if node.is_empty() {
                    format!("{}/{total}", slot + 1)
                } else {
                    human::short(node)
                };
                let (state, error) = (text(task, "/Status/State"), text(task, "/Status/Err"));
                let state = if error.is_empty() { state } else { error };
                format!("{name}: {state:<STATE_WIDTH$}").trim_end().to_owned()
            }));
        }
        // One for all nodes that was just made has no tasks yet, and will have some.
        let begun = replicated.is_some() || total > 0;
        let is_over = begun && completed == total;
        if is_over {
            lines.push("job complete".to_owned());
        }
        Some(Self { is_over, lines })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    fn service(mode: &Value) -> Value {
        json!({"Spec": {"Mode": mode}, "JobStatus": {"JobIteration": {"Index": 1}}})
    }

    fn task(slot: i64, node: &str, state: &str, made: &str) -> Value {
        json!({"Slot": slot, "NodeID": node, "JobIteration": {"Index": 1}, "CreatedAt": made,
            "Status": {"State": state}})
    }

    #[test]
    fn a_job_is_over_when_every_task_of_this_run_has_completed() {
        let of = service(&json!({"ReplicatedJob": {"TotalCompletions": 3, "MaxConcurrent": 2}}));
        let mut former = task(2, "n", "complete", "1");
        former["JobIteration"]["Index"] = json!(0);
        let mut tasks = vec![
            former,
            task(0, "n", "complete", "2"),
            task(1, "n", "failed", "2"),
            task(1, "n", "running", "3"),
        ];
        let job = Job::of(&of, &tasks).unwrap();
        assert!(!job.is_over);
        expect![[r"
            job progress: 1 out of 3 complete
            active tasks: 1
            1/3: complete
            2/3: running"]]
        .assert_eq(&job.lines.join("\n"));
        tasks.extend([task(1, "n", "complete", "4"), task(2, "n", "complete", "4")]);
        let job = Job::of(&of, &tasks).unwrap();
        assert_eq!((job.is_over, job.lines.last().unwrap().as_str()), (true, "job complete"));
    }

    #[test]
    fn a_job_whose_time_has_not_come_is_not_waited_for() {
        let mut of = service(&json!({"ReplicatedJob": {"TotalCompletions": 3}}));
        of["JobStatus"]["LastExecution"] = json!("0001-01-01T00:00:00Z");
        let job = Job::of(&of, &[]).unwrap();
        assert!(job.is_over && job.lines[0].contains("schedule"), "{:?}", job.lines);
    }

    #[test]
    fn a_job_on_all_nodes_waits_for_its_tasks() {
        let of = service(&json!({"GlobalJob": {}}));
        assert!(!Job::of(&of, &[]).unwrap().is_over);
        let one = task(0, "n1", "complete", "1");
        assert!(Job::of(&of, std::slice::from_ref(&one)).unwrap().is_over);
        assert!(!Job::of(&of, &[one, task(0, "n2", "running", "1")]).unwrap().is_over);
        assert!(Job::of(&json!({"Spec": {"Mode": {"Global": {}}}}), &[]).is_none());
    }
}
