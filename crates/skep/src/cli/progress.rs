//! Waiting for a service to converge, and showing how far it is.

pub(crate) mod job;

use super::query::{filters, number, text};
use super::{human, print, say};
use crate::client::Client;
use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;
use terminal_size::{Width, terminal_size};
use tokio::time::Instant;

/// How often the cluster is asked.
const PERIOD: Duration = Duration::from_millis(250);
/// How long an update must be paused to be believed.
const PAUSE_BELIEVED: Duration = Duration::from_secs(2);
/// Tasks that are shown one by one; more are only counted.
const TASKS_MAX: u64 = 20;
/// Characters of a task's bar.
const BAR: usize = 50;
/// Characters of the longest state.
const STATE_WIDTH: usize = 9;

/// States on the way to running, and how far each is.
const STATES: [&str; 9] = [
    "new",
    "allocated",
    "pending",
    "assigned",
    "accepted",
    "preparing",
    "ready",
    "starting",
    "running",
];

/// Whether a verb waits.
#[derive(Args, Debug)]
pub(crate) struct Waiting {
    /// Return at once instead of waiting until the service has converged
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, default_value_t = false,
        default_missing_value = "true", require_equals = true, hide_default_value = true,
        hide_possible_values = true, action = clap::ArgAction::Set)]
    detach: bool,
    /// Wait, and show nothing of it
    #[arg(short, long)]
    quiet: bool,
}

impl Waiting {
    /// Waits for a service where the user wants it.
    pub(crate) async fn wait(&self, client: &Client, id: &str) -> Result<()> {
        if self.detach {
            return Ok(());
        }
        converge(client, &[id.to_owned()], !self.quiet).await
    }
}

/// Waits until services have converged, and shows how far they are.
pub(crate) async fn converge(client: &Client, ids: &[String], show: bool) -> Result<()> {
    let mut screen = Screen::new(show);
    tokio::select! {
        result = until_converged(client, ids, &mut screen) => result,
        _ = tokio::signal::ctrl_c() => {
            say("Operation continuing in background.");
            for id in ids {
                say(&format!("Use `skep service ps {id}` to check progress."));
            }
            Ok(())
        }
    }
}

