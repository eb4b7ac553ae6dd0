//! `/skep/raft`: the managers' log, for operators. Docker's API has nothing like it.

use super::nodes::own;
use crate::Api;
use crate::error::ApiError;
use crate::request::Query;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use manager::{LogContent, LogEntry, LogStatus, find};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{Key, View};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/skep/raft", get(status))
        .route("/skep/raft/log", get(tail))
        .route("/skep/raft/transfer", post(transfer))
}

/// What this manager knows by itself: also where nobody leads.
async fn status(State(api): State<Api>) -> Result<Json<Value>, ApiError> {
    let manager = api.manager()?;
    let (status, refusals) = (manager.log_status(), manager.refusals());
    let refused = json!({ "Connections": refusals.connections(), "Calls": refusals.calls() });
    let mut object = render(&status, &manager.view());
    object["Refused"] = refused;
    object["Snapshots"] = manager.snapshots().await?.into();
    Ok(Json(object))
}

fn render(status: &LogStatus, view: &View) -> Value {
    let member = |member: &manager::LogMember| {
        let node = member.node.as_ref();
        let hostname = node
            .and_then(|id| Some(view.node(id)?.description.hostname.clone()))
            .unwrap_or_default();
        json!({
            "Number": member.number,
            "NodeID": node,
            "Hostname": hostname,
            "Addr": member.address,
            "Role": match (member.is_leader, member.votes) {
                (true, _) => "leader",
                (false, true) => "voter",
                (false, false) => "learner",
            },
            "Reachable": member.is_reachable,
        })
    };
    json!({
        "Member": status.member,
        "Term": status.term,
        "Index": status.version.0,
        "Members": status.members.iter().map(member).collect::<Vec<_>>(),
    })
}

#[derive(Debug, Deserialize)]
#[serde(rename = "GET /skep/raft/log", default)]
struct TailQuery {
    tail: u64,
}

impl Default for TailQuery {
    fn default() -> Self {
        Self { tail: 20 }
    }
}

async fn tail(
    State(api): State<Api>,
    Query(query): Query<TailQuery>,
) -> Result<Json<Vec<Value>>, ApiError> {
    let entries = api.manager()?.log_tail(query.tail).await?;
    Ok(Json(entries.iter().map(entry).collect()))
}

/// What an entry changed, by kind and id.
fn entry(LogEntry { index, term, content }: &LogEntry) -> Value {
    let names = |keys: &[Key]| keys.iter().map(Key::name).collect::<Vec<_>>();
    let mut entry = json!({ "Index": index, "Term": term });
    match content {
        LogContent::Term => entry["Kind"] = "term".into(),
        LogContent::Changes { time, written, removed } => {
            entry["Kind"] = "changes".into();
            entry["Time"] = time.rfc3339().into();
            entry["Written"] = names(written).into();
            entry["Removed"] = names(removed).into();
        }
        LogContent::Members { voters, learners } => {
            entry["Kind"] = "members".into();
            entry["Voters"] = json!(voters);
            entry["Learners"] = json!(learners);
        }
    }
    entry
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "POST /skep/raft/transfer", default)]
struct TransferQuery {
    to: Option<String>,
}

async fn transfer(
    State(api): State<Api>,
    Query(query): Query<TransferQuery>,
) -> Result<StatusCode, ApiError> {
    let manager = api.manager()?;
    let to = match query.to.filter(|to| !to.is_empty()) {
        None => None,
        Some(wanted) => {
            let here = api.member()?.node;
            Some(find::node(&api.view().await?, own(&here, &wanted))?.id.clone())
        }
    };
    manager.transfer(to).await?;
    Ok(StatusCode::OK)
}
