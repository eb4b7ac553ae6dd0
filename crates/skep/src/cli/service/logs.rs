//! `skep service logs`: lines of many tasks, each with its origin.

use super::read;
use crate::cli::lines::Lines;
use crate::cli::query::{number, text};
use crate::cli::tasks::Names;
use crate::cli::{human, streams};
use crate::client::{Client, Refusal, escape};
use anyhow::Result;
use bytes::Bytes;
use clap::Args;
use hyper::{Method, StatusCode};
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of docker's")]
pub(crate) struct Logs {
    #[arg(value_name = "SERVICE|TASK")]
    name: String,
    #[command(flatten)]
    which: Lines,
    /// Show lines as they were written, without their origin
    #[arg(long)]
    raw: bool,
    /// Leave ids of tasks out
    #[arg(long)]
    no_task_ids: bool,
    /// Show ids of nodes and services instead of names
    #[arg(long)]
    no_resolve: bool,
    /// Show whole ids
    #[arg(long)]
    no_trunc: bool,
}

/// Where lines come from, for people.
struct Origins {
    tasks: BTreeMap<String, (String, i64)>,
    names: Names,
    /// Characters of the longest slot.
    slot_width: usize,
}

pub(super) async fn run(client: &Client, verb: &Logs) -> Result<()> {
    let (path, filter) = subject(client, &verb.name).await?;
    let origins = Origins::read(client, verb, &filter).await?;
    let path = format!("{path}/logs?{}&details={}", verb.which.query()?, !verb.raw);
    let answer = client.send(Method::GET, &path, Bytes::new()).await?;
    if verb.raw {
        return streams::follow(answer, streams::emit).await;
    }
    streams::follow(answer, |stderr, line| {
        streams::emit(stderr, &origins.line(verb, &String::from_utf8_lossy(line)).into_bytes())
    })
    .await
}

/// The path of what the user named, a service or else a task, and the filter for its tasks.
async fn subject(client: &Client, name: &str) -> Result<(String, (&'static str, String))> {
    match read(client, name).await {
        Ok(service) => {
            let id = text(&service, "/ID").to_owned();
            Ok((format!("/services/{id}"), ("service", id)))
        }
        Err(error) => {
            let gone = error
                .downcast_ref::<Refusal>()
                .is_some_and(|refusal| refusal.status == StatusCode::NOT_FOUND);
            let task: Result<Value> = client.get(&format!("/tasks/{}", escape(name))).await;
            match task {
                Ok(task) if gone => {
                    let id = text(&task, "/ID").to_owned();
                    Ok((format!("/tasks/{id}"), ("id", id)))
                }
                Ok(_) | Err(_) if gone => anyhow::bail!("no such task or service: {name}"),
                Ok(_) | Err(_) => Err(error),
            }
        }
    }
}

impl Origins {
    async fn read(client: &Client, verb: &Logs, filter: &(&str, String)) -> Result<Self> {
        let query = crate::cli::query::filters(&[], &[(filter.0, &filter.1)])?;
        let tasks: Vec<Value> = client.get(&format!("/tasks?filters={query}")).await?;
        let names = if verb.no_resolve { Names::default() } else { Names::read(client).await? };
        let slot_width =
            tasks.iter().map(|task| number(task, "/Slot").to_string().len()).max().unwrap_or(1);
        let tasks = tasks
            .iter()
            .map(|task| {
                let service = names.of(text(task, "/ServiceID")).to_owned();
                (text(task, "/ID").to_owned(), (service, number(task, "/Slot")))
            })
            .collect();
        Ok(Self { tasks, names, slot_width })
    }

    /// A line of the API, `[time ]details text`, as people read it.
    fn line(&self, verb: &Logs, line: &str) -> String {
        let (time, rest) = match line.split_once(' ') {
            Some((time, rest)) if verb.which.timestamps => (format!("{time} "), rest),
            Some(_) | None => (String::new(), line),
        };
        // A line of the manager itself, e.g. that a node is away, has no details.
        let Some((details, text)) =
            rest.split_once(' ').filter(|(details, _)| details.contains("com.docker.swarm."))
        else {
            return line.to_owned();
        };
        let detail = |key: &str| {
            let pairs = details.split(',').filter_map(|pair| pair.split_once('='));
            pairs.into_iter().find(|(name, _)| *name == key).map_or("", |(_, value)| value)
        };
        let task = detail("com.docker.swarm.task.id");
        let service = self.names.of(detail("com.docker.swarm.service.id")).to_owned();
        let (service, slot) = self.tasks.get(task).cloned().unwrap_or((service, 0));
        let node = self.names.of(detail("com.docker.swarm.node.id"));
        let slot = slot.to_string();
        let task = match (verb.no_task_ids, verb.no_trunc) {
            (true, _) => String::new(),
            (false, true) => format!(".{task}"),
            (false, false) => format!(".{}", human::short(task)),
        };
        let blanks = " ".repeat(self.slot_width.saturating_sub(slot.len()));
        format!("{time}{service}.{slot}{task}@{node}{blanks}    | {text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use expect_test::expect;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        logs: Logs,
    }

    #[test]
    fn lines_show_where_they_come_from() {
        let origins = Origins {
            tasks: [("0123456789abcdef".to_owned(), ("web".to_owned(), 2))].into(),
            names: Names::of_pairs(&[("n", "node-1")]),
            slot_width: 2,
        };
        let line = "2026-01-01T00:00:00.000000000Z com.docker.swarm.node.id=n,com.docker.swarm.service.id=s,com.docker.swarm.task.id=0123456789abcdef hello world\n";
        let plain = line.split_once(' ').unwrap().1;
        let show = |words: &[&str], line: &str| {
            origins.line(&Line::parse_from([&["logs", "web"], words].concat()).logs, line)
        };
        let shown = show(&[], plain)
            + &show(&["-t"], line)
            + &show(&["--no-task-ids"], plain)
            + &show(&[], "node-3 is away\n");
        expect![[r"
            web.2.0123456789ab@node-1     | hello world
            2026-01-01T00:00:00.000000000Z web.2.0123456789ab@node-1     | hello world
            web.2@node-1     | hello world
            node-3 is away
        "]]
        .assert_eq(&shown);
    }
}
