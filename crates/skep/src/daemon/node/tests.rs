//! Membership on stand-ins for kernel and runtime.

use super::*;
use engine::fake::Fake;
use engine::{ContainerConfig, NetworkMode};
use std::fs;
use std::sync::Arc;
use tempfile::TempDir;
use types::{Availability, ContainerSpec, NodeRole, TASK_LABEL};

const PATIENCE: Duration = Duration::from_secs(20);
const IMAGE: &str = "docker.io/library/web:latest";

/// What a daemon runs besides the membership.
struct Stage {
    data: TempDir,
    fake: Fake,
    standalone: Standalone,
    scope: Scope,
}

impl Stage {
    async fn new() -> Self {
        let (data, mut scope) = (tempfile::tempdir().unwrap(), Scope::new());
        let namespaces = dataplane::fake::Namespaces::default();
        let resolv_conf = data.path().join("resolv.conf");
        let names = dataplane::Names::here(namespaces.clone(), &resolv_conf, &mut scope).await;
        let config = dataplane::Config {
            dir: data.path().join("dataplane"),
            netns_dir: data.path().join("netns"),
            gateway_subnet: "172.30.0.0/16".parse().unwrap(),
        };
        let kernel = dataplane::fake::Kernel::default();
        let dataplane =
            dataplane::start(config, kernel, namespaces, names, &mut scope).await.unwrap();
        let config = engine::Config {
            data: data.path().join("engine"),
            run: data.path().join("containers"),
            cgroup_parent: "/skep".to_owned(),
            network: None,
            cdi: Vec::new(),
            resolv_conf,
            mount_helper: None,
            plugin_folders: Vec::new(),
            init: None,
            apparmor: None,
            log: engine::LogConfig::default(),
            journal: std::path::PathBuf::from("/nowhere"),
        };
        let fake = Fake::with_image(IMAGE, serde_json::json!({ "Cmd": ["serve"] }));
        let runtime = Arc::new(fake.clone());
        let engine = engine::start(config, runtime, dataplane.clone(), &mut scope).await.unwrap();
        Self { data, fake, standalone: Standalone { dataplane, engine }, scope }
    }

    async fn start(&mut self) -> Result<HostNode> {
        let mut scope = std::mem::take(&mut self.scope);
        let started = self.start_in(&mut scope).await;
        self.scope = scope;
        started
    }

    async fn start_in(&self, scope: &mut Scope) -> Result<HostNode> {
        let about = About {
            id: String::new(),
            hostname: "node-1".to_owned(),
            labels: types::Labels::new(),
            generic: types::GenericResources::new(),
            version: "1".to_owned(),
            data_dir: self.data.path().to_owned(),
            kernel: String::new(),
            operating_system: String::new(),
            operating_system_version: String::new(),
            architecture: "x86_64".to_owned(),
            cpus: 1,
            memory_bytes: 1,
            cgroup_version: "2",
            gateway_subnet: String::new(),
        };
        start(self.data.path(), about, self.standalone.clone(), scope).await
    }

    /// A container of a task, whose membership is over.
    async fn leave_a_container(&self) {
        self.make(NetworkMode::Attached).await;
    }

    async fn make(&self, network: NetworkMode) {
        let labels = [(TASK_LABEL.to_owned(), "t1".to_owned())].into();
        let spec = ContainerSpec { image: "web".to_owned(), labels, ..ContainerSpec::default() };
        let config = ContainerConfig { spec, network, ..ContainerConfig::default() };
        self.standalone.engine.create(config).await.unwrap();
    }

    /// Files of a membership that was left by halves.
    fn leave_files(&self) -> [std::path::PathBuf; 3] {
        let folders = ["certificates", "raft", "agent"].map(|name| self.data.path().join(name));
        for folder in &folders {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join("old"), "").unwrap();
        }
        folders
    }

    async fn eventually(&self, mut so: impl AsyncFnMut() -> bool) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !so().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.expect("it takes too long");
    }
}

