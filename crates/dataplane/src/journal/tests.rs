use super::*;
use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;

fn sandbox(port: u16) -> Sandbox {
    Sandbox {
        task: Some("t1".into()),
        netns: "/run/netns/c1".to_owned(),
        gateway_addresses: [172, 30, 0, 2].into(),
        attachments: Vec::new(),
        dns_port: port,
        host_ports: vec![(Protocol::Udp, 53, 53)],
        nameservers: vec![[192, 0, 2, 53].into()],
    }
}

fn endpoint(last: u8) -> Endpoint {
    Endpoint {
        addresses: [10, 0, 1, last].into(),
        node: "n1".into(),
        vtep: [192, 168, 0, 1].into(),
        service: "s1".into(),
        name: "web.1".into(),
        aliases: std::collections::BTreeSet::new(),
        serving: true,
    }
}

fn network() -> impl Strategy<Value = NetworkView> {
    let endpoints = btree_map(0..4_u8, 0..4_u8, 0..4);
    (0..2_u8, endpoints, btree_set(0..3_u8, 0..3)).prop_map(|(seed, endpoints, services)| {
        NetworkView {
            vni: seed.into(),
            endpoints: endpoints
                .into_iter()
                .map(|(id, it)| (TaskId::from(format!("t{id}")), endpoint(it)))
                .collect(),
            services: services
                .into_iter()
                .map(|id| (ServiceId::from(format!("s{id}")), ServiceView::default()))
                .collect(),
            ..NetworkView::default()
        }
    })
}

fn kept() -> impl Strategy<Value = Kept> {
    let ports = btree_map(0..3_u16, (0..2_u16, btree_set(0..4_u8, 0..4)), 0..3);
    let networks = btree_map(0..3_u8, network(), 0..3);
    let here = (any::<bool>(), btree_map(0..3_u8, 0..3_u16, 0..3), btree_set(0..3_u8, 0..3));
    (here, networks, 0..3_u8, ports).prop_map(|(here, networks, seed, ports)| {
        let (is_member, sandboxes, hidden) = here;
        let networks = networks.into_iter().map(|(id, it)| (format!("net{id}").into(), it));
        let mut known = Knowledge { networks: networks.collect(), ..Knowledge::default() };
        known.mesh.mtu = seed.into();
        for number in 0..seed {
            let (address, ingress) = ([192, 168, 0, seed].into(), [10, 255, 0, number].into());
            known.mesh.nodes.insert(format!("n{number}").into(), MeshNode { address, ingress });
            let task = MeshTask { node: "n1".into(), ingress, serving: true };
            known.mesh.tasks.insert(format!("t{number}").into(), task);
        }
        for (port, (target, tasks)) in ports {
            let tasks = tasks.into_iter().map(|id| TaskId::from(format!("t{id}"))).collect();
            let port = (Protocol::Tcp, port);
            known.mesh.ports.insert(port, MeshPort { service: "s1".into(), target, tasks });
        }
        let address = [192, 168, 0, 1].into();
        let identity = Identity { node: "n1".into(), address, data_path_port: 4789 };
        Kept {
            identity: is_member.then_some(identity),
            sandboxes: sandboxes
                .into_iter()
                .map(|(id, port)| (format!("c{id}"), sandbox(port)))
                .collect(),
            hidden: hidden.into_iter().map(|id| TaskId::from(format!("t{id}"))).collect(),
            known,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn whatever_was_kept_last_is_loaded_again(all in proptest::collection::vec(kept(), 1..5)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let mut journal = Journal::open(dir.path()).await.unwrap();
            prop_assert_eq!(journal.load(), Kept::default());
            for kept in all {
                journal.keep(kept.clone()).await.unwrap();
                prop_assert_eq!(&journal.load(), &kept);
                drop(journal);
                journal = Journal::open(dir.path()).await.unwrap();
                prop_assert_eq!(journal.load(), kept);
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_damaged_journal_is_told_with_its_path() {
    for name in [FILE, "node.msgpack", "sandboxes/c1.msgpack"] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sandboxes")).unwrap();
        std::fs::write(dir.path().join(name), b"\xc1").unwrap();
        let error = Journal::open(dir.path()).await.unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("move it away"), "{error}");
    }
}

/// Bytes that the former release wrote.
const FORMER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stored/0.1.0-format1");

fn former<T: serde::de::DeserializeOwned>(name: &str) -> T {
    msgpack::decode(&std::fs::read(Path::new(FORMER).join(name)).unwrap()).unwrap()
}

/// A folder as the former release has left it.
fn left_by_former() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["sandboxes", "networks"] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
    }
    let files = ["node", "mesh", "networks-net1", "networks-net9", "sandboxes-c1"];
    for file in files.map(|name| format!("{name}.msgpack")) {
        let to = dir.path().join(file.replacen('-', "/", 1));
        std::fs::copy(Path::new(FORMER).join(file), to).unwrap();
    }
    dir
}

fn files(dir: &Path) -> Vec<std::ffi::OsString> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

#[tokio::test]
async fn what_the_former_release_wrote_is_taken_over_once() {
    let dir = left_by_former();
    for _ in 0..2 {
        let journal = Journal::open(dir.path()).await.unwrap();
        let Kept { identity, sandboxes, hidden, known } = journal.load();
        assert!(identity.is_some() && !hidden.is_empty());
        assert_eq!(sandboxes, OrdMap::unit("c1".to_owned(), former("sandboxes-c1.msgpack")));
        assert_eq!(known.mesh, former("mesh.msgpack"));
        assert_eq!(known.networks[&"net1".into()], former("networks-net1.msgpack"));
        assert_eq!(known.networks[&"net9".into()], former("networks-net9.msgpack"));
        assert_eq!(known.networks.len(), 2);
        assert_eq!(files(dir.path()), [FILE]);
    }
}

/// Between any two files that are removed, and when something new has been kept before.
#[tokio::test]
async fn what_is_taken_over_stays_so_wherever_the_daemon_dies_on_the_way() {
    for removed in 0..=former::paths(Path::new("")).len() {
        let dir = left_by_former();
        let mut journal = Journal::taken_over(dir.path()).await.unwrap();
        let mut kept = journal.load();
        for path in former::paths(dir.path()).iter().take(removed) {
            std::fs::remove_file(path).or_else(|_| std::fs::remove_dir_all(path)).ok();
        }
        drop(journal);
        journal = Journal::taken_over(dir.path()).await.unwrap();
        assert_eq!(journal.load(), kept, "without {removed} of the former files");
        kept.hidden.clear();
        journal.keep(kept.clone()).await.unwrap();
        drop(journal);
        for _ in 0..2 {
            let journal = Journal::open(dir.path()).await.unwrap();
            assert_eq!(journal.load(), kept, "without {removed} of the former files");
            assert_eq!(files(dir.path()), [FILE]);
        }
    }
}
