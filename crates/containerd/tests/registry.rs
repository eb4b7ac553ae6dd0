//! Pulling from a registry of our own on loopback: `docker-registry`, Debian's package of
//! that name.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "all of it is test code")]

mod trial;

use containerd::{Containerd, Mirror};
use engine::{Credentials, Progress, Runtime};
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use trial::{Bench, program_exists};
use types::{Fault, FaultKind};

/// `htpasswd -Bbn alice secret`
const PASSWORDS: &str = "alice:$2y$05$wHkFX3UEA./ICy/b5tHBmOPrj14alOzxaN1Ru.zzVn.cUatgd2Hui\n";
const PROGRESS_MAX: usize = 1000;

struct Registry {
    address: String,
    process: std::process::Child,
}

impl Registry {
    async fn start(directory: &Path, passwords: bool) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let address = free.to_string();
        let name = if passwords { "closed" } else { "open" };
        let folder = directory.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("passwords"), PASSWORDS).unwrap();
        let auth = format!(
            "auth:\n  htpasswd:\n    realm: skep\n    path: {}/passwords\n",
            folder.display()
        );
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}/data\n\
             http:\n  addr: {address}\n{}",
            folder.display(),
            if passwords { auth.as_str() } else { "" },
        );
        std::fs::write(folder.join("config.yml"), config).unwrap();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        #[expect(clippy::disallowed_methods, reason = "the test starts a registry")]
        let process = std::process::Command::new("docker-registry")
            .args(["serve"])
            .arg(folder.join("config.yml"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let registry = Self { address, process };
        trial::until("the registry", || async {
            tokio::net::TcpStream::connect(&registry.address).await.is_ok()
        })
        .await;
        registry
    }

    /// `docker push` of the bench's image; with `list` under a list for two machines.
    async fn push(&self, name: &str, list: bool) {
        let (config, layer) = trial::image();
        let packed = trial::packed(&layer);
        self.push_layer(name, &config, &packed, (packed.len(), list)).await;
    }

    /// Pushes an image of one layer, which the manifest says to have `size` bytes.
    async fn push_layer(
        &self,
        name: &str,
        config: &[u8],
        packed: &[u8],
        (size, list): (usize, bool),
    ) {
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let client =
            Client::new(ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() });
        let auth = RegistryAuth::Basic("alice".to_owned(), "secret".to_owned());
        let reference: Reference = format!("{}/{name}", self.address).parse().unwrap();
        client.auth(&reference, &auth, RegistryOperation::Push).await.unwrap();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": { "mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": trial::sha256(config), "size": config.len() },
            "layers": [{ "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                "digest": trial::sha256(packed), "size": size }],
        })
        .to_string()
        .into_bytes();
        for blob in [config, packed] {
            let digest = trial::sha256(blob);
            client.push_blob(&reference, bytes::Bytes::from(blob.to_vec()), &digest).await.unwrap();
        }
        let kind = "application/vnd.docker.distribution.manifest.v2+json".parse().unwrap();
        let digest = trial::sha256(&manifest);
        let size = manifest.len();
        let one = reference.clone_with_digest(digest.clone());
        let target = if list { &one } else { &reference };
        client.push_manifest_raw(target, manifest, kind).await.unwrap();
        if !list {
            return;
        }
        let entry = |architecture: &str| {
            json!({ "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                "digest": digest, "size": size,
                "platform": { "os": "linux", "architecture": architecture } })
        };
        let list = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
            "manifests": [entry("sparc"), entry("amd64"), entry("arm64")],
        });
        let kind = "application/vnd.docker.distribution.manifest.list.v2+json".parse().unwrap();
        client.push_manifest_raw(&reference, list.to_string().into_bytes(), kind).await.unwrap();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// A containerd and a registry. `None`: tests cannot run here.
async fn beside_a_registry(passwords: bool) -> Option<(Bench, Registry)> {
    let bench = Bench::started().await?;
    let there = program_exists("docker-registry");
    assert!(there, "docker-registry is missing: scripts/install.sh installs it");
    let registry = Registry::start(bench.directory.path(), passwords).await;
    Some((bench, registry))
}

fn alice(password: &str) -> Credentials {
    Credentials {
        username: "alice".to_owned(),
        password: password.to_owned(),
        identity_token: String::new(),
    }
}

async fn pull(runtime: &Containerd, name: &str) -> Result<engine::Image, Fault> {
    pull_as(runtime, name, None).await
}

