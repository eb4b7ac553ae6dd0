//! The messages as they go over the wire, held to the letter: a node of a neighbouring version must
//! understand them. Adding a field adds a line below (`UPDATE_EXPECT=1 cargo test -p wire --test
//! messages -- --test-threads 1` writes it); renaming or removing one is a mistake.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::too_many_lines, reason = "most are what is expected")]

mod assignments;
mod sent;

use expect_test::{Expect, expect};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::Ipv4Addr;
use stored::render;
use types::{
    Availability, ContainerStatus, NodeDescription, NodeRole, TaskState, TaskStatus, Timestamp,
};
use wire::{
    Acknowledge, Assignments, Difference, Done, Heartbeat, HeartbeatReply, IssueReply,
    IssueRequest, LeaveRequest, LogChunk, LogLine, LogOptions, LogRequest, Release, Report,
    RootReply, RootRequest, SessionMessage, SessionRequest, Trust, Welcome,
};

/// Holds a message to its rendering, and checks that it is read as it was written.
#[expect(clippy::needless_pass_by_value, reason = "reads better where it is called")]
fn check<T>(message: T, expected: Expect)
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let bytes = wire::encode(&message).unwrap();
    expected.assert_eq(&render(&bytes));
    assert_eq!(wire::decode::<T>(&bytes).unwrap(), message);
}

fn release() -> Release {
    Release { protocol: 7, oldest: 6, version: "0.7.0".to_owned() }
}

fn status() -> TaskStatus {
    TaskStatus {
        state: TaskState::Running,
        since: Timestamp(1_700_000_000_000_000_000),
        message: "started".into(),
        error: String::new(),
        container: Some(ContainerStatus { id: "c1".into(), pid: 42, exit_code: -1 }),
        unhealthy: false,
        refreshed: 0,
    }
}

