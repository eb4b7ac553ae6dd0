//! What a node does with its containers and images when something beside it fails.

use e2e::{Lab, until};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn a_node_says_only_what_it_knows() {
    let lab = Lab::up(2, &["busybox", "nginx"]);
    many_processes_at_once_are_quick(&lab);
    a_published_port_is_not_given_away(&lab);
    a_published_port_that_a_node_does_not_have_is_told_by_the_node(&lab);
    an_unhealthy_task_gets_its_signal(&lab);
    a_dead_mount_freezes_nothing(&lab);
    a_moved_tag_arrives(&lab);
    a_containerd_that_dies_comes_back(&lab);
    let left = lab.down();
    assert!(left.is_empty(), "{left:#?}");
}

#[expect(clippy::disallowed_methods, reason = "the test measures time")]
fn many_processes_at_once_are_quick(lab: &Lab) {
    lab.docker(&["run", "--detach", "--name", "host", "busybox:latest", "sleep", "1000000"]).good();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| lab.docker(&["exec", "host", "true"]).good());
        }
    });
    // About 2 s here; a stalled shim needs half a minute.
    assert!(start.elapsed() < secs(15), "{:?}", start.elapsed());
    lab.docker(&["rm", "--force", "host"]).good();
}

fn a_published_port_is_not_given_away(lab: &Lab) {
    let create = ["service", "create", "--detach", "--name", "web", "--publish", "8090:80"];
    lab.docker(&[&create[..], &["nginx:latest"]].concat()).good();
    lab.converged("web", "1/1", secs(90));
    let run = ["run", "--rm", "--publish", "8090:80", "busybox:latest", "true"];
    let refused = lab.docker(&run).bad();
    assert!(refused.contains("0.0.0.0:8090 failed: port is already allocated"), "{refused}");
    lab.docker(&["service", "rm", "web"]).good();
}

fn a_published_port_that_a_node_does_not_have_is_told_by_the_node(lab: &Lab) {
    let listen = ["busybox", "nc", "-l", "-p", "8091"];
    let mut holder = lab.in_node("node-2", &listen).spawn().expect("it starts");
    until("the port is held", secs(20), || {
        let shown = lab.in_node("node-2", &["ss", "-Hltn", "sport = :8091"]).output();
        let shown = String::from_utf8_lossy(&shown.expect("it starts").stdout).into_owned();
        if shown.contains(":8091") { Ok(()) } else { Err(shown) }
    });
    let create = ["service", "create", "--detach", "--name", "web", "--publish", "8091:80"];
    lab.docker(&[&create[..], &["nginx:latest"]].concat()).good();
    let says = |node: &str, wanted: &dyn Fn(&str) -> bool| {
        let inspect = ["node", "inspect", node, "--format", "{{.Status.Message}}"];
        until(node, secs(60), || {
            let shown = lab.docker(&inspect).good();
            if wanted(&shown) { Ok(()) } else { Err(shown) }
        });
    };
    says("node-2", &|it| it.contains("port 8091/tcp is in use on this node by busybox"));
    says("node-1", &|it| !it.contains("8091"));
    holder.kill().expect("it runs");
    holder.wait().expect("it is ours");
    says("node-2", &|it| !it.contains("8091"));
    lab.docker(&["service", "rm", "web"]).good();
}

fn an_unhealthy_task_gets_its_signal(lab: &Lab) {
    let script = "trap 'echo asked to stop; exit 0' TERM; touch /ok; while :; do sleep 0.2; done";
    lab.docker(&[
        "service",
        "create",
        "--detach",
        "--name",
        "sick",
        "--health-cmd",
        "test -e /ok",
        "--health-interval",
        "300ms",
        "--health-retries",
        "2",
        "--health-start-period",
        "0s",
        "--restart-condition",
        "none",
        "busybox:latest",
        "sh",
        "-c",
        script,
    ])
    .good();
    lab.converged("sick", "1/1", secs(90));
    let container = lab.containers(2, "sick").remove(0);
    lab.inside(&container, "rm /ok").good();
    until("the task has failed", secs(40), || {
        let shown = lab.docker(&["service", "ps", "--no-trunc", "sick"]).out;
        if shown.contains("unhealthy container") { Ok(()) } else { Err(shown) }
    });
    let logs = lab.docker_at(container.0, &["logs", &container.1]).good();
    assert_eq!(logs.trim(), "asked to stop");
    lab.docker(&["service", "rm", "sick"]).good();
}