async fn pull_as(
    runtime: &Containerd,
    name: &str,
    who: Option<Credentials>,
) -> Result<engine::Image, Fault> {
    let (progress, _read) = mpsc::channel(PROGRESS_MAX);
    runtime.pull(name.to_owned(), who, progress).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_with_a_password_and_runs() {
    let Some((bench, registry)) = beside_a_registry(true).await else { return };
    registry.push("team/app:1", false).await;
    let runtime = bench.connect("one").await;
    let name = format!("{}/team/app:1", registry.address);

    let refused = pull(&runtime, &name).await.unwrap_err();
    let expected = format!(
        "pull access denied for {}/team/app, repository does not exist or may require \
         'docker login'",
        registry.address
    );
    assert_eq!((refused.kind, refused.message), (FaultKind::NotFound, expected));
    let wrong = pull_as(&runtime, &name, Some(alice("guess"))).await.unwrap_err();
    assert!(wrong.message.starts_with("pull access denied"), "{wrong}");

    let (progress, mut read) = mpsc::channel(PROGRESS_MAX);
    let image = runtime.pull(name.clone(), Some(alice("secret")), progress).await.unwrap();
    assert!(image.names.contains(&name), "{:?}", image.names);
    assert!(image.names.iter().any(|name| name.contains("/team/app@sha256:")), "{:?}", image.names);
    let mut said = Vec::new();
    while let Some(Progress { id, status, .. }) = read.recv().await {
        assert_eq!(id.len(), 12);
        said.push(status);
    }
    said.dedup();
    let expected = ["Pulling fs layer", "Downloading", "Download complete", "Pull complete"];
    assert_eq!(said.iter().filter(|said| expected.contains(&said.as_str())).count(), said.len());
    for status in ["Pulling fs layer", "Download complete", "Pull complete"] {
        assert!(said.iter().any(|said| said == status), "{status} is missing in {said:?}");
    }

    let mut happenings = trial::happenings(&runtime).await;
    let id = "pulled".to_owned();
    let mut pipes = bench.pipes("pulled");
    runtime.prepare(id.clone(), name.clone()).await.unwrap();
    let spec = trial::spec(&id, "echo from the registry");
    runtime.start(id.clone(), spec, pipes.stdio.clone()).await.unwrap();
    assert_eq!(trial::ended(&mut happenings, &id).await, 0);
    runtime.reap(id.clone()).await.unwrap();
    assert_eq!(pipes.read().0, "from the registry\n");
    runtime.delete(id).await.unwrap();

    let none = format!("{}/team/app:none", registry.address);
    let fault = pull_as(&runtime, &none, Some(alice("secret"))).await.unwrap_err();
    let expected = format!("manifest for {none} not found: manifest unknown");
    assert_eq!((fault.kind, fault.message), (FaultKind::NotFound, expected));
    runtime.untag(name).await.unwrap();
    assert_eq!(runtime.images().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_gives_the_image_for_this_machine_and_a_digest_is_kept_to() {
    let Some((bench, registry)) = beside_a_registry(false).await else { return };
    registry.push("many:1", true).await;
    let runtime = bench.connect("one").await;
    let image = pull(&runtime, &format!("{}/many:1", registry.address)).await.unwrap();
    let digest = image.names.iter().find(|name| name.contains('@')).unwrap().clone();

    // Pulled by the list's digest, it is the same image; without a tag, only the digest names it.
    let other = bench.connect("other").await;
    let pinned = pull(&other, &digest).await.unwrap();
    assert_eq!((pinned.id, pinned.names), (image.id, vec![digest.clone()]));
    let wrong = format!("{}/many@sha256:{}", registry.address, "0".repeat(64));
    let fault = pull(&other, &wrong).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::NotFound, "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_is_asked_for_images_of_docker_io() {
    let Some((bench, registry)) = beside_a_registry(false).await else { return };
    registry.push("library/web:1", false).await;
    // The first mirror is down; that is no reason to give up.
    let mirrors = vec![
        Mirror::parse("http://127.0.0.1:1").unwrap(),
        Mirror::parse(&format!("http://{}", registry.address)).unwrap(),
    ];
    let runtime = bench.connect_with("one", mirrors).await;
    let image = pull(&runtime, "docker.io/library/web:1").await.unwrap();
    assert!(image.names.contains(&"docker.io/library/web:1".to_owned()), "{:?}", image.names);
}

/// Passes connections on, and cuts the first one off after so many bytes of answers. Returns its
/// address and a count of all bytes that it passed back.
async fn cutting_proxy(target: String, cut_after: u64) -> (String, Arc<AtomicU64>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let passed = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&passed);
    #[expect(clippy::disallowed_methods, reason = "a proxy runs beside the test")]
    tokio::spawn(async move {
        let mut left = cut_after;
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = tokio::net::TcpStream::connect(&target).await.unwrap();
            let limit = std::mem::replace(&mut left, u64::MAX);
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let (mut from_client, mut to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                let mut from_server = from_server.take(limit);
                let mut buffer = vec![0; 16 << 10];
                let asking = tokio::io::copy(&mut from_client, &mut to_server);
                let answering = async {
                    while let Ok(bytes @ 1..) = from_server.read(&mut buffer).await {
                        count.fetch_add(bytes as u64, Ordering::Relaxed);
                        if to_client.write_all(&buffer[..bytes]).await.is_err() {
                            break;
                        }
                    }
                };
                tokio::select! { _ = asking => {}, () = answering => {} }
            });
        }
    });
    (address, passed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_was_cut_off_goes_on_where_it_ended() {
    let Some((bench, registry)) = beside_a_registry(false).await else { return };
    registry.push("app:1", false).await;
    let (_, layer) = trial::image();
    let size = trial::packed(&layer).len() as u64;
    let (address, passed) = cutting_proxy(registry.address.clone(), size / 2).await;
    let runtime = bench.connect("one").await;
    let image = pull(&runtime, &format!("{address}/app:1")).await.unwrap();
    assert!(image.names[0].starts_with(&address), "{:?}", image.names);
    let passed = passed.load(Ordering::Relaxed);
    assert!(size < passed && passed < size + size / 4, "{passed} bytes for a layer of {size}");
}

/// Bytes that do not get smaller when they are packed; which ones does not matter.
fn noise(count: usize) -> Vec<u8> {
    let next = |x: &u64| Some(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    let numbers = std::iter::successors(Some(7_u64), next);
    numbers.map(|number| number.to_be_bytes()[0]).take(count).collect()
}

/// The containerd's own file system; it goes with the bench.
struct Disk(std::path::PathBuf);

impl Disk {
    fn of(bench: &Bench, mebibytes: u64) -> Self {
        let root = bench.directories.root.clone();
        std::fs::create_dir_all(&root).unwrap();
        let size = format!("size={mebibytes}m");
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("disk"), &root, Some("tmpfs"), flags, Some(&*size)).unwrap();
        Self(root)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _unmounted = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_the_disk_does_not_hold_is_refused_before_it_is_fetched() {
    let Some(bench) = Bench::new() else { return };
    let _disk = Disk::of(&bench, 16);
    bench.start().await;
    let registry = Registry::start(bench.directory.path(), false).await;
    let (config, _) = trial::image();
    let layer = noise(24 << 20);
    registry.push_layer("large:1", &config, &layer, (layer.len(), false)).await;
    let (address, passed) = cutting_proxy(registry.address.clone(), u64::MAX).await;
    let runtime = bench.connect("one").await;
    let fault = pull(&runtime, &format!("{address}/large:1")).await.unwrap_err();
    assert!(fault.message.contains("too little space left"), "{fault}");
    let passed = passed.load(Ordering::Relaxed);
    assert!(passed < 1 << 20, "{passed} bytes were fetched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_larger_than_its_manifest_says_is_not_taken() {
    let Some((bench, registry)) = beside_a_registry(false).await else { return };
    let (config, _) = trial::image();
    let layer = noise(24 << 20);
    registry.push_layer("liar:1", &config, &layer, (1 << 20, false)).await;
    let (address, passed) = cutting_proxy(registry.address.clone(), u64::MAX).await;
    let runtime = bench.connect("one").await;
    let fault = pull(&runtime, &format!("{address}/liar:1")).await.unwrap_err();
    assert!(fault.message.contains("larger than the 1048576 bytes"), "{fault}");
    let passed = passed.load(Ordering::Relaxed);
    assert!(passed < 16 << 20, "{passed} bytes were fetched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_not_there_is_named() {
    let Some(bench) = Bench::started().await else { return };
    let runtime = bench.connect("one").await;
    let fault = pull(&runtime, "127.0.0.1:1/app:1").await.unwrap_err();
    assert!(fault.message.contains("http://127.0.0.1:1"), "{fault}");
    assert!(fault.message.to_lowercase().contains("connection refused"), "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_resolved_to_what_it_stands_for_now_and_nothing_is_fetched() {
    let Some((bench, registry)) = beside_a_registry(true).await else { return };
    registry.push("team/app:1", false).await;
    registry.push("team/many:1", true).await;
    let runtime = bench.connect("one").await;
    let name = |rest: &str| format!("{}/{rest}", registry.address);
    let resolve = |rest: &str| runtime.resolve(name(rest), Some(alice("secret")));

    let one = resolve("team/app:1").await.unwrap();
    assert_eq!(one.media_type, "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!((one.platforms.len(), one.platforms[0].os.as_str()), (1, "linux"));
    let many = resolve("team/many:1").await.unwrap();
    let machines: Vec<&str> = many.platforms.iter().map(|it| it.architecture.as_str()).collect();
    assert_eq!(machines, ["sparc", "amd64", "arm64"]);
    assert_ne!(one.digest, many.digest);
    assert!(runtime.images().await.unwrap().is_empty(), "nothing is fetched");

    let pinned = name(&format!("team/many@{}", many.digest));
    let image = pull_as(&runtime, &pinned, Some(alice("secret"))).await.unwrap();
    assert!(image.names.contains(&pinned), "{:?}", image.names);
    let missing = resolve("team/app:none").await.unwrap_err();
    assert_eq!(missing.kind, FaultKind::NotFound);
    let denied = runtime.resolve(name("team/app:1"), None).await.unwrap_err();
    assert!(denied.message.starts_with("pull access denied"), "{denied}");
}