#[tokio::test]
async fn a_node_in_no_cluster_starts_though_something_is_left_and_removes_it_when_it_can() {
    let mut stage = Stage::new().await;
    stage.leave_a_container().await;
    let folders = stage.leave_files();
    stage.fake.set_away(true);
    stage.start().await.unwrap();
    assert_eq!(stage.standalone.engine.list(true).await.len(), 1);
    assert!(!folders.iter().any(|folder| folder.exists()));
    stage.fake.set_away(false);
    stage.eventually(async || stage.standalone.engine.list(true).await.is_empty()).await;
}

#[tokio::test]
async fn a_users_container_with_the_labels_of_a_tasks_stays() {
    let mut stage = Stage::new().await;
    stage.make(NetworkMode::Bridge).await;
    stage.leave_a_container().await;
    stage.start().await.unwrap();
    let left = stage.standalone.engine.list(true).await;
    let networks: Vec<_> = left.into_iter().map(|info| info.config.network).collect();
    assert_eq!(networks, [NetworkMode::Bridge]);
}

#[tokio::test]
async fn who_joins_brings_no_files_of_a_cluster_before() {
    let mut stage = Stage::new().await;
    let node = stage.start().await.unwrap();
    let folders = stage.leave_files();
    let join = Join {
        listen: "127.0.0.1:2377".to_owned(),
        advertise: "127.0.0.1".to_owned(),
        data_path: String::new(),
        remotes: vec!["127.0.0.1:2377".to_owned()],
        token: "no token".to_owned(),
        availability: Availability::Active,
    };
    node.join(join).await.unwrap_err();
    assert!(!folders.iter().any(|folder| folder.exists()));
}

/// A new cluster, whose manager listens where nobody else does.
fn init(listen: &str, autolock: bool) -> Init {
    Init {
        listen: listen.to_owned(),
        advertise: "127.0.0.1".to_owned(),
        data_path: String::new(),
        data_path_port: 4789,
        address_pools: Vec::new(),
        subnet_prefix: 24,
        force_new_cluster: false,
        root: None,
        spec: types::ClusterSpec { autolock, ..types::ClusterSpec::default() },
        availability: Availability::Active,
    }
}

/// An address on loopback that nobody listens on.
async fn free_address() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

fn unlock_key(node: &HostNode) -> String {
    let Membership::Active(member) = node.membership() else { panic!("it is a member") };
    let view = member.manager.expect("it is a manager").view();
    view.cluster().unwrap().unlock_key.0.clone()
}

async fn end(scope: Scope) {
    scope.cancel();
    scope.join().await.unwrap();
}

#[tokio::test]
async fn a_manager_that_is_locked_waits_for_its_key_and_leaves_by_force_alone() {
    let (stage, listen) = (Stage::new().await, free_address().await);
    let mut scope = Scope::new();
    let node = stage.start_in(&mut scope).await.unwrap();
    let id = node.init(init(&listen, true)).await.unwrap();
    let key = unlock_key(&node);
    assert_eq!(node.unlock(key.clone()).await.unwrap_err().kind, FaultKind::Conflict);
    end(scope).await;

    let mut scope = Scope::new();
    let node = stage.start_in(&mut scope).await.unwrap();
    assert!(matches!(node.membership(), Membership::Locked));
    assert_eq!(node.unlock("x".to_owned()).await.unwrap_err().message, "invalid key string");
    let wrong = UnlockKey::draw().render();
    assert_eq!(node.unlock(wrong).await.unwrap_err().kind, FaultKind::Unauthorized);
    assert!(node.leave(false).await.unwrap_err().message.contains("encrypted and locked"));
    assert!(matches!(node.membership(), Membership::Locked), "nothing has changed");
    node.unlock(key.clone()).await.unwrap();
    assert!(matches!(node.membership(), Membership::Active(member) if member.node == id));
    assert_eq!(unlock_key(&node), key);
    end(scope).await;

    let mut scope = Scope::new();
    let node = stage.start_in(&mut scope).await.unwrap();
    node.leave(true).await.unwrap();
    assert!(matches!(node.membership(), Membership::Inactive));
    node.init(init(&listen, false)).await.unwrap();
    end(scope).await;
    let mut scope = Scope::new();
    let node = stage.start_in(&mut scope).await.unwrap();
    assert!(matches!(node.membership(), Membership::Active(_)), "this cluster does not lock");
    end(scope).await;
}

