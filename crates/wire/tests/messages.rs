//! The messages as they go over the wire, held to the letter: a node of a neighbouring version must
//! understand them. Adding a field adds a line below (`UPDATE_EXPECT=1 cargo test -p wire --test
//! messages -- --test-threads 1` writes it); renaming or removing one is a mistake.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::too_many_lines, reason = "most are what is expected")]

mod rendering;

use discovery::{
    Endpoint, Knowledge, Mesh, MeshNode, MeshPort, MeshTask, NetworkView, ServiceView,
};
use expect_test::{Expect, expect};
use rendering::render;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::time::Duration;
use types::{
    Attachment, Availability, ContainerStatus, DesiredState, NodeDescription, NodeRole, Protocol,
    PublishMode, PublishedPort, Subnet, Task, TaskState, TaskStatus, Timestamp, Version,
};
use wire::{
    Acknowledge, Assignments, Difference, Done, Heartbeat, HeartbeatReply, IssueReply,
    IssueRequest, LeaveRequest, LogChunk, LogLine, LogOptions, LogRequest, Report, RootReply,
    RootRequest, SessionMessage, SessionRequest, Welcome,
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

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, last)
}

fn status() -> TaskStatus {
    TaskStatus {
        state: TaskState::Running,
        since: Timestamp(1_700_000_000_000_000_000),
        message: "started".into(),
        error: String::new(),
        container: Some(ContainerStatus { id: "c1".into(), pid: 42, exit_code: -1 }),
        unhealthy: false,
    }
}

fn task() -> Task {
    let mut task = Task {
        id: "t1".into(),
        service: "s1".into(),
        service_name: "web".into(),
        slot: 1,
        node: Some("n1".into()),
        desired: DesiredState::Running,
        status: status(),
        not_before: Some(Timestamp(5)),
        attachments: vec![Attachment {
            network: "net1".into(),
            address: address(3),
            prefix: 24,
            aliases: vec!["db".into()],
        }],
        ingress_address: Some(Ipv4Addr::new(10, 255, 0, 3)),
        ports: vec![PublishedPort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            target: 80,
            published: 8080,
            mode: PublishMode::Ingress,
        }],
        ..Task::default()
    };
    task.meta.version = Version(7);
    task.spec.container.image = "nginx:1".into();
    task.spec.container.stop_grace_period = Some(Duration::from_millis(1500));
    task
}

fn network() -> NetworkView {
    let endpoint = Endpoint {
        address: address(3),
        node: "n1".into(),
        vtep: Ipv4Addr::new(192, 168, 100, 2),
        service: "s1".into(),
        name: "web.1.t1".into(),
        aliases: BTreeSet::from(["host1".into()]),
        serving: true,
    };
    let service = ServiceView {
        name: "web".into(),
        aliases: BTreeSet::from(["www".into()]),
        vip: Some(address(2)),
        ..ServiceView::default()
    };
    NetworkView {
        mtu: 0,
        name: "front".into(),
        vni: 4097,
        subnet: Some(Subnet { net: "10.0.1.0/24".parse().unwrap(), gateway: address(1) }),
        internal: false,
        endpoints: BTreeMap::from([("t1".into(), endpoint)]),
        services: BTreeMap::from([("s1".into(), service)]),
    }
}

fn mesh() -> Mesh {
    let ingress = Ipv4Addr::new(10, 255, 0, 2);
    let node = MeshNode { address: Ipv4Addr::new(192, 168, 100, 2), ingress };
    let task = MeshTask { node: "n1".into(), ingress, serving: true };
    let port = |tasks| MeshPort { service: "s1".into(), target: 80, tasks };
    Mesh {
        mtu: 0,
        prefix: 0,
        nodes: BTreeMap::from([("n1".into(), node)]),
        tasks: BTreeMap::from([("t1".into(), task)]),
        ports: BTreeMap::from([
            ((Protocol::Tcp, 8080), port(BTreeSet::from(["t1".into()]))),
            ((Protocol::Udp, 53), port(BTreeSet::new())),
        ]),
    }
}

