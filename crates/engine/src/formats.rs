//! What every format that was released has written down of containers, volumes and images is read.

use crate::config::{Asked, ContainerConfig, HostPort, LogConfig, NetworkMode};
use crate::health::{Health, HealthStatus, Probe};
use crate::info::{ContainerState, MountPoint, Status};
use crate::record::Record;
use crate::task_images::TaskImages;
use crate::volumes::Volume;
use discovery::Place;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use stored::{Stored, samples};
use types::{Addresses, Labels, Protocol, Timestamp};

/// What was released and is never written again.
const FORMER: [(&str, &str); 1] = [("0.1.0-format1", "78382181fc27880f")];

fn record() -> Record {
    let spec = samples::task().spec;
    let config = ContainerConfig {
        id: "c1".to_owned(),
        name: "shop_web.1.t1".to_owned(),
        network: NetworkMode::Attached,
        host_ports: vec![HostPort { protocol: Protocol::Udp, published: 53, target: 5353 }],
        log: LogConfig { driver: "local".to_owned(), options: spec.log_options.clone() },
        auto_remove: true,
        stdin_once: true,
        shm_size: 1 << 20,
        masked_paths: Some(vec!["/proc/kcore".to_owned()]),
        readonly_paths: Some(vec!["/proc/sys".to_owned()]),
        node: types::NodeAccess::default(),
        is_tasks: true,
        asked: Asked {
            attach_stdin: true,
            attach_stdout: true,
            attach_stderr: true,
            exposed_ports: ["53/udp".to_owned()].into(),
            binds: vec!["/a:/b:ro".to_owned()],
            tmpfs: Labels::from([("/t".to_owned(), "size=64k".to_owned())]),
            volumes: ["/v".to_owned()].into(),
            extra_hosts: vec!["db:host-gateway".to_owned()],
            host_ports: vec![HostPort { protocol: Protocol::Udp, published: 0, target: 5353 }],
        },
        resources: spec.resources,
        spec: spec.container.clone(),
    };
    let probe =
        Probe { start: Timestamp(1), end: Timestamp(2), exit_code: -1, output: "late".to_owned() };
    Record {
        id: "c1".to_owned(),
        name: "shop_web.1.t1".to_owned(),
        created: Timestamp(3),
        image: "sha256:0123".to_owned(),
        image_config: serde_json::json!({"config": {"Cmd": ["/bin/web"], "Env": ["A=2"]}}),
        mounts: vec![MountPoint {
            mount: config.spec.mounts[0].clone(),
            source: PathBuf::from("/var/lib/skep/engine/volumes/data/_data"),
            anonymous: true,
            ..MountPoint::default()
        }],
        config,
        state: ContainerState {
            status: Status::Exited,
            pid: 42,
            exit_code: 137,
            error: "no such file".to_owned(),
            oom_killed: true,
            started_at: Timestamp(4),
            finished_at: Timestamp(5),
            health: Some(Health {
                status: HealthStatus::Unhealthy,
                failing_streak: 3,
                log: vec![probe],
            }),
            starts: 2,
            places: vec![Place {
                network: "net1".into(),
                name: "shop_default".to_owned(),
                subnets: samples::network().subnets,
                internal: true,
                addresses: Addresses { v4: Some([10, 0, 1, 3].into()), v6: None },
                names: vec!["shop_web.1.t1".to_owned()],
            }],
            volumes: BTreeMap::new(),
        },
    }
}

fn volume() -> Volume {
    Volume {
        name: "data".to_owned(),
        labels: Labels::from([("a".to_owned(), "b".to_owned())]),
        created: Timestamp(6),
        anonymous: true,
        driver: "local".to_owned(),
        options: Labels::from([("type".to_owned(), "tmpfs".to_owned())]),
        ..Volume::default()
    }
}

fn check<T>(stored: &mut Stored, name: &str, sample: &T)
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let bytes = serde_json::to_vec(sample).unwrap();
    assert_eq!(serde_json::from_slice::<T>(&bytes).unwrap(), *sample);
    stored.present(name, &bytes);
    for (format, bytes) in stored.former(name) {
        let read: T = serde_json::from_slice(&bytes).unwrap();
        stored.reads(&format, name, &(serde_json::to_string_pretty(&read).unwrap() + "\n"));
    }
}

#[test]
fn records_of_every_format_are_read() {
    let mut stored = Stored::of(env!("CARGO_MANIFEST_DIR"));
    check(&mut stored, "record.json", &record());
    check(&mut stored, "volume.json", &volume());
    let images = TaskImages::from([("sha256:0123".to_owned(), Timestamp(7))]);
    check(&mut stored, "task-images.json", &images);
    stored.finish(&FORMER);
}