#[tokio::test]
async fn a_manager_goes_on_alone_at_another_address_with_all_it_has() {
    let (stage, listen) = (Stage::new().await, free_address().await);
    let mut scope = Scope::new();
    let node = stage.start_in(&mut scope).await.unwrap();
    let id = node.init(init(&listen, true)).await.unwrap();
    let key = unlock_key(&node);
    let force = |advertise: &str| Init {
        force_new_cluster: true,
        advertise: advertise.to_owned(),
        ..init(&listen, false)
    };
    assert_eq!(node.init(force("127.0.0.2")).await.unwrap(), id);
    let moved = |node: &HostNode| {
        let Membership::Active(member) = node.membership() else { panic!("it is a member") };
        assert_eq!((member.node.clone(), member.address), (id.clone(), [127, 0, 0, 2].into()));
        let view = member.manager.expect("it is a manager").view();
        let own = view.node(&id).unwrap();
        assert!(own.manager.as_ref().unwrap().address.starts_with("127.0.0.2:"));
    };
    moved(&node);
    assert_eq!(unlock_key(&node), key, "settings stay");
    end(scope).await;

    let mut scope = Scope::new();
    let node = stage.start_in(&mut scope).await.unwrap();
    let refused = node.init(force("")).await.unwrap_err();
    assert!(refused.message.contains("needs to be unlocked"), "{refused}");
    node.unlock(key).await.unwrap();
    moved(&node);
    node.init(force("")).await.unwrap();
    moved(&node);
    end(scope).await;
}

#[tokio::test]
async fn a_cluster_is_restored_on_another_machine() {
    let (first, second) = (Stage::new().await, Stage::new().await);
    let listen = free_address().await;
    let mut scope = Scope::new();
    let node = first.start_in(&mut scope).await.unwrap();
    node.init(init(&listen, false)).await.unwrap();
    let manager = |node: &HostNode| {
        let Membership::Active(member) = node.membership() else { panic!("it is a member") };
        member.manager.expect("it is a manager")
    };
    let before = manager(&node).view();
    let file = manager::backup::write(&before).unwrap();
    end(scope).await;

    let mut scope = Scope::new();
    let node = second.start_in(&mut scope).await.unwrap();
    let restore = || Restore {
        listen: listen.clone(),
        advertise: "127.0.0.3".to_owned(),
        data_path: String::new(),
        view: manager::backup::read(&file, "").unwrap(),
    };
    let id = node.restore(restore()).await.unwrap();
    let refused = node.restore(restore()).await.unwrap_err();
    assert!(refused.message.contains("already part of a swarm"), "{refused}");
    end(scope).await;

    let mut scope = Scope::new();
    let node = second.start_in(&mut scope).await.unwrap();
    let view = manager(&node).view();
    let (old, new) = (before.cluster().unwrap(), view.cluster().unwrap());
    assert_eq!((&old.id, &old.tokens, &old.root_ca), (&new.id, &new.tokens, &new.root_ca));
    assert!(before.version() < view.version());
    let managers: Vec<_> = view.nodes().filter(|it| it.role == NodeRole::Manager).collect();
    assert_eq!(managers.iter().map(|it| &it.id).collect::<Vec<_>>(), [&id]);
    assert_eq!(view.nodes().len(), 2, "the one before is a worker that is gone");
    end(scope).await;
}