async fn until_converged(client: &Client, ids: &[String], screen: &mut Screen) -> Result<()> {
    let mut services: Vec<Watched> = ids.iter().map(|id| Watched::new(id, ids.len() > 1)).collect();
    loop {
        for service in services.iter_mut().filter(|service| !service.done) {
            service.look(client, screen.terminal).await?;
        }
        let lines: Vec<String> =
            services.iter().flat_map(|service| service.lines.iter().cloned()).collect();
        screen.show(&lines);
        if services.iter().all(|service| service.done) {
            return Ok(());
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// A service that is waited for.
struct Watched {
    id: String,
    /// Whether lines say which service they are of.
    named: bool,
    /// Since when as many tasks run as are wanted.
    since: Option<Instant>,
    /// Since when its update is paused.
    stopped: Option<Instant>,
    done: bool,
    lines: Vec<String>,
}

impl Watched {
    fn new(id: &str, named: bool) -> Self {
        let id = id.to_owned();
        Self { id, named, since: None, stopped: None, done: false, lines: Vec::new() }
    }

    /// Looks how far the service is. It has converged when as many tasks run as are wanted, and
    /// have for the service's monitoring time.
    async fn look(&mut self, client: &Client, terminal: bool) -> Result<()> {
        let id = &self.id;
        let service: Value = client.get(&format!("/services/{id}")).await?;
        let query = filters(&[], &[("service", id), ("_up-to-date", "true")])?;
        let tasks: Vec<Value> = client.get(&format!("/tasks?filters={query}")).await?;
        if let Some(job) = job::Job::of(&service, &tasks) {
            (self.done, self.lines) = (job.is_over, job.lines);
            self.name_lines(&service);
            return Ok(());
        }
        let progress = Progress::of(&service, &tasks);
        let monitor = number(&service, "/Spec/UpdateConfig/Monitor");
        let monitor = Duration::from_nanos(u64::try_from(monitor).unwrap_or(0));
        let now = now();
        if let Some(message) = &progress.stopped {
            // Right after a change the pause may still be that of the update before.
            if now - *self.stopped.get_or_insert(now) >= PAUSE_BELIEVED {
                bail!("{message}");
            }
        } else {
            self.stopped = None;
        }
        self.lines = progress.lines(terminal);
        if progress.converged {
            let left = monitor.saturating_sub(now - *self.since.get_or_insert(now));
            self.done = left.is_zero() || progress.wanted == 0;
            self.lines.push(if self.done {
                format!("verify: Service {id} converged")
            } else {
                // Whole seconds, rounded up: the countdown ends at 1.
                let left = left.as_millis().div_ceil(1000);
                let unit = if left == 1 { "second" } else { "seconds" };
                format!("verify: Waiting {left} {unit} to verify that tasks are stable...")
            });
        } else {
            self.since = None;
        }
        self.name_lines(&service);
        Ok(())
    }

    fn name_lines(&mut self, service: &Value) {
        let name = text(service, "/Spec/Name");
        for line in self.lines.iter_mut().filter(|_| self.named) {
            *line = format!("{name}: {line}");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the CLI waits in real time")]
fn now() -> Instant {
    Instant::now()
}

/// How far a service is.
struct Progress {
    wanted: u64,
    running: u64,
    converged: bool,
    /// Why it will not get further by itself.
    stopped: Option<String>,
    /// The best task of each slot or node: how it is called, its state, its error.
    tasks: Vec<(String, String, String)>,
}

impl Progress {
    fn of(service: &Value, tasks: &[Value]) -> Self {
        let global = service.pointer("/Spec/Mode/Global").is_some();
        let replicas = number(service, "/Spec/Mode/Replicated/Replicas");
        let mut best: BTreeMap<(i64, String), &Value> = BTreeMap::new();
        for task in tasks.iter().filter(|task| wanted(task)) {
            let slot = number(task, "/Slot");
            let node = if global { text(task, "/NodeID").to_owned() } else { String::new() };
            let place = best.entry((slot, node)).or_insert(task);
            if rank(task) > rank(place) {
                *place = task;
            }
        }
        let wanted = if global { best.len() as u64 } else { u64::try_from(replicas).unwrap_or(0) };
        let running = best.values().filter(|task| text(task, "/Status/State") == "running").count();
        let running = (running as u64).min(wanted);
        let shown = best.iter().enumerate().map(|(index, ((slot, node), task))| {
            let name = if global {
                human::short(node)
            } else {
                let slot = if *slot > 0 { *slot } else { i64::try_from(index).unwrap_or(0) + 1 };
                format!("{slot}/{wanted}")
            };
            let state = text(task, "/Status/State").to_owned();
            (name, state, text(task, "/Status/Err").to_owned())
        });
        let update = text(service, "/UpdateStatus/State");
        let message = text(service, "/UpdateStatus/Message");
        let stopped = match update {
            "paused" => Some(format!("service update paused: {message}")),
            "rollback_paused" => Some(format!("service rollback paused: {message}")),
            _ => None,
        };
        // A global service that was just made has no tasks yet, and will have some.
        let begun = !global || wanted > 0;
        let converged = begun
            && running == wanted
            && !update.ends_with("updating")
            && !update.ends_with("rollback_started")
            && best.len() as u64 <= wanted;
        Self { wanted, running, converged, stopped, tasks: shown.collect() }
    }

    fn lines(&self, terminal: bool) -> Vec<String> {
        let mut lines =
            vec![format!("overall progress: {} out of {} tasks", self.running, self.wanted)];
        if self.wanted > TASKS_MAX {
            return lines;
        }
        for (name, state, error) in &self.tasks {
            let state =
                if error.is_empty() { format!("{state:<STATE_WIDTH$}") } else { error.clone() };
            let bar = if terminal && error.is_empty() { bar(state.trim()) } else { String::new() };
            lines.push(format!("{name}: {state} {bar}").trim_end().to_owned());
        }
        lines
    }
}

/// Says whether the cluster wants a task to run.
fn wanted(task: &Value) -> bool {
    matches!(text(task, "/DesiredState"), "running" | "ready")
}

/// How far a task is; what has ended is not on its way any more.
fn rank(task: &Value) -> usize {
    let state = text(task, "/Status/State");
    STATES.iter().position(|name| *name == state).map_or(0, |place| place + 1)
}

fn bar(state: &str) -> String {
    let done = STATES.iter().position(|name| *name == state).map_or(0, |place| place + 1);
    let done = BAR * done / STATES.len();
    let head = if done > 0 { ">" } else { "" };
    format!("[{:<BAR$}]", format!("{}{head}", "=".repeat(done.saturating_sub(1))))
}

/// What the user sees: redrawn in place on a terminal, else a line for every change.
struct Screen {
    show: bool,
    terminal: bool,
    last: Vec<String>,
}

impl Screen {
    fn new(show: bool) -> Self {
        Self { show, terminal: std::io::stdout().is_terminal(), last: Vec::new() }
    }

    fn show(&mut self, lines: &[String]) {
        let mut lines = lines.to_vec();
        if self.terminal {
            // A line that wraps would be two, and the picture would not be found again.
            let width = terminal_size().map_or(80, |(Width(width), _)| usize::from(width));
            for line in &mut lines {
                *line = human::cut(line, width.max(2));
            }
        }
        if self.show && self.last != lines {
            let text =
                if self.terminal { redrawn(&self.last, &lines) } else { news(&self.last, &lines) };
            print(&text);
        }
        self.last = lines;
    }
}

/// What turns the last picture into the new one on a terminal.
fn redrawn(last: &[String], lines: &[String]) -> String {
    // Up to the first line of the last picture.
    let up = format!("\x1b[{}A", last.len());
    let mut text = if last.is_empty() { String::new() } else { up };
    for line in lines {
        text.push_str(&["\r\x1b[K", line, "\n"].concat());
    }
    // The rest of the last picture goes.
    text.push_str("\x1b[J");
    text
}

/// The lines that the last picture did not have.
fn news(last: &[String], lines: &[String]) -> String {
    lines.iter().filter(|line| !last.contains(line)).map(|line| line.clone() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    fn task(slot: i64, state: &str, error: &str) -> Value {
        json!({"Slot": slot, "NodeID": "n", "DesiredState": "running",
            "Status": {"State": state, "Err": error}})
    }

    #[test]
    fn progress_counts_the_best_task_of_each_slot() {
        let service = json!({"Spec": {"Mode": {"Replicated": {"Replicas": 3}}}});
        let tasks = [
            task(1, "running", ""),
            task(2, "failed", "boom"),
            task(2, "preparing", ""),
            task(3, "pending", "no suitable node"),
        ];
        let progress = Progress::of(&service, &tasks);
        assert!(!progress.converged);
        let plain = progress.lines(false).join("\n");
        let terminal = progress.lines(true)[1].clone();
        expect![[r"
            overall progress: 1 out of 3 tasks
            1/3: running
            2/3: preparing
            3/3: no suitable node
            1/3: running   [=================================================>]
        "]]
        .assert_eq(&format!("{plain}\n{terminal}\n"));
    }

    #[test]
    fn a_service_converges_when_all_wanted_tasks_run_and_no_update_goes_on() {
        let service = |replicas: u64, update: &str| {
            json!({"Spec": {"Mode": {"Replicated": {"Replicas": replicas}}},
                "UpdateStatus": {"State": update, "Message": "why"}})
        };
        let one = [task(1, "running", "")];
        assert!(Progress::of(&service(1, ""), &one).converged);
        assert!(Progress::of(&service(0, ""), &[]).converged);
        assert!(!Progress::of(&service(2, ""), &one).converged);
        assert!(!Progress::of(&service(1, "updating"), &one).converged);
        let stopped = Progress::of(&service(1, "paused"), &one).stopped;
        assert_eq!(stopped.as_deref(), Some("service update paused: why"));
        assert!(!Progress::of(&json!({"Spec": {"Mode": {"Global": {}}}}), &[]).converged);
    }

    #[test]
    fn without_a_terminal_only_what_is_new_is_said() {
        let lines =
            |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(news(&lines(&["a", "b"]), &lines(&["a", "c"])), "c\n");
    }
}
