//! Lists of tasks: `service ps`, `node ps`, `stack ps`.

use super::query::{filters, list, number, text};
use super::table::List;
use super::{Listing, Several, human};
use crate::client::Client;
use anyhow::Result;
use clap::Args;
use serde_json::Value;
use std::collections::BTreeMap;
use time::OffsetDateTime;

/// Characters of an error in a list.
const ERROR_MAX: usize = 30;

#[derive(Args, Debug)]
pub(crate) struct Tasks {
    #[command(flatten)]
    listing: Listing,
    /// Show ids of services and nodes instead of names
    #[arg(long)]
    no_resolve: bool,
}

/// Names of services and nodes by their ids.
#[derive(Debug, Default)]
pub(crate) struct Names(BTreeMap<String, String>);

impl Names {
    pub(crate) async fn read(client: &Client) -> Result<Self> {
        let services: Vec<Value> = client.get("/services").await?;
        let nodes: Vec<Value> = client.get("/nodes").await?;
        let services =
            services.iter().map(|service| (text(service, "/ID"), text(service, "/Spec/Name")));
        let nodes =
            nodes.iter().map(|node| (text(node, "/ID"), text(node, "/Description/Hostname")));
        let owned = |(id, name): (&str, &str)| (id.to_owned(), name.to_owned());
        Ok(Self(services.chain(nodes).map(owned).collect()))
    }

    #[cfg(test)]
    pub(crate) fn of_pairs(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(id, name)| ((*id).to_owned(), (*name).to_owned())).collect())
    }

    /// The name of an id, or the id itself.
    pub(crate) fn of<'a>(&'a self, id: &'a str) -> &'a str {
        self.0.get(id).map_or(id, String::as_str)
    }
}

/// Prints the tasks that fit; says whether there are any.
pub(crate) async fn ls_some(client: &Client, verb: &Tasks, more: &[(&str, &str)]) -> Result<bool> {
    let query = filters(&verb.listing.filter, more)?;
    let tasks: Vec<Value> = client.get(&format!("/tasks?filters={query}")).await?;
    let names = if verb.no_resolve { Names::default() } else { Names::read(client).await? };
    if tasks.is_empty() && !more.is_empty() && more[0].0 == "label" {
        return Ok(false);
    }
    let listing = &verb.listing;
    listing.print(&table(tasks, &names, listing.no_trunc, human::now()))?;
    Ok(true)
}

/// Prints the tasks of those services or nodes that were found; a name that is wrong is said,
/// rather than shown as an empty list.
pub(super) async fn ls_of(
    client: &Client,
    verb: &Tasks,
    filter: &str,
    several: Several<Value>,
) -> Result<()> {
    let ids: Vec<_> = several.found.iter().map(|it| (filter, text(it, "/ID"))).collect();
    if several.is_some() {
        ls_some(client, verb, &ids).await?;
    }
    several.end()
}

