//! `skep raft`: the log that managers keep, for operators.

use super::query::{list, number, text};
use super::table::List;
use super::{print, say};
use crate::client::{Client, escape};
use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Show who holds the log, as the manager that is asked knows it
    Status(Format),
    /// Show the newest entries of the log
    Log(Log),
    /// Let another manager lead
    Transfer(Transfer),
}

#[derive(Args, Debug)]
pub(crate) struct Format {
    /// Format the output with a Go template, or as "json"
    #[arg(long)]
    format: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Log {
    /// How many entries, 1000 at most
    #[arg(short = 'n', long, default_value_t = 20)]
    tail: u64,
    #[command(flatten)]
    format: Format,
}

#[derive(Args, Debug)]
pub(crate) struct Transfer {
    /// The manager that is to lead [default: whichever is best prepared]
    #[arg(value_name = "NODE")]
    to: Option<String>,
}

pub(crate) async fn run(client: &Client, verb: Verb) -> Result<()> {
    match verb {
        Verb::Status(verb) => {
            let status: Value = client.get("/skep/raft").await?;
            if verb.format.is_none() {
                say(&head(&status));
            }
            print(&members(&status).render(verb.format.as_deref())?);
        }
        Verb::Log(verb) => {
            let path = format!("/skep/raft/log?tail={}", verb.tail);
            let entries: Vec<Value> = client.get(&path).await?;
            print(&log(&entries).render(verb.format.format.as_deref())?);
        }
        Verb::Transfer(verb) => {
            let to = verb.to.as_deref().map(escape).unwrap_or_default();
            client.order(&format!("/skep/raft/transfer?to={to}"), &json!({})).await?;
            let status: Value = client.get("/skep/raft").await?;
            let leads = list(&status, "/Members").iter().find(|it| it["Role"] == "leader");
            let name = leads.map_or("another manager", |it| text(it, "/Hostname"));
            say(&format!("{name} leads"));
        }
    }
    Ok(())
}

fn head(status: &Value) -> String {
    let refused = |what| number(status, &format!("/Refused/{what}"));
    format!(
        "Member {}, term {}, index {}, snapshots {}; refused: {} connections, {} calls",
        number(status, "/Member"),
        number(status, "/Term"),
        number(status, "/Index"),
        snapshots(status),
        refused("Connections"),
        refused("Calls"),
    )
}

/// The last entry that each of them holds.
fn snapshots(status: &Value) -> String {
    let all: Vec<String> = list(status, "/Snapshots").iter().map(Value::to_string).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

fn members(status: &Value) -> List {
    let mut table = List::new(
        &[
            ("Number", "NUMBER"),
            ("Hostname", "HOSTNAME"),
            ("Role", "ROLE"),
            ("Reachable", "REACHABLE"),
            ("Addr", "ADDRESS"),
        ],
        &[("NodeID", "NODE ID")],
    );
    for member in list(status, "/Members") {
        table.row([
            number(member, "/Number").to_string(),
            text(member, "/Hostname").to_owned(),
            text(member, "/Role").to_owned(),
            // The leader alone knows.
            match member["Reachable"].as_bool() {
                Some(true) => "yes".to_owned(),
                Some(false) => "no".to_owned(),
                None => "-".to_owned(),
            },
            text(member, "/Addr").to_owned(),
            text(member, "/NodeID").to_owned(),
        ]);
    }
    table
}

fn log(entries: &[Value]) -> List {
    let mut table = List::new(
        &[("Index", "INDEX"), ("Term", "TERM"), ("Time", "TIME"), ("Content", "CONTENT")],
        &[],
    );
    for entry in entries {
        table.row([
            number(entry, "/Index").to_string(),
            number(entry, "/Term").to_string(),
            text(entry, "/Time").to_owned(),
            content(entry),
        ]);
    }
    table
}

fn content(entry: &Value) -> String {
    let words = |pointer: &str, sign: &str| {
        let all = list(entry, pointer).iter().filter_map(Value::as_str);
        all.map(|name| format!("{sign}{name}")).collect::<Vec<_>>()
    };
    match text(entry, "/Kind") {
        "changes" => [words("/Written", "+ "), words("/Removed", "- ")].concat().join(", "),
        "members" => format!("voters {}, learners {}", entry["Voters"], entry["Learners"]),
        _ => "a leader begins its term".to_owned(),
    }
}