#[test]
fn membership() {
    check(RootRequest {}, expect!["{}"]);
    check(
        RootReply { root: "PEM".into() },
        expect![[r#"
        {
          "root": "PEM",
        }"#]],
    );
    check(
        IssueRequest {
            token: "SWMTKN-1-a-b".into(),
            csr: "PEM".into(),
            availability: Availability::Drain,
        },
        expect![[r#"
        {
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
    check(LeaveRequest {}, expect!["{}"]);
    check(Done {}, expect!["{}"]);
}

#[test]
fn session() {
    let description = NodeDescription { hostname: "node-1".into(), ..NodeDescription::default() };
    check(
        SessionRequest {
            description,
            address: Ipv4Addr::new(192, 168, 100, 2),
            data_path_address: Some(Ipv4Addr::new(10, 9, 0, 2)),
        },
        expect![[r#"
        {
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
          "address": [192, 168, 100, 2],
          "data_path_address": [10, 9, 0, 2],
        }"#]],
    );
    check(
        SessionMessage::Welcome(Welcome {
            session: "x".into(),
            node: "n1".into(),
            heartbeat_millis: 5000,
            managers: vec!["192.168.100.2:2377".into()],
            data_path_port: 4789,
        }),
        expect![[r#"
            {
              "Welcome": {
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
        HeartbeatReply { next_millis: 5000 },
        expect![[r#"
        {
          "next_millis": 5000,
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
fn assignments() {
    let networks = BTreeMap::from([("net1".into(), network())]);
    check(
        SessionMessage::Whole(Assignments {
            version: 1,
            tasks: BTreeMap::from([("t1".into(), task())]),
            withdrawn: BTreeSet::from(["t0".into()]),
            knowledge: Knowledge { networks, mesh: mesh() },
        }),
        expect![[r#"
            {
              "Whole": {
                "version": 1,
                "tasks": {
                  "t1": {
                    "id": "t1",
                    "meta": {
                      "version": 7,
                      "created_at": 0,
                      "updated_at": 0,
                    },
                    "service": "s1",
                    "service_name": "web",
                    "service_labels": {},
                    "slot": 1,
                    "node": "n1",
                    "spec": {
                      "container": {
                        "image": "nginx:1",
                        "labels": {},
                        "command": [],
                        "args": [],
                        "hostname": "",
                        "env": [],
                        "dir": "",
                        "user": "",
                        "groups": [],
                        "tty": false,
                        "open_stdin": false,
                        "read_only": false,
                        "init": nil,
                        "stop_signal": "",
                        "stop_grace_period": {
                          "secs": 1,
                          "nanos": 500000000,
                        },
                        "health": nil,
                        "hosts": [],
                        "dns": {
                          "nameservers": [],
                          "search": [],
                          "options": [],
                        },
                        "mounts": [],
                        "cap_add": [],
                        "cap_drop": [],
                        "sysctls": {},
                        "ulimits": [],
                        "oom_score_adj": 0,
                        "security": {
                          "seccomp": "default",
                          "apparmor": "default",
                          "no_new_privileges": false,
                          "selinux_disabled": false,
                        },
                      },
                      "resources": {
                        "limit_nano_cpus": 0,
                        "limit_memory": 0,
                        "limit_pids": 0,
                        "reserve_nano_cpus": 0,
                        "reserve_memory": 0,
                        "swap": nil,
                        "swappiness": nil,
                      },
                      "restart": {
                        "condition": "any",
                        "delay": {
                          "secs": 5,
                          "nanos": 0,
                        },
                        "max_attempts": 0,
                        "window": {
                          "secs": 0,
                          "nanos": 0,
                        },
                      },
                      "placement": {
                        "constraints": [],
                        "preferences": [],
                        "max_replicas_per_node": 0,
                      },
                      "networks": [],
                      "log_driver": "",
                      "log_options": {},
                      "force_update": 0,
                    },
                    "desired": "running",
                    "status": {
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
                    "not_before": 5,
                    "restarts": [],
                    "attachments": [{
                      "network": "net1",
                      "address": [10, 0, 1, 3],
                      "prefix": 24,
                      "aliases": ["db"],
                    }],
                    "ingress_address": [10, 255, 0, 3],
                    "ports": [{
                      "name": "http",
                      "protocol": "tcp",
                      "target": 80,
                      "published": 8080,
                      "mode": "ingress",
                    }],
                  },
                },
                "withdrawn": ["t0"],
                "knowledge": {
                  "networks": {
                    "net1": {
                      "name": "front",
                      "vni": 4097,
                      "subnet": {
                        "net": [10, 0, 1, 0, 24],
                        "gateway": [10, 0, 1, 1],
                      },
                      "internal": false,
                      "endpoints": {
                        "t1": {
                          "address": [10, 0, 1, 3],
                          "node": "n1",
                          "vtep": [192, 168, 100, 2],
                          "service": "s1",
                          "name": "web.1.t1",
                          "aliases": ["host1"],
                          "serving": true,
                        },
                      },
                      "services": {
                        "s1": {
                          "name": "web",
                          "aliases": ["www"],
                          "vip": [10, 0, 1, 2],
                        },
                      },
                    },
                  },
                  "mesh": {
                    "nodes": {
                      "n1": {
                        "address": [192, 168, 100, 2],
                        "ingress": [10, 255, 0, 2],
                      },
                    },
                    "tasks": {
                      "t1": {
                        "node": "n1",
                        "ingress": [10, 255, 0, 2],
                        "serving": true,
                      },
                    },
                    "ports": {
                      ["tcp", 8080]: {
                        "service": "s1",
                        "target": 80,
                        "tasks": ["t1"],
                      },
                      ["udp", 53]: {
                        "service": "s1",
                        "target": 80,
                        "tasks": [],
                      },
                    },
                  },
                },
              },
            }"#]],
    );
}

#[test]
fn difference() {
    check(
        SessionMessage::Difference(Difference::default()),
        expect![[r#"
        {
          "Difference": {
            "from": 0,
            "version": 0,
            "tasks": {},
            "removed_tasks": [],
            "withdrawn": nil,
            "networks": {},
            "removed_networks": [],
            "mesh": nil,
          },
        }"#]],
    );
    check(
        Difference {
            from: 1,
            version: 2,
            removed_tasks: BTreeSet::from(["t0".into()]),
            withdrawn: Some(BTreeSet::new()),
            networks: BTreeMap::from([("net2".into(), NetworkView::default())]),
            removed_networks: BTreeSet::from(["net1".into()]),
            mesh: Some(Mesh::default()),
            ..Difference::default()
        },
        expect![[r#"
            {
              "from": 1,
              "version": 2,
              "tasks": {},
              "removed_tasks": ["t0"],
              "withdrawn": [],
              "networks": {
                "net2": {
                  "name": "",
                  "vni": 0,
                  "subnet": nil,
                  "internal": false,
                  "endpoints": {},
                  "services": {},
                },
              },
              "removed_networks": ["net1"],
              "mesh": {
                "nodes": {},
                "tasks": {},
                "ports": {},
              },
            }"#]],
    );
}

#[test]
fn reports_and_logs() {
    let statuses = BTreeMap::from([("t1".into(), status())]);
    check(
        Report { session: "x".into(), statuses, sent_at: Timestamp(7) },
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

#[test]
fn bytes_that_are_no_message_are_refused() {
    let mut bytes = wire::encode(&Heartbeat { session: "x".into() }).unwrap();
    bytes.push(0);
    assert!(matches!(wire::decode::<Heartbeat>(&bytes), Err(wire::CodecError::Trailing(1))));
    bytes.truncate(4);
    assert!(wire::decode::<Heartbeat>(&bytes).is_err());
    assert!(wire::decode::<SessionMessage>(b"\xa5Hello").is_err());
    // A map that claims to be huge takes no memory for what is not there.
    assert!(wire::decode::<Report>(b"\xdf\xff\xff\xff\xff").is_err());
    let nested = vec![0x91; 100_000];
    assert!(wire::decode::<SessionMessage>(&nested).is_err());
}