#[test]
fn membership() {
    check(
        RootRequest { release: release() },
        expect![[r#"
            {
              "release": {
                "protocol": 7,
                "oldest": 6,
                "version": "0.7.0",
              },
            }"#]],
    );
    check(
        RootReply { release: release(), root: "PEM".into() },
        expect![[r#"
            {
              "release": {
                "protocol": 7,
                "oldest": 6,
                "version": "0.7.0",
              },
              "root": "PEM",
            }"#]],
    );
    check(
        IssueRequest {
            release: release(),
            token: "SWMTKN-1-a-b".into(),
            csr: "PEM".into(),
            availability: Availability::Drain,
        },
        expect![[r#"
            {
              "release": {
                "protocol": 7,
                "oldest": 6,
                "version": "0.7.0",
              },
              "token": "SWMTKN-1-a-b",
              "csr": "PEM",
              "availability": "drain",
            }"#]],
    );
    check(
        IssueReply {
            node: "n1".into(),
            role: NodeRole::Worker,
            certificate: "PEM".into(),
            root: "PEM".into(),
        },
        expect![[r#"
            {
              "node": "n1",
              "role": "worker",
              "certificate": "PEM",
              "root": "PEM",
            }"#]],
    );
    check(
        LeaveRequest::default(),
        expect![[r#"
            {
              "tasks_first": false,
            }"#]],
    );
    check(Done {}, expect!["{}"]);
}

#[test]
fn session() {
    let description = NodeDescription { hostname: "node-1".into(), ..NodeDescription::default() };
    check(
        SessionRequest {
            release: release(),
            description,
            address: Ipv4Addr::new(192, 168, 100, 2).into(),
            data_path_address: Some(Ipv4Addr::new(10, 9, 0, 2).into()),
            leaving: true,
        },
        expect![[r#"
            {
              "release": {
                "protocol": 7,
                "oldest": 6,
                "version": "0.7.0",
              },
              "description": {
                "hostname": "node-1",
                "platform": {
                  "os": "",
                  "architecture": "",
                },
                "nano_cpus": 0,
                "memory_bytes": 0,
                "engine": {
                  "version": "",
                  "labels": {},
                },
                "trust_root": "",
              },
              "address": "192.168.100.2",
              "data_path_address": "10.9.0.2",
              "leaving": true,
            }"#]],
    );
    check(
        SessionMessage::Welcome(Welcome {
            release: release(),
            session: "x".into(),
            node: "n1".into(),
            heartbeat_millis: 5000,
            managers: vec!["192.168.100.2:2377".into()],
            data_path_port: 4789,
            ..Welcome::default()
        }),
        expect![[r#"
            {
              "Welcome": {
                "release": {
                  "protocol": 7,
                  "oldest": 6,
                  "version": "0.7.0",
                },
                "session": "x",
                "node": "n1",
                "heartbeat_millis": 5000,
                "managers": ["192.168.100.2:2377"],
                "data_path_port": 4789,
              },
            }"#]],
    );
    check(
        SessionMessage::LogsDone("sub1".into()),
        expect![[r#"
        {
          "LogsDone": "sub1",
        }"#]],
    );
    check(
        Heartbeat { session: "x".into() },
        expect![[r#"
        {
          "session": "x",
        }"#]],
    );
    check(
        HeartbeatReply { next_millis: 5000, ..HeartbeatReply::default() },
        expect![[r#"
        {
          "next_millis": 5000,
        }"#]],
    );
    check(
        HeartbeatReply {
            next_millis: 5000,
            managers: vec!["m:1".into()],
            trust: Some(Trust {
                roots: "PEM".into(),
                issuer: Some(types::Issuer { subject: vec![1], public_key: vec![2] }),
            }),
        },
        expect![[r#"
            {
              "next_millis": 5000,
              "managers": ["m:1"],
              "trust": {
                "roots": "PEM",
                "issuer": {
                  "subject": b"\x01",
                  "public_key": b"\x02",
                },
              },
            }"#]],
    );
    check(
        Acknowledge { session: "x".into(), version: 3 },
        expect![[r#"
        {
          "session": "x",
          "version": 3,
        }"#]],
    );
}

#[test]
fn reports_and_logs() {
    let statuses = BTreeMap::from([("t1".into(), status())]);
    check(
        Report { session: "x".into(), statuses, sent_at: Timestamp(7), trouble: Some("t".into()) },
        expect![[r#"
        {
          "session": "x",
          "statuses": {
            "t1": {
              "state": "running",
              "since": 1700000000000000000,
              "message": "started",
              "error": "",
              "container": {
                "id": "c1",
                "pid": 42,
                "exit_code": -1,
              },
              "unhealthy": false,
            },
          },
          "sent_at": 7,
          "trouble": "t",
        }"#]],
    );
    let options = LogOptions {
        follow: true,
        stdout: true,
        stderr: false,
        tail: Some(10),
        since: Some(Timestamp(1)),
        until: None,
    };
    check(
        SessionMessage::Logs(LogRequest {
            subscription: "sub1".into(),
            tasks: BTreeSet::from(["t1".into()]),
            options,
        }),
        expect![[r#"
            {
              "Logs": {
                "subscription": "sub1",
                "tasks": ["t1"],
                "options": {
                  "follow": true,
                  "stdout": true,
                  "stderr": false,
                  "tail": 10,
                  "since": 1,
                  "until": nil,
                },
              },
            }"#]],
    );
    check(
        LogChunk {
            subscription: "sub1".into(),
            lines: vec![LogLine {
                task: "t1".into(),
                node: "n1".into(),
                stderr: true,
                time: Timestamp(9),
                text: b"a\xff\n".to_vec(),
            }],
            end: true,
            error: "gone".into(),
        },
        expect![[r#"
            {
              "subscription": "sub1",
              "lines": [{
                "task": "t1",
                "node": "n1",
                "stderr": true,
                "time": 9,
                "text": b"a\xff\n",
              }],
              "end": true,
              "error": "gone",
            }"#]],
    );
}

/// A neighbouring version may know more fields, or fewer.
#[test]
fn unknown_fields_are_skipped_and_missing_ones_take_their_defaults() {
    #[derive(Serialize)]
    struct Newer {
        session: &'static str,
        since: u64,
        more: BTreeMap<&'static str, Vec<u8>>,
    }
    let newer = Newer { session: "x", since: 4, more: BTreeMap::from([("a", vec![1])]) };
    let read: Acknowledge = wire::decode(&wire::encode(&newer).unwrap()).unwrap();
    assert_eq!(read, Acknowledge { session: "x".into(), version: 0 });
}

/// Of messages, and of what is in them.
#[test]
fn everything_has_defaults() {
    fn check<T: DeserializeOwned>() {
        let read = wire::decode::<T>(b"\x80");
        assert!(read.is_ok(), "{}: {}", std::any::type_name::<T>(), read.err().unwrap());
    }
    check::<Release>();
    check::<RootRequest>();
    check::<RootReply>();
    check::<IssueRequest>();
    check::<IssueReply>();
    check::<LeaveRequest>();
    check::<Done>();
    check::<SessionRequest>();
    check::<Welcome>();
    check::<Assignments>();
    check::<Difference>();
    check::<Heartbeat>();
    check::<HeartbeatReply>();
    check::<Acknowledge>();
    check::<Report>();
    check::<LogRequest>();
    check::<LogOptions>();
    check::<LogChunk>();
    check::<LogLine>();
    check::<NodeDescription>();
    check::<types::Platform>();
    check::<types::EngineInfo>();
    check::<types::Task>();
    check::<TaskStatus>();
    check::<ContainerStatus>();
    check::<types::TaskSpec>();
    check::<types::ContainerSpec>();
    check::<types::Attachment>();
    check::<types::Mount>();
    check::<types::HealthCheck>();
    check::<types::HostEntry>();
    check::<types::Resources>();
    check::<types::Placement>();
    check::<types::Preference>();
    check::<types::PublishedPort>();
    check::<types::Subnet>();
    check::<types::Security>();
    check::<types::Service>();
    check::<types::Vip>();
    check::<types::UpdateStatus>();
    check::<types::Network>();
    check::<types::Node>();
    check::<types::Cluster>();
    check::<discovery::Knowledge>();
    check::<discovery::NetworkView>();
    check::<discovery::Endpoint>();
    check::<discovery::ServiceView>();
    check::<discovery::MeshNode>();
    check::<discovery::MeshTask>();
    check::<discovery::MeshPort>();
    check::<discovery::Mesh>();
    check::<discovery::Sandbox>();
    check::<discovery::SandboxAttachment>();
    for kind in ["Welcome", "Whole", "Difference", "Logs"] {
        let empty = BTreeMap::from([(kind, BTreeMap::<u8, u8>::new())]);
        wire::decode::<SessionMessage>(&wire::encode(&empty).unwrap()).unwrap();
    }
}

#[test]
fn bytes_that_are_no_message_are_refused() {
    let mut bytes = wire::encode(&Heartbeat { session: "x".into() }).unwrap();
    bytes.push(0);
    assert!(matches!(wire::decode::<Heartbeat>(&bytes), Err(msgpack::Error::Trailing(1))));
    bytes.truncate(4);
    assert!(wire::decode::<Heartbeat>(&bytes).is_err());
    assert!(wire::decode::<SessionMessage>(b"\xa5Hello").is_err());
    // A map that claims to be huge takes no memory for what is not there.
    assert!(wire::decode::<Report>(b"\xdf\xff\xff\xff\xff").is_err());
    let nested = vec![0x91; 100_000];
    assert!(wire::decode::<SessionMessage>(&nested).is_err());
}
