//! What a node is to have: all of it, and what has changed.

use crate::{check, status};
use discovery::{
    Endpoint, Knowledge, KnowledgeDifference, Mesh, MeshNode, MeshPort, MeshTask, NetworkView,
    OrdMap, OrdSet, ServiceView,
};
use expect_test::expect;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;
use types::{
    Addresses, Attachment, DesiredState, FileContent, FileReference, Protocol, PublishMode,
    PublishedPort, SharedSpec, SpecId, Subnet, Task, TaskId, Templating, Timestamp, Version,
};
use wire::{Assignments, Difference, Parts, SessionMessage};

fn address(last: u8) -> Addresses {
    [10, 0, 1, last].into()
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
            addresses: address(3),
            aliases: vec!["db".into()],
        }],
        ingress_addresses: [10, 255, 0, 3].into(),
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

/// As managers write them.
fn tasks() -> Parts<TaskId, Task> {
    [("t1".into(), task().with_spec_by_id())].into_iter().collect()
}

fn specs() -> Parts<SpecId, SharedSpec> {
    let spec = task().spec;
    [(spec.id().clone(), spec)].into_iter().collect()
}

fn network() -> NetworkView {
    let endpoint = Endpoint {
        addresses: address(3),
        node: "n1".into(),
        vtep: Ipv4Addr::new(192, 168, 100, 2).into(),
        service: "s1".into(),
        name: "web.1.t1".into(),
        aliases: BTreeSet::from(["host1".into()]),
        serving: true,
    };
    let service = ServiceView {
        name: "web".into(),
        aliases: BTreeSet::from(["www".into()]),
        vips: address(2),
        ..ServiceView::default()
    };
    NetworkView {
        mtu: 0,
        name: "front".into(),
        vni: 4097,
        subnets: Subnet::new("10.0.1.0/24".parse().unwrap()).into_iter().collect(),
        internal: false,
        endpoints: OrdMap::unit("t1".into(), endpoint),
        services: OrdMap::unit("s1".into(), service),
    }
}

fn mesh() -> Mesh {
    let ingress = [10, 255, 0, 2].into();
    let node = MeshNode { address: Ipv4Addr::new(192, 168, 100, 2).into(), ingress };
    let task = MeshTask { node: "n1".into(), ingress, serving: true };
    let port = |tasks| MeshPort { service: "s1".into(), target: 80, tasks };
    Mesh {
        mtu: 0,
        prefix: 0,
        prefix_v6: 0,
        nodes: OrdMap::unit("n1".into(), node),
        tasks: OrdMap::unit("t1".into(), task),
        ports: OrdMap::from(vec![
            ((Protocol::Tcp, 8080), port(OrdSet::unit("t1".into()))),
            ((Protocol::Udp, 53), port(OrdSet::new())),
        ]),
    }
}

