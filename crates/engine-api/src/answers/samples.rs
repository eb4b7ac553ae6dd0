//! What is rendered of objects that have everything.

use crate::json;
use crate::port::{About, Membership};
use crate::system;
use engine::{
    Asked, ContainerConfig, ContainerInfo, ContainerState, Health, HostPort, Image, Merged,
    MountPoint, Place, Probe, Status, Volume,
};
use serde_json::{Value, json};
use std::path::PathBuf;
use stored::samples;
use types::{
    HealthCheck, HostEntry, PublishMode, PublishedPort, Service, Task, TaskState, Timestamp,
};

/// An answer of each operation of `docker-answers.txt`; of a list, one item.
pub(super) fn all() -> Vec<(&'static str, Value)> {
    let (container, image) = (container(), image());
    let bridge = "172.31.0.0/16".parse().ok();
    let network = samples::network();
    let endpoint = json::network::EndpointJson {
        name: "web",
        id: "e".to_owned(),
        mac: "m".to_owned(),
        v4: "10.0.1.3/24",
        v6: "",
    };
    let shown = json::network::render(&network, &json!({ "c": endpoint.render() }));
    let mut inspected = shown.clone();
    inspected["Peers"] = json!([{ "Name": "n", "IP": "10.0.0.1" }]);
    let manager = json::node::ManagerView {
        address: "10.0.0.1:2377".to_owned(),
        leader: true,
        reachable: true,
    };
    let mut node = samples::node();
    node.trouble = "a port is taken".to_owned();
    node.description.generic = about().generic;
    let find = |_: &types::NetworkId| Some(&network);
    let mut info =
        system::render_info(&about(), &system::Counts::default(), &system::Machine::default());
    info["Swarm"] = system::swarm(&Membership::Inactive);
    vec![
        ("GET /containers/json", json::container::render_item(&container, Timestamp(9), bridge)),
        ("GET /containers/{id}/json", json::container::render(&container, bridge)),
        ("GET /images/json", json::image::render_item(&image, 1)),
        ("GET /images/{name}/json", json::image::render(&image)),
        ("GET /info", with_cluster(info)),
        ("GET /networks", shown),
        ("GET /networks/{id}", inspected),
        ("GET /nodes/{id}", json::node::render(&node, Some(&manager))),
        ("GET /services/{id}", json::service::render(&service(), None, find)),
        ("GET /swarm", json::cluster::render(&samples::cluster())),
        ("GET /tasks/{id}", json::task::render(&task(), |_| Some(network.clone()))),
        ("GET /version", system::render_version(&about())),
        ("GET /volumes/{name}", crate::local::render_volume(&volume())),
    ]
}

/// A manager's view of `docker info`.
fn with_cluster(mut info: Value) -> Value {
    info["Swarm"]["Nodes"] = 1.into();
    info["Swarm"]["Managers"] = 1.into();
    info["Swarm"]["RemoteManagers"] = json!([{ "NodeID": "n", "Addr": "10.0.0.1:2377" }]);
    info["Swarm"]["Cluster"] = json::cluster::render_info(&samples::cluster());
    info
}

fn about() -> About {
    let text = |text: &str| text.to_owned();
    About {
        id: text("id"),
        hostname: text("node-1"),
        labels: types::Labels::new(),
        generic: types::generic::parse(&["gpu=a", "seat=2"]).expect("resources"),
        version: text("0.1.0"),
        data_dir: PathBuf::from("/data"),
        kernel: text("6.12"),
        operating_system: text("Linux"),
        operating_system_version: text("1"),
        architecture: text("x86_64"),
        cpus: 1,
        memory_bytes: 1,
        cgroup_version: "2",
        gateway_subnet: text("172.31.0.0/16"),
    }
}

fn container() -> ContainerInfo {
    let task = samples::task();
    let port = HostPort { published: 80, target: 80, protocol: types::Protocol::Tcp };
    let mut spec = task.spec.container.clone();
    spec.hosts = vec![HostEntry { address: [10, 0, 0, 9].into(), names: vec!["db".to_owned()] }];
    ContainerInfo {
        id: "c".repeat(64),
        config: ContainerConfig {
            spec,
            host_ports: vec![port],
            asked: Asked { tmpfs: [("/t".to_owned(), String::new())].into(), ..Asked::default() },
            ..ContainerConfig::default()
        },
        merged: Merged {
            exposed_ports: ["80/tcp".to_owned()].into(),
            stop_signal: "SIGINT".to_owned(),
            health: Some(health()),
            ..Merged::default()
        },
        state: ContainerState {
            status: Status::Running,
            health: Some(Health { log: vec![Probe::default()], ..Health::default() }),
            places: vec![Place { name: "net".to_owned(), ..Place::default() }],
            ..ContainerState::default()
        },
        mounts: vec![MountPoint::default()],
        address: Some([172, 31, 0, 2].into()),
        ..ContainerInfo::default()
    }
}

fn health() -> HealthCheck {
    let second = std::time::Duration::from_secs(1);
    HealthCheck {
        test: vec!["CMD".to_owned(), "true".to_owned()],
        interval: second,
        timeout: second,
        start_period: second,
        start_interval: second,
        retries: 1,
    }
}

fn image() -> Image {
    let config = json!({
        "User": "u", "ExposedPorts": {}, "Env": [], "Cmd": [], "Healthcheck": {
            "Test": [], "Interval": 1, "Timeout": 1, "Retries": 1, "StartPeriod": 1,
            "StartInterval": 1 },
        "ArgsEscaped": true, "Volumes": {}, "WorkingDir": "", "Entrypoint": [], "OnBuild": [],
        "Labels": {}, "StopSignal": "", "Shell": [],
    });
    Image {
        config: json!({ "config": config, "variant": "v8", "os.version": "1" }),
        ..Image::default()
    }
}

/// All that a service may say, though no job has all of it.
fn service() -> Service {
    Service { job: samples::job().job, ..samples::service() }
}

fn task() -> Task {
    let mut task = samples::task();
    task.slot = 2;
    task.iteration = Some(3);
    task.status.state = TaskState::Running;
    task.status.error = "odd".to_owned();
    let port = PublishedPort {
        name: "web".to_owned(),
        published: 80,
        mode: PublishMode::Host,
        ..PublishedPort::default()
    };
    task.ports = vec![port];
    task.generic = about().generic;
    task
}

fn volume() -> Volume {
    Volume::default()
}
