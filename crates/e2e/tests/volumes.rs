//! Volumes with options, paths within volumes, and images that are mounted.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]
#![allow(clippy::disallowed_methods, reason = "tests run programs")]

use e2e::{Lab, until};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(1);
const TMPFS: &str = "type=volume,src=scratch,dst=/d,volume-driver=local,volume-opt=type=tmpfs,\
    volume-opt=device=tmpfs,\"volume-opt=o=size=4m,mode=0750\"";

/// Creates a volume with options; says what the CLI said.
fn create(lab: &Lab, name: &str, options: &[&str]) -> e2e::Shown {
    let options = options.iter().flat_map(|option| ["--opt", option]);
    let create: Vec<&str> = ["volume", "create"].into_iter().chain(options).chain([name]).collect();
    lab.docker(&create)
}

fn inspect(lab: &Lab, volume: &str) -> Value {
    let text = lab.docker(&["volume", "inspect", "--format", "{{json .}}", volume]).good();
    serde_json::from_str(&text).expect("json")
}

/// Where a volume's files are on the machine, and whether something is mounted there.
fn place(lab: &Lab, volume: &str) -> (PathBuf, bool) {
    let path = PathBuf::from(inspect(lab, volume)["Mountpoint"].as_str().expect("a path"));
    let is_mounted = host::is_mounted(&path).expect("a table of mounts");
    (path, is_mounted)
}

fn run(lab: &Lab, options: &[&str], script: &str) -> e2e::Shown {
    lab.docker(&[&["run", "--rm"], options, &["busybox:latest", "sh", "-c", script]].concat())
}

#[test]
fn volumes_have_options_and_paths_and_images_are_mounted() {
    let lab = Lab::up(1, &["busybox", "nginx"]);
    what_cannot_be_a_volume_is_refused(&lab);
    a_volume_is_mounted_while_it_is_used(&lab);
    other_file_systems_are_mounted(&lab);
    paths_within_volumes_are_mounted(&lab);
    images_are_mounted(&lab);
}