#[test]
fn assignments() {
    let networks = BTreeMap::from([("net1".into(), network())]);
    check(
        SessionMessage::Whole(Assignments {
            version: 1,
            specs: specs(),
            tasks: tasks(),
            withdrawn: BTreeSet::from(["t0".into()]),
            knowledge: Knowledge { networks, mesh: mesh() },
            ..Assignments::default()
        }),
        expect![[r#"
            {
              "Whole": {
                "version": 1,
                "specs": {
                  "0er4z7vv8kjpdydig3eqhvvup": bytes of {
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
                },
                "tasks": {
                  "t1": bytes of {
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
                    "spec": "0er4z7vv8kjpdydig3eqhvvup",
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
                      "addresses": ["10.0.1.3"],
                      "aliases": ["db"],
                    }],
                    "ingress_addresses": ["10.255.0.3"],
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
                      "subnets": [{
                        "net": "10.0.1.0/24",
                        "gateway": "10.0.1.1",
                      }],
                      "internal": false,
                      "endpoints": {
                        "t1": {
                          "addresses": ["10.0.1.3"],
                          "node": "n1",
                          "vtep": "192.168.100.2",
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
                          "vips": ["10.0.1.2"],
                        },
                      },
                    },
                  },
                  "mesh": {
                    "nodes": {
                      "n1": {
                        "address": "192.168.100.2",
                        "ingress": ["10.255.0.2"],
                      },
                    },
                    "tasks": {
                      "t1": {
                        "node": "n1",
                        "ingress": ["10.255.0.2"],
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
            "knowledge": {},
          },
        }"#]],
    );
    let before = Knowledge {
        networks: BTreeMap::from([("net0".into(), network()), ("net1".into(), network())]),
        mesh: Mesh::default(),
    };
    let mut after = Knowledge {
        networks: BTreeMap::from([("net1".into(), network()), ("net2".into(), network())]),
        mesh: mesh(),
    };
    after.networks.entry("net1".into()).or_default().endpoints.clear();
    check(
        Difference {
            from: 1,
            version: 2,
            removed_tasks: BTreeSet::from(["t0".into()]),
            withdrawn: Some(BTreeSet::new()),
            knowledge: KnowledgeDifference::between(&before, &after),
            ..Difference::default()
        },
        expect![[r#"
            {
              "from": 1,
              "version": 2,
              "tasks": {},
              "removed_tasks": ["t0"],
              "withdrawn": [],
              "knowledge": {
                "networks": {
                  "net1": {
                    "endpoints": {
                      "gone": ["t1"],
                    },
                  },
                  "net2": {
                    "settings": {
                      "name": "front",
                      "vni": 4097,
                      "subnets": [{
                        "net": "10.0.1.0/24",
                        "gateway": "10.0.1.1",
                      }],
                      "internal": false,
                      "mtu": 0,
                    },
                    "endpoints": {
                      "changed": {
                        "t1": {
                          "addresses": ["10.0.1.3"],
                          "node": "n1",
                          "vtep": "192.168.100.2",
                          "service": "s1",
                          "name": "web.1.t1",
                          "aliases": ["host1"],
                          "serving": true,
                        },
                      },
                    },
                    "services": {
                      "changed": {
                        "s1": {
                          "name": "web",
                          "aliases": ["www"],
                          "vips": ["10.0.1.2"],
                        },
                      },
                    },
                  },
                },
                "removed_networks": ["net0"],
                "mesh": {
                  "nodes": {
                    "changed": {
                      "n1": {
                        "address": "192.168.100.2",
                        "ingress": ["10.255.0.2"],
                      },
                    },
                  },
                  "tasks": {
                    "changed": {
                      "t1": {
                        "node": "n1",
                        "ingress": ["10.255.0.2"],
                        "serving": true,
                      },
                    },
                  },
                  "ports": {
                    ["tcp", 8080]: {
                      "service": "s1",
                      "target": 80,
                      "tasks": {
                        "added": ["t1"],
                      },
                    },
                    ["udp", 53]: {
                      "service": "s1",
                      "target": 80,
                    },
                  },
                },
              },
            }"#]],
    );
}

/// A release that knows no files reads neither what they are nor what tasks with them are made from.
#[derive(Debug, serde::Deserialize)]
struct Former {
    specs: Option<Parts<SpecId, SharedSpec>>,
}

#[test]
fn files_stand_beside_the_tasks_that_need_them() {
    let content = |data: &[u8], templating| FileContent { data: data.to_vec().into(), templating };
    let mut spec = SharedSpec::default();
    let reference = FileReference { id: "x1".into(), name: "key".into(), ..Default::default() };
    spec.container.secrets = vec![reference];
    let difference = Difference {
        from: 1,
        version: 2,
        specs_with_files: [(spec.id().clone(), spec.clone())].into_iter().collect(),
        secrets: [("x1".into(), content(b"key", None))].into_iter().collect(),
        configs: [("c1".into(), content(b"{{1}}", Some(Templating::Golang)))].into_iter().collect(),
        removed_secrets: ["x0".into()].into(),
        removed_configs: ["c0".into()].into(),
        ..Difference::default()
    };
    let message = SessionMessage::Difference(difference);
    let bytes = wire::encode(&message).unwrap();
    assert_eq!(wire::decode::<SessionMessage>(&bytes).unwrap(), message);
    let former: BTreeMap<String, Former> = wire::decode(&bytes).unwrap();
    assert!(former["Difference"].specs.is_none(), "{former:?}");
    check(
        message,
        expect![[r#"
        {
          "Difference": {
            "from": 1,
            "version": 2,
            "specs_with_files": {
              "81fc2jc738xrfgha3t59rtmol": bytes of {
                "container": {
                  "image": "",
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
                  "stop_grace_period": nil,
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
                  "secrets": [{
                    "id": "x1",
                    "name": "key",
                    "target": {
                      "name": "",
                      "uid": 0,
                      "gid": 0,
                      "mode": 292,
                    },
                  }],
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
            },
            "secrets": {
              "x1": bytes of {
                "data": b"key",
              },
            },
            "configs": {
              "c1": bytes of {
                "data": b"{{1}}",
                "templating": "golang",
              },
            },
            "removed_secrets": ["x0"],
            "removed_configs": ["c0"],
            "tasks": {},
            "removed_tasks": [],
            "withdrawn": nil,
            "knowledge": {},
          },
        }"#]],
    );
}
