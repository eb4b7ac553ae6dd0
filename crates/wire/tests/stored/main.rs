//! The messages of every format that a release speaks, read as bytes that were stored then.
//!
//! The head of crate `stored` says how they are kept.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use discovery::{Knowledge, KnowledgeDifference};
use std::collections::BTreeSet;
use stored::{Stored, samples};
use types::{Availability, NodeRole, TaskState, Timestamp};
use wire::{
    Acknowledge, Assignments, Difference, Done, Heartbeat, HeartbeatReply, IssueReply,
    IssueRequest, LeaveRequest, LogChunk, LogLine, LogOptions, LogRequest, NumberRequest, Parts,
    Release, Report, RootReply, RootRequest, SessionMessage, SessionRequest, Welcome,
};

/// What was released and is never written again.
const FORMER: [(&str, &str); 1] = [("0.1.0-format1", "069ad92a6a88e61b")];

#[test]
fn messages_of_every_format_are_read() {
    let mut stored = Stored::of(env!("CARGO_MANIFEST_DIR"));
    membership(&mut stored);
    session(&mut stored);
    assignments(&mut stored);
    reports(&mut stored);
    logs(&mut stored);
    stored.finish(&FORMER);
}

fn release() -> Release {
    Release { protocol: 7, oldest: 6, version: "0.7.0".to_owned() }
}

fn membership(stored: &mut Stored) {
    let (token, csr) = ("SWMTKN-1-a-b".to_owned(), "PEM 3".to_owned());
    let join = IssueRequest { release: release(), token, csr, availability: Availability::Pause };
    stored.message("issue-request.msgpack", join);
    stored.message(
        "issue-reply.msgpack",
        IssueReply {
            node: "n2".into(),
            role: NodeRole::Manager,
            certificate: "PEM 4".to_owned(),
            root: "PEM 1".to_owned(),
        },
    );
    stored.message("root-request.msgpack", RootRequest { release: release() });
    stored
        .message("root-reply.msgpack", RootReply { release: release(), root: "PEM 1".to_owned() });
    stored.message("leave-request.msgpack", LeaveRequest { tasks_first: true });
    let (raft_id, address) = (3, "192.168.100.4:2377".to_owned());
    let number = NumberRequest { release: release(), raft_id, address };
    stored.message("number-request.msgpack", number);
    stored.message("done.msgpack", Done {});
}

fn session(stored: &mut Stored) {
    let node = samples::node();
    stored.message(
        "session-request.msgpack",
        SessionRequest {
            release: release(),
            description: node.description,
            address: node.status.address,
            data_path_address: node.status.data_path_address,
            leaving: true,
        },
    );
    let welcome = Welcome {
        release: release(),
        session: "x".to_owned(),
        node: "n2".into(),
        heartbeat_millis: 5000,
        managers: vec!["192.168.100.2:2377".to_owned()],
        data_path_port: 4790,
        ..Welcome::default()
    };
    stored.message("welcome.msgpack", SessionMessage::Welcome(welcome));
    stored.message("heartbeat.msgpack", Heartbeat { session: "x".to_owned() });
    stored.message(
        "heartbeat-reply.msgpack",
        HeartbeatReply { next_millis: 5000, ..HeartbeatReply::default() },
    );
    stored.message("acknowledge.msgpack", Acknowledge { session: "x".to_owned(), version: 3 });
}

fn assignments(stored: &mut Stored) {
    let all = [samples::task(), samples::other_task()];
    let specs = all.iter().map(|it| (it.spec.id().clone(), it.spec.clone()));
    let specs: Parts<_, _> = specs.collect();
    let tasks = all.map(|it| (it.id.clone(), it.with_spec_by_id()));
    let tasks: Parts<_, _> = tasks.into_iter().collect();
    let withdrawn = BTreeSet::from(["t0".into()]);
    let knowledge = samples::knowledge();
    // Nobody reads the former ones: a manager that sends them has said no release before.
    let whole = SessionMessage::Whole(Assignments {
        version: 1,
        specs: specs.clone(),
        tasks: tasks.clone(),
        withdrawn: withdrawn.clone(),
        knowledge: knowledge.clone(),
    });
    stored.present("whole.msgpack", &wire::encode(&whole).unwrap());
    let difference = SessionMessage::Difference(Difference {
        from: 1,
        version: 2,
        specs,
        removed_specs: BTreeSet::from(["no-more".into()]),
        tasks,
        removed_tasks: BTreeSet::from(["t3".into()]),
        withdrawn: Some(withdrawn),
        knowledge: KnowledgeDifference::between(&Knowledge::default(), &knowledge),
    });
    stored.present("difference.msgpack", &wire::encode(&difference).unwrap());
}

/// One task in every state.
fn reports(stored: &mut Stored) {
    let status = |state: TaskState| (state.as_str().into(), samples::status(state));
    stored.message(
        "report.msgpack",
        Report {
            session: "x".to_owned(),
            statuses: TaskState::ALL.map(status).into(),
            sent_at: Timestamp(7),
            trouble: Some("port 8080 is taken".to_owned()),
        },
    );
}

fn logs(stored: &mut Stored) {
    let options = LogOptions {
        follow: true,
        stdout: true,
        stderr: true,
        tail: Some(10),
        since: Some(Timestamp(1)),
        until: Some(Timestamp(2)),
    };
    stored.message(
        "logs.msgpack",
        SessionMessage::Logs(LogRequest {
            subscription: "sub1".to_owned(),
            tasks: BTreeSet::from(["t1".into()]),
            options,
        }),
    );
    stored.message("logs-done.msgpack", SessionMessage::LogsDone("sub1".to_owned()));
    let line = LogLine {
        task: "t1".into(),
        node: "n2".into(),
        stderr: true,
        time: Timestamp(9),
        text: b"a\xff\n".to_vec(),
    };
    stored.message(
        "log-chunk.msgpack",
        LogChunk {
            subscription: "sub1".to_owned(),
            lines: vec![line],
            end: true,
            error: "gone".to_owned(),
        },
    );
}