fn what_cannot_be_a_volume_is_refused(lab: &Lab) {
    for (options, said) in [
        (&["foo=bar"][..], "create bad: invalid option: \"foo\""),
        (&["type=nfs"], "create bad: missing required option: \"device\""),
        (&["device=:/x"], "create bad: missing required option: \"type\""),
        (&["size=10m"], "create bad: quota size requested but no quota support"),
        (&["size=lots"], "create bad: invalid size: 'lots'"),
    ] {
        let refused = create(lab, "bad", options).bad();
        assert!(refused.contains(said), "{refused}");
    }
    let refused = lab.docker(&["volume", "create", "--driver", "nothere", "bad"]).bad();
    assert!(refused.contains("plugin \"nothere\" not found"), "{refused}");
    lab.docker(&["volume", "inspect", "bad"]).bad();
    for (mount, said) in [
        (
            "type=volume,src=a,dst=/d,volume-subpath=../x",
            "must be a relative path within the volume",
        ),
        ("type=volume,src=a,dst=/d,volume-subpath=/x", "must be a relative path within the volume"),
        (
            "type=volume,dst=/d,volume-subpath=x",
            "must not set Subpath when using anonymous volumes",
        ),
        ("type=image,src=nothere:1,dst=/d", "No such image: nothere:1"),
        ("type=image,src=nginx:latest,dst=/d,image-subpath=../etc", "must be a relative path"),
        ("type=volume,src=bad,dst=/d,volume-opt=foo=bar", "create bad: invalid option: \"foo\""),
        ("type=volume,src=bad,dst=/d,volume-driver=nothere", "plugin \"nothere\" not found"),
    ] {
        let refused = run(lab, &["--pull", "never", "--mount", mount], "true").bad();
        assert!(refused.contains(said), "{mount}: {refused}");
    }
    for (mount, said) in [
        (r#"{"Type":"image","Target":"/d"}"#, "field Source must not be empty"),
        (r#"{"Type":"bind","Target":"/d"}"#, "field Source must not be empty"),
        (r#"{"Type":"tmpfs","Source":"a","Target":"/d"}"#, "field Source must not be specified"),
        (
            r#"{"Type":"volume","Source":"a","Target":"/d","ImageOptions":{"Subpath":"x"}}"#,
            "field ImageOptions must not be specified",
        ),
        (
            r#"{"Type":"image","Source":"a","Target":"/d","BindOptions":{}}"#,
            "field BindOptions must not be specified",
        ),
        (
            r#"{"Type":"volume","Source":"a","Target":"/d","VolumeOptions":{"Subpath":7}}"#,
            "Subpath",
        ),
        (
            r#"{"Type":"volume","Source":"a","Target":"/d",
            "VolumeOptions":{"DriverConfig":{"Options":{"o":7}}}}"#,
            "Options",
        ),
        (r#"{"Type":"other","Source":"a","Target":"/d"}"#, "mount type unknown"),
        (r#"{"Type":"npipe","Source":"a","Target":"/d"}"#, "a mount of type npipe"),
    ] {
        let json = format!(r#"{{"Image":"busybox","HostConfig":{{"Mounts":[{mount}]}}}}"#);
        let answer = lab.send(1, ("POST", "/v1.48/containers/create"), &json);
        assert!(400 <= answer.status && answer.body.contains(said), "{mount}: {answer:?}");
    }
    assert_eq!(lab.docker(&["volume", "ls", "--quiet"]).good().trim(), "");
}

fn a_volume_is_mounted_while_it_is_used(lab: &Lab) {
    create(lab, "scratch", &["type=tmpfs", "device=tmpfs", "o=size=4m,mode=0750"]).good();
    let options = &inspect(lab, "scratch")["Options"];
    assert_eq!(options["o"], "size=4m,mode=0750");
    assert_eq!(options["type"], "tmpfs");
    let found = lab.docker(&["volume", "ls", "--quiet", "--filter", "driver=local"]).good();
    assert_eq!(found.trim(), "scratch");
    assert_eq!(lab.docker(&["volume", "ls", "-q", "-f", "driver=x"]).good().trim(), "");
    let refused = create(lab, "scratch", &["type=tmpfs", "device=tmpfs", "o=size=8m"]).bad();
    assert!(refused.contains("volume name must be unique"), "{refused}");
    create(lab, "scratch", &[]).good();
    assert!(!place(lab, "scratch").1, "nobody uses it yet");

    let start = |name: &str, mount: &str| {
        let options = ["run", "--detach", "--name", name, "--mount", mount];
        lab.docker(&[&options[..], &["busybox:latest", "sleep", "100000"]].concat()).good();
    };
    let inside = |name: &str, script: &str| lab.docker(&["exec", name, "sh", "-c", script]);
    start("first", TMPFS);
    let (path, is_mounted) = place(lab, "scratch");
    assert!(is_mounted);
    let seen = inside("first", "grep ' /d tmpfs ' /proc/mounts; stat -c %a /d").good();
    assert!(seen.contains("size=4096k") && seen.ends_with("750\n"), "{seen}");
    inside("first", "echo text > /d/file").good();
    start("second", "type=volume,src=scratch,dst=/d");
    assert_eq!(inside("second", "cat /d/file").good(), "text\n");
    // A daemon that is killed counts nobody twice and forgets nobody.
    lab.lab(&["kill", "node-1"]).good();
    lab.lab(&["start", "node-1"]).good();
    lab.docker(&["rm", "--force", "first"]).good();
    assert_eq!(inside("second", "cat /d/file").good(), "text\n");
    assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "text\n");
    lab.docker(&["stop", "--time", "0", "second"]).good();
    assert!(!place(lab, "scratch").1, "the last one has ended");
    lab.docker(&["volume", "rm", "scratch"]).bad();
    lab.docker(&["rm", "second"]).good();
    lab.docker(&["volume", "rm", "scratch"]).good();
}

fn other_file_systems_are_mounted(lab: &Lab) {
    let folder = lab.folder().join("shared");
    fs::create_dir(&folder).unwrap();
    let device = format!("device={}", folder.display());
    create(lab, "bound", &["type=none", "o=bind", &device]).good();
    // It is empty, so it is filled as any volume is.
    run(lab, &["-v", "bound:/etc"], "echo text > /etc/file").good();
    assert_eq!(fs::read_to_string(folder.join("file")).unwrap(), "text\n");
    assert!(folder.join("passwd").exists());
    let refused = run(lab, &["-v", "bound:/d:ro"], "echo text > /d/file").bad();
    assert!(refused.contains("Read-only"), "{refused}");
    lab.docker(&["volume", "rm", "bound"]).good();
    assert!(folder.join("file").exists(), "what was mounted is not the volume's");

    let disk = lab.folder().join("disk");
    File::create(&disk).unwrap().set_len(8 << 20).unwrap();
    let ran = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().expect(program);
        assert!(output.status.success(), "{program}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    ran("mkfs.ext4", &["-q", disk.to_str().unwrap()]);
    let device = ran("losetup", &["--find", "--show", disk.to_str().unwrap()]);
    let option = format!("device={device}");
    create(lab, "disk", &["type=ext4", &option, "o=noatime"]).good();
    let seen = run(lab, &["-v", "disk:/d"], "touch /d/x; grep ' /d ext4 ' /proc/mounts").good();
    assert!(seen.contains("noatime"), "{seen}");
    assert_eq!(run(lab, &["-v", "disk:/d"], "ls /d/x").good(), "/d/x\n");
    lab.docker(&["volume", "rm", "disk"]).good();
    ran("losetup", &["--detach", &device]);

    create(lab, "none", &["type=nosuchfs", "device=x", "o=ro,password=secret,a=b"]).good();
    let path = place(lab, "none").0;
    let refused = run(lab, &["-v", "none:/d"], "true").bad();
    let said = format!(
        "error while mounting volume '{path}': failed to mount local volume: mount x:{path}, \
         flags: 0x1, data: password=********,a=b: no such device",
        path = path.display()
    );
    assert!(refused.contains(&said), "{refused}");
    create(lab, "unknown", &["type=nfs", "device=:/x", "o=addr=server.invalid"]).good();
    let refused = run(lab, &["-v", "unknown:/d"], "true").bad();
    assert!(refused.contains("error resolving passed in network volume address"), "{refused}");
    lab.docker(&["volume", "rm", "none", "unknown"]).good();
}

fn paths_within_volumes_are_mounted(lab: &Lab) {
    let prepare =
        "mkdir -p /d/a/b && echo text > /d/a/b/file && ln -s ../../.. /d/out && ln -s a /d/in";
    run(lab, &["-v", "data:/d"], prepare).good();
    let at = |subpath: &str| format!("type=volume,src=data,dst=/m,volume-subpath={subpath}");
    assert_eq!(run(lab, &["--mount", &at("a/b")], "cat /m/file").good(), "text\n");
    assert_eq!(run(lab, &["--mount", &at("a/b/file")], "cat /m").good(), "text\n");
    assert_eq!(run(lab, &["--mount", &at("in/b")], "ls /m").good(), "file\n");
    let refused = run(lab, &["--mount", &at("out/etc")], "true").bad();
    assert!(refused.contains("path concatenation escapes the base directory"), "{refused}");
    let refused = run(lab, &["--mount", &at("none")], "true").bad();
    assert!(refused.contains("no such file or directory"), "{refused}");
    let left = host::mounts_below(&[&lab.folder().join("data/node-1/engine/mounts")]);
    assert_eq!(left, Vec::<PathBuf>::new());
    // Nothing is copied from the image where the user does not want it.
    let empty = ["--mount", "type=volume,src=empty,dst=/etc/init.d,volume-nocopy"];
    assert_eq!(run(lab, &empty, "ls -A /etc/init.d").good(), "");
    lab.docker(&["volume", "rm", "data", "empty"]).good();
}

fn images_are_mounted(lab: &Lab) {
    let mount = "type=image,src=nginx:latest,dst=/web";
    let seen =
        run(lab, &["--mount", mount], "ls -d /web/etc/nginx; touch /web/x 2>&1; true").good();
    assert!(seen.starts_with("/web/etc/nginx\n") && seen.contains("Read-only"), "{seen}");
    let part = "type=image,src=nginx:latest,dst=/web,image-subpath=etc/nginx";
    assert!(run(lab, &["--mount", part], "ls /web").good().contains("nginx.conf"));
    let keep = ["run", "--detach", "--name", "keeper", "--mount", mount];
    lab.docker(&[&keep[..], &["busybox:latest", "sleep", "100000"]].concat()).good();
    let refused = lab.docker(&["rmi", "--force", "nginx:latest"]).bad();
    assert!(refused.contains("image is being used by running container"), "{refused}");
    let format = "{{range .Mounts}}{{.Type}} {{.Name}} {{.RW}}{{end}}";
    let shown = lab.docker(&["inspect", "--format", format, "keeper"]).good();
    assert_eq!(shown.trim(), "image nginx:latest false");
    lab.docker(&["rm", "--force", "keeper"]).good();
    lab.docker(&["rmi", "nginx:latest"]).good();
}

/// A file system that whoever looks at waits for: its server has opened it and never answers, as an
/// NFS server that is gone.
struct Dead {
    place: PathBuf,
    _server: File,
}

impl Dead {
    fn at(place: &Path) -> Self {
        fs::create_dir(place).unwrap();
        let server = File::options().read(true).write(true).open("/dev/fuse").expect("fuse");
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        let fuse = Some("fuse");
        mount(fuse, place, fuse, MsFlags::empty(), Some(options.as_str())).expect("a mount");
        Self { place: place.to_owned(), _server: server }
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        let _gone = umount2(&self.place, MntFlags::MNT_DETACH | MntFlags::MNT_FORCE);
    }
}

#[test]
fn services_have_volumes_of_their_own_and_a_dead_server_holds_nobody_up() {
    let lab = Lab::up(2, &["busybox"]);
    let dead = Dead::at(&lab.folder().join("dead"));
    let mount = |name: &str, kind: &str, device: &str, o: &str| {
        format!(
            "type=volume,src={name},dst=/d,volume-driver=local,volume-opt=type={kind},\
             volume-opt=device={device},volume-opt=o={o}"
        )
    };
    let service = |name: &str, replicas: &str, mount: &str| {
        let options = ["service", "create", "--detach", "--name", name, "--replicas", replicas];
        let more = ["--restart-delay", "1s", "--mount", mount, "busybox:latest"];
        lab.docker(&[&options[..], &more, &["sleep", "100000"]].concat()).good();
    };
    let gone = dead.place.join("share").display().to_string();
    service("hung", "1", &mount("hung", "none", &gone, "bind"));
    service("wrong", "1", &mount("wrong", "nosuchfs", "x", "ro"));
    let own = mount("own-{{.Task.Slot}}", "tmpfs", "slot-{{.Task.Slot}}", "size=1m");
    service("own", "3", &own);
    lab.converged("own", "3/3", LIMIT);
    for container in lab.containers(2, "own") {
        let name = lab.inside(&container, "grep ' /d tmpfs ' /proc/mounts").good();
        assert!(name.starts_with("slot-"), "{name}");
    }
    let message = |service: &str| {
        let format = "{{.CurrentState}}|{{.Error}}";
        lab.docker(&["service", "ps", "--no-trunc", "--format", format, service]).good()
    };
    let expect = |service: &str, said: &str| {
        until(said, LIMIT, || {
            let told = message(service);
            if told.contains(said) { Ok(()) } else { Err(told) }
        });
    };
    expect("wrong", "failed to mount local volume: mount x:");
    expect("wrong", "flags: 0x1: no such device");
    // Others are started and stopped meanwhile, on the same node.
    assert!(!message("hung").contains("no answer"), "it still waits");
    lab.docker(&["service", "scale", "own=5"]).good();
    expect("hung", "failed to mount local volume: mount ");
    expect("hung", "no answer within 30s");
    lab.docker(&["service", "rm", "hung", "wrong", "own"]).good();
    until("the tasks are gone", LIMIT, || {
        let left = lab.docker(&["ps", "--all", "--quiet"]).good();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    for node in [1, 2] {
        let folder = lab.folder().join(format!("data/node-{node}"));
        until("nothing is mounted", LIMIT, || {
            let mounted = host::mounts_below(&[&folder.join("engine")]);
            if mounted.is_empty() { Ok(()) } else { Err(format!("{mounted:?}")) }
        });
    }
    drop(dead);
}