/// The newest task of each slot. Where there is one on each node, a slot is a node.
pub(crate) fn newest_of_slots<'a>(
    tasks: impl IntoIterator<Item = &'a Value>,
    by_node: bool,
) -> BTreeMap<(i64, &'a str), &'a Value> {
    let mut newest: BTreeMap<(i64, &str), &Value> = BTreeMap::new();
    for task in tasks {
        let node = if by_node { text(task, "/NodeID") } else { "" };
        let kept = newest.entry((number(task, "/Slot"), node)).or_insert(task);
        if text(kept, "/CreatedAt") < text(task, "/CreatedAt") {
            *kept = task;
        }
    }
    newest
}

pub(crate) fn has_ended(task: &Value) -> bool {
    let state = text(task, "/Status/State");
    matches!(state, "complete" | "failed" | "rejected" | "shutdown" | "orphaned" | "remove")
}

/// The name of a task, as lists have it: its service and slot, or its service and node.
pub(crate) fn name(task: &Value, names: &Names) -> String {
    let service = names.of(text(task, "/ServiceID"));
    match number(task, "/Slot") {
        0 => format!("{service}.{}", text(task, "/NodeID")),
        slot => format!("{service}.{slot}"),
    }
}

fn table(tasks: Vec<Value>, names: &Names, whole: bool, now: OffsetDateTime) -> List {
    let mut table = List::new(
        &[
            ("ID", "ID"),
            ("Name", "NAME"),
            ("Image", "IMAGE"),
            ("Node", "NODE"),
            ("DesiredState", "DESIRED STATE"),
            ("CurrentState", "CURRENT STATE"),
            ("Error", "ERROR"),
            ("Ports", "PORTS"),
        ],
        &[],
    );
    let mut tasks: Vec<(String, Value)> =
        tasks.into_iter().map(|task| (name(&task, names), task)).collect();
    // The newest task of a slot comes first, the ones before it below.
    tasks.sort_by(|(one, first), (other, second)| {
        let newest = text(second, "/CreatedAt").cmp(text(first, "/CreatedAt"));
        human::natural(one).cmp(&human::natural(other)).then(newest)
    });
    let mut last = String::new();
    for (name, task) in tasks {
        let shown = if name == last { format!(" \\_ {name}") } else { name.clone() };
        let state = human::title(text(&task, "/Status/State"));
        let since = human::ago(&task["Status"]["Timestamp"], now).to_lowercase();
        table.row([
            human::id(text(&task, "/ID"), whole),
            shown,
            human::image(text(&task, "/Spec/ContainerSpec/Image")).to_owned(),
            names.of(text(&task, "/NodeID")).to_owned(),
            human::title(text(&task, "/DesiredState")),
            format!("{state} {since}"),
            error(text(&task, "/Status/Err"), whole),
            ports(&task),
        ]);
        last = name;
    }
    table
}

fn error(text: &str, whole: bool) -> String {
    match text {
        "" => String::new(),
        text if whole => format!("\"{text}\""),
        text => format!("\"{}\"", human::cut(text, ERROR_MAX)),
    }
}

/// Ports that this task alone publishes on its node.
fn ports(task: &Value) -> String {
    let port = |port: &Value| {
        format!(
            "*:{}->{}/{}",
            number(port, "/PublishedPort"),
            number(port, "/TargetPort"),
            text(port, "/Protocol")
        )
    };
    list(task, "/Status/PortStatus/Ports").iter().map(port).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn tasks_are_listed_with_their_history() {
        let task = |id: &str, slot: i64, state: &str, made: &str, error: &str| {
            json!({"ID": format!("{id}abcdefghijklmnopqrst"), "ServiceID": "s", "NodeID": "n",
                "Slot": slot, "CreatedAt": made, "DesiredState": "running",
                "Spec": {"ContainerSpec": {"Image": "nginx:latest"}},
                "Status": {"State": state, "Timestamp": "2026-01-01T00:00:00Z", "Err": error}})
        };
        let tasks = vec![
            task("1", 10, "running", "2026-01-01T00:00:00Z", ""),
            task(
                "2",
                2,
                "failed",
                "2026-01-01T00:00:00Z",
                "task: non-zero exit (1): something long",
            ),
            task("3", 2, "running", "2026-01-01T00:00:05Z", ""),
        ];
        let names = Names::of_pairs(&[("s", "web"), ("n", "node-1")]);
        let now = time::macros::datetime!(2026-01-01 00:03:10 UTC);
        let text = table(tasks, &names, false, now).render(None).unwrap();
        expect![[r#"
            ID             NAME        IMAGE          NODE      DESIRED STATE   CURRENT STATE           ERROR                              PORTS
            3abcdefghijk   web.2       nginx:latest   node-1    Running         Running 3 minutes ago                                      
            2abcdefghijk    \_ web.2   nginx:latest   node-1    Running         Failed 3 minutes ago    "task: non-zero exit (1): some…"   
            1abcdefghijk   web.10      nginx:latest   node-1    Running         Running 3 minutes ago                                      
        "#]].assert_eq(&text);
    }
}
