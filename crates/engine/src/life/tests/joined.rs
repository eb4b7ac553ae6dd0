//! Containers that have name spaces of others.

use super::Stage;
use crate::*;
use serde_json::{Value, json};
use types::{Fault, FaultKind};

type Change = fn(&mut ContainerConfig);

fn kinds(spec: &Value) -> Vec<(String, Option<String>)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let kinds = spec["linux"]["namespaces"].as_array().unwrap().iter();
    kinds.map(|kind| (text(&kind["type"]).unwrap(), text(&kind["path"]))).collect()
}

#[tokio::test]
async fn name_spaces_of_another_container_are_found_by_its_process() {
    let stage = Stage::new().await;
    let donor = stage
        .running(|config| {
            config.name = "donor".to_owned();
            config.spec.hostname = "giver".to_owned();
            config.node.ipc = true;
        })
        .await;
    let pid = stage.engine.inspect(&donor).await.unwrap().state.pid;
    let id = stage
        .running(|config| {
            config.node.joined.network = "donor".to_owned();
            config.node.joined.pid = donor[..12].to_owned();
            config.node.joined.ipc = "donor".to_owned();
        })
        .await;
    let info = stage.engine.inspect(&id).await.unwrap();
    let joined = &info.config.node.joined;
    assert_eq!([&joined.network, &joined.pid, &joined.ipc], [&donor; 3], "known by its id");
    let spec = stage.fake.spec(&id).unwrap();
    let found = kinds(&spec);
    for (kind, file) in [("network", "net"), ("pid", "pid"), ("ipc", "ipc")] {
        let wanted = (kind.to_owned(), Some(format!("/proc/{pid}/ns/{file}")));
        assert!(found.contains(&wanted), "{found:?}");
    }
    assert_eq!(spec["hostname"], "giver");
    let mounts = spec["mounts"].as_array().unwrap();
    let source = |target: &str| {
        let mount = mounts.iter().find(|mount| mount["destination"] == target).unwrap();
        mount["source"].as_str().unwrap().to_owned()
    };
    assert!(source("/etc/hosts").contains(&donor), "it has the other's files");
    assert_eq!(source("/dev/shm"), "/dev/shm");
    assert!(spec["linux"]["sysctl"].get("net.ipv4.ping_group_range").is_none());
}

#[tokio::test]
async fn a_network_is_joined_by_way_of_one_that_has_joined_it_itself() {
    let stage = Stage::new().await;
    let first = stage.running(|config| config.spec.hostname = "giver".to_owned()).await;
    let between = stage.running(|config| config.node.joined.network.clone_from(&first)).await;
    let last = stage.running(|config| config.node.joined.network.clone_from(&between)).await;
    let pid = stage.engine.inspect(&between).await.unwrap().state.pid;
    let spec = stage.fake.spec(&last).unwrap();
    assert_eq!(spec["hostname"], "giver");
    let mounts = spec["mounts"].as_array().unwrap();
    for target in ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"] {
        let mount = mounts.iter().find(|mount| mount["destination"] == target).unwrap();
        let source = mount["source"].as_str().unwrap();
        assert!(source.contains(&first) && std::path::Path::new(source).exists(), "{source}");
    }
    let wanted = ("network".to_owned(), Some(format!("/proc/{pid}/ns/net")));
    assert!(kinds(&spec).contains(&wanted));
}

#[tokio::test]
async fn who_cannot_be_joined_is_told_in_dockers_words() {
    let stage = Stage::new().await;
    let joins = |pid: &str, ipc: &str| {
        let (pid, ipc) = (pid.to_owned(), ipc.to_owned());
        move |config: &mut ContainerConfig| {
            config.node.joined.pid = pid;
            config.node.joined.ipc = ipc;
        }
    };
    let early = stage.created(joins("nobody", "")).await;
    let unknown = stage.engine.start(&early).await.unwrap_err();
    assert_eq!(unknown, Fault::not_found("No such container: nobody"));
    let donor = stage.created(|_| {}).await;
    let early = stage.created(joins(&donor, "")).await;
    let refused = stage.engine.start(&early).await.unwrap_err();
    let words = format!("cannot join PID namespace of a non running container: {donor}");
    assert_eq!(refused, Fault::conflict(words));
    assert!(stage.engine.start(&donor).await.unwrap());
    assert!(stage.engine.start(&early).await.unwrap());
    let private = stage.created(joins("", &donor)).await;
    let refused = stage.engine.start(&private).await.unwrap_err();
    assert_eq!(refused.kind, FaultKind::Conflict);
    assert!(
        refused.message.contains("non-shareable IPC (hint: use IpcMode:shareable"),
        "{refused}"
    );
}

#[tokio::test]
async fn what_has_no_meaning_on_the_network_of_another_is_refused() {
    let stage = Stage::new().await;
    stage.running(|config| config.name = "donor".to_owned()).await;
    let port = HostPort { protocol: types::Protocol::Tcp, published: 80, target: 80 };
    let publish: Box<dyn Fn(&mut ContainerConfig)> =
        Box::new(move |config| config.host_ports = vec![port]);
    let changes: [(Change, &str); 5] = [
        (|it| it.spec.hostname = "h".to_owned(), "hostname and the network mode"),
        (|it| it.spec.dns.search = vec!["a".to_owned()], "dns and the network mode"),
        (
            |it| it.spec.hosts = vec![types::HostEntry::default()],
            "custom host-to-IP mapping and the network mode",
        ),
        (
            |it| it.asked.exposed_ports = ["80/tcp".to_owned()].into(),
            "port exposing and the container type network mode",
        ),
        (|it| it.node.cgroup_parent = "/a/../b".to_owned(), "invalid cgroup parent: \"/a/../b\""),
    ];
    let refused = async |change: &dyn Fn(&mut ContainerConfig)| {
        let with = |config: &mut ContainerConfig| {
            config.node.joined.network = "donor".to_owned();
            change(config);
        };
        stage.try_create(with).await.unwrap_err().message
    };
    for (change, why) in changes {
        let said = refused(&change).await;
        assert!(said.ends_with(why), "{said}");
    }
    let said = refused(&*publish).await;
    assert!(said.ends_with("port publishing and the container type network mode"), "{said}");
}

#[tokio::test]
async fn a_container_has_the_cgroup_and_the_devices_that_it_asks_for() {
    let stage = Stage::new().await;
    let folder = stage.dir.path().join("cdi");
    std::fs::create_dir(&folder).unwrap();
    let text = "kind: v.io/c\ndevices: [{name: x, containerEdits: {env: [FOUND=yes]}}]\n";
    std::fs::write(folder.join("c.yaml"), text).unwrap();
    let wants = |name: &str| types::DeviceRequest::cdi(vec![name.to_owned()]);
    let id = stage
        .running(|config| {
            config.node.cgroup_parent = "mine".to_owned();
            config.node.device_requests = vec![wants("v.io/c=x")];
        })
        .await;
    let spec = stage.fake.spec(&id).unwrap();
    assert_eq!(spec["linux"]["cgroupsPath"], json!(format!("/mine/{id}")));
    let env = spec["process"]["env"].as_array().unwrap();
    assert!(env.contains(&json!("FOUND=yes")), "{env:?}");
    let other = stage.created(|config| config.node.device_requests = vec![wants("v.io/c=y")]).await;
    let refused = stage.engine.start(&other).await.unwrap_err().message;
    assert!(refused.ends_with("unresolvable CDI devices v.io/c=y"), "{refused}");
}