/// A file system whose server never answers, as an NFS mount is without its server.
fn a_dead_mount_freezes_nothing(lab: &Lab) {
    let at = std::env::temp_dir().join(format!("skep-e2e-dead-{}", std::process::id()));
    std::fs::create_dir(&at).expect("a folder is made");
    let fuse = std::fs::File::options().read(true).write(true).open("/dev/fuse");
    let fuse = fuse.expect("the kernel has FUSE");
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", fuse.as_raw_fd());
    let (kind, none) = (Some("fuse"), nix::mount::MsFlags::empty());
    nix::mount::mount(Some("dead"), &at, kind, none, Some(options.as_str())).expect("it mounts");
    let mount = format!("type=bind,source={},target=/data", at.join("data").display());
    for number in 0..4 {
        let name = format!("dead-{number}");
        let create = ["service", "create", "--detach", "--name", &name, "--mode", "global"];
        let rest = ["--mount", &mount, "--restart-condition", "none", "busybox:latest", "true"];
        lab.docker(&[&create[..], &rest].concat()).good();
    }
    until("the tasks say so", secs(60), || {
        let shown = lab.docker(&["service", "ps", "--no-trunc", "dead-0"]).out;
        if shown.contains("does not answer within") { Ok(()) } else { Err(shown) }
    });
    lab.docker(&["run", "--rm", "busybox:latest", "true"]).good();
    let nodes = lab.docker(&["node", "ls", "--format", "{{.Status}}"]).good();
    assert_eq!(nodes.lines().collect::<Vec<_>>(), ["Ready", "Ready"]);
    for number in 0..4 {
        lab.docker(&["service", "rm", &format!("dead-{number}")]).good();
    }
    // Whoever waits gets an error.
    drop(fuse);
    nix::mount::umount2(&at, nix::mount::MntFlags::MNT_DETACH).expect("it unmounts");
    std::fs::remove_dir(&at).expect("the folder goes");
}

/// A registry on the loopback of both nodes, with one store.
struct Registry(Vec<std::process::Child>);

const REGISTRY: &str = "127.0.0.1:5005";

impl Registry {
    fn start(lab: &Lab, folder: &Path) -> Self {
        std::fs::create_dir_all(folder).expect("a folder is made");
        let config = folder.join("config.yml");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}/data\n\
             http:\n  addr: {REGISTRY}\n",
            folder.display()
        );
        std::fs::write(&config, text).expect("a file is written");
        let start = |node: &str| {
            let file = config.display().to_string();
            let mut command = lab.in_node(node, &["docker-registry", "serve", &file]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
        };
        Self(vec![start("node-1"), start("node-2")])
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        for process in &mut self.0 {
            let _ended = process.kill();
            let _reaped = process.wait();
        }
    }
}

/// `docker push` of an image with busybox and a word in its environment; returns the digest.
fn push(lab: &Lab, folder: &Path, name: &str, word: &str) -> String {
    let script = format!(
        r#"set -e; cd {folder}
        mkdir -p root/bin; cp /bin/busybox root/bin/busybox
        for name in sh sleep env; do ln -sf busybox root/bin/$name; done
        [ -e layer.tar ] || tar -cf layer.tar -C root .
        layer=$(sha256sum layer.tar | cut -d' ' -f1)
        arch=$(uname -m); case $arch in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; esac
        printf '{{"architecture":"%s","os":"linux","config":{{"Env":["PATH=/bin","WORD={word}"]}},"rootfs":{{"type":"layers","diff_ids":["sha256:%s"]}}}}' $arch $layer >config.json
        config=$(sha256sum config.json | cut -d' ' -f1)
        put() {{
            to=$(curl -sfi -X POST http://{REGISTRY}/v2/{name}/blobs/uploads/ | tr -d '\r' | sed -n 's/^Location: //Ip')
            curl -sf -X PUT -H 'Content-Type: application/octet-stream' --data-binary @$1 "$to&digest=sha256:$2"
        }}
        put layer.tar $layer; put config.json $config
        printf '{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:%s","size":%s}}]}}' $config $(stat -c %s config.json) $layer $(stat -c %s layer.tar) >manifest.json
        curl -sf -X PUT -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' --data-binary @manifest.json http://{REGISTRY}/v2/{name}/manifests/1
        printf 'sha256:'; sha256sum manifest.json | cut -d' ' -f1"#,
        folder = folder.display()
    );
    let mut command: Command = lab.in_node("node-1", &["bash", "-c", &script]);
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    said.lines().last().unwrap_or_default().to_owned()
}

fn image_of(lab: &Lab, service: &str) -> String {
    let format = "{{.Spec.TaskTemplate.ContainerSpec.Image}}";
    lab.docker(&["service", "inspect", "--format", format, service]).good().trim().to_owned()
}

/// Waits until every task of a service of two has this word.
fn has_word(lab: &Lab, service: &str, word: &str) {
    until(&format!("{service} has {word}"), secs(60), || {
        let containers = lab.containers(2, service);
        let words: Vec<String> = containers
            .iter()
            .map(|container| lab.inside(container, "echo $WORD").out.trim().to_owned())
            .collect();
        if words == [word, word] { Ok(()) } else { Err(format!("{words:?}")) }
    });
}

fn a_moved_tag_arrives(lab: &Lab) {
    let folder = std::env::temp_dir().join(format!("skep-e2e-registry-{}", std::process::id()));
    let registry = Registry::start(lab, &folder);
    for node in ["node-1", "node-2"] {
        until("the registry", secs(20), || {
            let url = format!("http://{REGISTRY}/v2/");
            let asked = lab.in_node(node, &["curl", "-sf", &url]).output();
            if asked.is_ok_and(|asked| asked.status.success()) { Ok(()) } else { Err(url) }
        });
    }
    let first = push(lab, &folder, "app", "one");
    let image = format!("{REGISTRY}/app:1");
    let none = lab.ask(1, "POST", &format!("/images/create?fromImage={REGISTRY}/app&tag=none"));
    assert!(none.status == 404 && none.body.contains("manifest for"), "{none:?}");
    let there = lab.ask(1, "POST", &format!("/images/create?fromImage={REGISTRY}/app&tag=1"));
    assert!(there.status == 200 && there.body.contains("Status: "), "{there:?}");
    let create = |name: &str, more: &[&str]| {
        let front = ["service", "create", "--detach", "--name", name, "--replicas", "2"];
        let back = ["--stop-grace-period", "1s", &image, "sleep", "1000000"];
        lab.docker(&[&front[..], more, &back].concat())
    };
    let said = create("pinned", &[]);
    assert!(said.ok && !said.err.contains("could not be accessed"), "{said:?}");
    assert_eq!(image_of(lab, "pinned"), format!("{image}@{first}"));
    create("loose", &["--no-resolve-image"]).good();
    assert_eq!(image_of(lab, "loose"), image);
    has_word(lab, "pinned", "one");
    has_word(lab, "loose", "one");

    let second = push(lab, &folder, "app", "two");
    assert_ne!(first, second);
    lab.docker(&["service", "update", "--detach", "--force", "pinned"]).good();
    lab.docker(&["service", "update", "--detach", "--force", "loose"]).good();
    has_word(lab, "loose", "two");
    has_word(lab, "pinned", "one");
    lab.docker(&["service", "update", "--detach", "--image", &image, "pinned"]).good();
    assert_eq!(image_of(lab, "pinned"), format!("{image}@{second}"));
    has_word(lab, "pinned", "two");

    stacks_ask_when_they_are_told_to(lab, &folder, &image, (&second, "three"));
    let only_here = ["service", "create", "--detach", "--name", "here", "busybox:latest"];
    let said = lab.docker(&[&only_here[..], &["sleep", "1000000"]].concat());
    assert!(said.ok && said.err.contains("could not be accessed on a registry"), "{said:?}");
    lab.converged("here", "1/1", secs(90));
    for service in ["pinned", "loose", "here"] {
        lab.docker(&["service", "rm", service]).good();
    }
    drop(registry);
    std::fs::remove_dir_all(&folder).expect("the folder goes");
}

fn stacks_ask_when_they_are_told_to(
    lab: &Lab,
    folder: &Path,
    image: &str,
    (before, word): (&str, &str),
) {
    let file = folder.join("stack.yml");
    let text = format!(
        "services:\n  app:\n    image: {image}\n    command: sleep 1000000\n    \
         stop_grace_period: 1s\n    deploy:\n      replicas: 2\n"
    );
    let mut written = std::fs::File::create(&file).expect("a file is made");
    written.write_all(text.as_bytes()).expect("it is written");
    let file = file.display().to_string();
    let deploy = |resolve: &str| {
        let said = lab.skep(&["stack", "deploy", "-c", &file, "--resolve-image", resolve, "st"]);
        said.good();
        image_of(lab, "st_app")
    };
    assert_eq!(deploy("changed"), format!("{image}@{before}"));
    let moved = push(lab, folder, "app", word);
    for resolve in ["never", "changed"] {
        assert_eq!(deploy(resolve), format!("{image}@{before}"), "{resolve}");
    }
    assert_eq!(deploy("always"), format!("{image}@{moved}"));
    has_word(lab, "st_app", word);
    lab.skep(&["stack", "rm", "st"]).good();
}

fn a_containerd_that_dies_comes_back(lab: &Lab) {
    let create = ["service", "create", "--detach", "--name", "steady", "--replicas", "2"];
    lab.docker(&[&create[..], &["busybox:latest", "sleep", "1000000"]].concat()).good();
    lab.converged("steady", "2/2", secs(90));
    let before = lab.containers(2, "steady");
    lab.kill_containerd();
    until("containerd is back", secs(30), || {
        let said = lab.docker(&["run", "--rm", "busybox:latest", "echo", "back"]);
        if said.out.trim() == "back" { Ok(()) } else { Err(said.err) }
    });
    assert_eq!(lab.containers(2, "steady"), before, "nobody noticed");
    assert_eq!(lab.inside(&before[0], "echo hi").good().trim(), "hi");
    lab.docker(&["service", "rm", "steady"]).good();
}
