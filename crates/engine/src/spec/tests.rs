//! Specifications by text.

use super::*;
use crate::config::{ContainerConfig, NetworkMode};
use crate::joined::Borrowed;
use crate::users::User;
use expect_test::{Expect, expect};
use std::collections::{BTreeMap, BTreeSet};
use types::{ContainerSpec, Mount, MountKind, Resources, Ulimit};

fn machine() -> Machine {
    Machine {
        // All but CAP_SYS_RESOURCE, as on a machine that is itself a container.
        capabilities: capabilities::of_mask(0x1ff_feff_ffff),
        limits: BTreeMap::from([("nofile", 20_000)]),
        oom_score_adj: -100,
        cgroup2: false,
        network_sysctls: true,
        kernel: (6, 1),
        // `seccomp` has tests of its own.
        seccomp: false,
        apparmor: None,
        swap: true,
        swappiness: true,
        network: None,
        init: Some("/lib/init".into()),
    }
}

fn image() -> ImageConfig {
    ImageConfig::of(&json!({"config": {
        "Entrypoint": ["/entry"], "Cmd": ["serve"], "Env": ["LANG=C", "PATH=/bin", "DROP=1"],
        "WorkingDir": "/srv",
    }}))
}

fn render_with(
    change: impl FnOnce(&mut ContainerConfig),
    user: &User,
    mounts: &[MountPoint],
) -> Result<Value, Fault> {
    render_on(&machine(), change, user, mounts)
}

fn render_on(
    machine: &Machine,
    change: impl FnOnce(&mut ContainerConfig),
    user: &User,
    mounts: &[MountPoint],
) -> Result<Value, Fault> {
    let mut config = ContainerConfig { network: NetworkMode::Attached, ..Default::default() };
    change(&mut config);
    render(&Plan {
        id: "c0ffee",
        config: &config,
        image: &image(),
        machine,
        user,
        hostname: "web",
        netns: &Netns::Path("/run/netns/c0ffee".into()),
        mounts,
        files: Path::new("/data/c0ffee"),
        memory_files: &[],
        cgroup_parent: "/skep/",
        borrowed: &Borrowed::default(),
        devices: &[],
    })
}

/// What is rendered must be what the OCI's own types understand.
fn rendered(change: impl FnOnce(&mut ContainerConfig)) -> Value {
    let spec = render_with(change, &User::default(), &[]).unwrap();
    let _parsed: oci_spec::runtime::Spec = serde_json::from_value(spec.clone()).unwrap();
    spec
}

fn check(value: &Value, expected: &Expect) {
    expected.assert_eq(&value.to_string());
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn a_plain_container_gets_dockers_defaults() {
    let spec = rendered(|_| {});
    check(
        &spec["process"],
        &expect![[
            r#"{"terminal":false,"user":{"uid":0,"gid":0,"additionalGids":[]},"args":["/entry","serve"],"env":["PATH=/bin","HOSTNAME=web","LANG=C","DROP=1"],"cwd":"/srv","capabilities":{"bounding":["CAP_AUDIT_WRITE","CAP_CHOWN","CAP_DAC_OVERRIDE","CAP_FOWNER","CAP_FSETID","CAP_KILL","CAP_MKNOD","CAP_NET_BIND_SERVICE","CAP_NET_RAW","CAP_SETFCAP","CAP_SETGID","CAP_SETPCAP","CAP_SETUID","CAP_SYS_CHROOT"],"effective":["CAP_AUDIT_WRITE","CAP_CHOWN","CAP_DAC_OVERRIDE","CAP_FOWNER","CAP_FSETID","CAP_KILL","CAP_MKNOD","CAP_NET_BIND_SERVICE","CAP_NET_RAW","CAP_SETFCAP","CAP_SETGID","CAP_SETPCAP","CAP_SETUID","CAP_SYS_CHROOT"],"permitted":["CAP_AUDIT_WRITE","CAP_CHOWN","CAP_DAC_OVERRIDE","CAP_FOWNER","CAP_FSETID","CAP_KILL","CAP_MKNOD","CAP_NET_BIND_SERVICE","CAP_NET_RAW","CAP_SETFCAP","CAP_SETGID","CAP_SETPCAP","CAP_SETUID","CAP_SYS_CHROOT"]},"rlimits":[{"type":"RLIMIT_NOFILE","hard":20000,"soft":1024}],"noNewPrivileges":false,"oomScoreAdj":0}"#
        ]],
    );
    check(
        &spec["linux"],
        &expect![[
            r#"{"cgroupsPath":"/skep/c0ffee","resources":{"devices":[{"allow":false,"access":"rwm"}]},"namespaces":[{"type":"mount"},{"type":"uts"},{"type":"ipc"},{"type":"pid"},{"type":"network","path":"/run/netns/c0ffee"}],"maskedPaths":["/proc/acpi","/proc/asound","/proc/interrupts","/proc/kcore","/proc/keys","/proc/latency_stats","/proc/sched_debug","/proc/scsi","/proc/timer_list","/proc/timer_stats","/sys/devices/virtual/powercap","/sys/firmware"],"readonlyPaths":["/proc/bus","/proc/fs","/proc/irq","/proc/sys","/proc/sysrq-trigger"],"sysctl":{"net.ipv4.ip_unprivileged_port_start":"0","net.ipv4.ping_group_range":"0 2147483647"}}"#
        ]],
    );
    let mounts: Vec<String> = spec["mounts"].as_array().unwrap().iter().map(line).collect();
    expect![[r"
        proc /proc nosuid,noexec,nodev
        tmpfs /dev nosuid,strictatime,mode=755,size=65536k
        devpts /dev/pts nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5
        sysfs /sys nosuid,noexec,nodev,ro
        cgroup /sys/fs/cgroup ro,nosuid,noexec,nodev
        mqueue /dev/mqueue nosuid,noexec,nodev
        tmpfs /dev/shm nosuid,noexec,nodev,mode=1777,size=67108864
        /data/c0ffee/resolv.conf /etc/resolv.conf rbind,rprivate,rw
        /data/c0ffee/hostname /etc/hostname rbind,rprivate,rw
        /data/c0ffee/hosts /etc/hosts rbind,rprivate,rw"]]
    .assert_eq(&mounts.join("\n"));
}

fn line(mount: &Value) -> String {
    let text = |name: &str| mount[name].as_str().unwrap_or_default().to_owned();
    let options: Vec<&str> =
        mount["options"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    format!("{} {} {}", text("source"), text("destination"), options.join(","))
}

#[test]
fn entrypoint_and_command_are_put_together_as_docker_does() {
    let arguments = |command: &[&str], args: &[&str]| {
        let (command, args) = (words(command), words(args));
        arguments(&ContainerSpec { command, args, ..Default::default() }, &image())
            .map(|words| words.join(" "))
            .map_err(|fault| fault.message)
    };
    assert_eq!(arguments(&[], &[]).unwrap(), "/entry serve");
    assert_eq!(arguments(&[], &["test"]).unwrap(), "/entry test");
    assert_eq!(arguments(&["sh"], &[]).unwrap(), "sh");
    assert_eq!(arguments(&["sh"], &["-c", "x"]).unwrap(), "sh -c x");
    assert_eq!(arguments(&[""], &["ls"]).unwrap(), "ls");
    assert_eq!(arguments(&[""], &[]).unwrap_err(), "no command specified");
}

#[test]
fn variables_replace_one_another_and_a_name_alone_unsets() {
    let spec = rendered(|config| {
        config.spec.env = words(&["LANG=de", "DROP", "NEW=a=b", "NONE"]);
        config.spec.tty = true;
    });
    check(
        &spec["process"]["env"],
        &expect![[r#"["PATH=/bin","HOSTNAME=web","TERM=xterm","LANG=de","NEW=a=b"]"#]],
    );
}

#[test]
fn resources_and_limits_stay_within_the_daemons() {
    let spec = rendered(|config| {
        config.resources = Resources {
            limit_nano_cpus: 1_500_000_000,
            limit_memory: 64 << 20,
            limit_pids: 100,
            reserve_memory: 32 << 20,
            ..Resources::default()
        };
        let nofile = Ulimit { name: "nofile".to_owned(), soft: 30_000, hard: -1 };
        config.spec.ulimits = vec![nofile];
        config.spec.oom_score_adj = -500;
    });
    check(
        &spec["linux"]["resources"],
        &expect![[
            r#"{"devices":[{"allow":false,"access":"rwm"}],"memory":{"limit":67108864,"swap":134217728,"reservation":33554432},"cpu":{"quota":150000,"period":100000},"pids":{"limit":100}}"#
        ]],
    );
    check(
        &spec["process"]["rlimits"],
        &expect![[r#"[{"type":"RLIMIT_NOFILE","hard":20000,"soft":20000}]"#]],
    );
    assert_eq!(spec["process"]["oomScoreAdj"], -100);
}

#[test]
fn a_container_may_open_as_many_files_as_with_docker_unless_it_asks_for_others() {
    let limits = |ulimits: &[&str], most: Option<u64>| {
        let limit = |name: &&str| Ulimit { name: (*name).to_owned(), soft: 7, hard: 9 };
        let machine = Machine {
            limits: most.map(|most| ("nofile", most)).into_iter().collect(),
            ..machine()
        };
        let change = |config: &mut ContainerConfig| {
            config.spec.ulimits = ulimits.iter().map(limit).collect();
        };
        let spec = render_on(&machine, change, &User::default(), &[]).unwrap();
        spec["process"]["rlimits"].to_string()
    };
    let docker = r#"{"type":"RLIMIT_NOFILE","hard":524288,"soft":1024}"#;
    assert_eq!(limits(&[], None), format!("[{docker}]"));
    assert_eq!(limits(&[], Some(1 << 30)), format!("[{docker}]"));
    let own = |name: &str| format!(r#"{{"type":"RLIMIT_{name}","hard":9,"soft":7}}"#);
    assert_eq!(limits(&["core"], None), format!("[{},{docker}]", own("CORE")));
    assert_eq!(limits(&["NoFile"], None), format!("[{}]", own("NOFILE")));
}

#[test]
fn capabilities_are_added_dropped_and_never_more_than_the_daemon_has() {
    let daemon = machine().capabilities;
    let plan = |add: &[&str], drop: &[&str]| {
        capabilities::plan(&words(add), &words(drop), &daemon).map_err(|fault| fault.message)
    };
    let only = |names: &[&'static str]| Ok(names.iter().copied().collect::<BTreeSet<_>>());
    assert_eq!(plan(&["net_admin"], &["ALL"]), only(&["CAP_NET_ADMIN"]));
    let all = plan(&["ALL"], &["CAP_SYS_ADMIN"]).unwrap();
    assert!(all.contains("CAP_NET_ADMIN"));
    assert!(!all.contains("CAP_SYS_ADMIN") && !all.contains("CAP_SYS_RESOURCE"));
    assert!(!plan(&[], &["NET_RAW"]).unwrap().contains("CAP_NET_RAW"));
    // What is dropped beside ALL stays dropped, also where it is added by name.
    let mixed = plan(&["ALL", "SYS_ADMIN"], &["SYS_ADMIN"]).unwrap();
    assert!(!mixed.contains("CAP_SYS_ADMIN") && mixed.contains("CAP_NET_ADMIN"));
    assert_eq!(plan(&["FLY"], &[]).unwrap_err(), "invalid capability: unknown capability: \"FLY\"");
}

#[test]
fn whoever_is_not_root_only_keeps_the_bounding_set() {
    let user = User { uid: 33, gid: 34, groups: vec![34, 4] };
    let spec = render_with(|_| {}, &user, &[]).unwrap();
    check(&spec["process"]["user"], &expect![[r#"{"uid":33,"gid":34,"additionalGids":[34,4]}"#]]);
    let sets = spec["process"]["capabilities"].as_object().unwrap();
    assert_eq!(sets.keys().collect::<Vec<_>>(), ["bounding"]);
}

#[test]
fn the_users_mounts_come_after_ours_and_replace_them() {
    let point = |kind, source: &str, target: &str, read_only| MountPoint {
        mount: Mount { kind, target: target.to_owned(), read_only, ..Mount::default() },
        source: source.into(),
        ..MountPoint::default()
    };
    let points = [
        point(MountKind::Bind, "/src/deep", "/a/b/c", false),
        point(MountKind::Volume, "/vol", "/a", true),
        point(MountKind::Tmpfs, "", "/dev/shm", false),
        point(MountKind::Bind, "/my/hosts", "/etc/hosts", true),
    ];
    let spec = render_with(|_| {}, &User::default(), &points).unwrap();
    let mounts: Vec<String> = spec["mounts"].as_array().unwrap().iter().map(line).collect();
    expect![[r"
        mqueue /dev/mqueue nosuid,noexec,nodev
        /data/c0ffee/resolv.conf /etc/resolv.conf rbind,rprivate,rw
        /data/c0ffee/hostname /etc/hostname rbind,rprivate,rw
        /vol /a rbind,rprivate,rro
        tmpfs /dev/shm nosuid,nodev,noexec,mode=1777
        /my/hosts /etc/hosts rbind,rprivate,rro
        /src/deep /a/b/c rbind,rprivate,rw"]]
    .assert_eq(&mounts[5..].join("\n"));
}

#[test]
fn kernel_settings_that_are_not_the_containers_own_are_refused() {
    let set = |name: &str| {
        let settings = types::Labels::from([(name.to_owned(), "1".to_owned())]);
        render_with(|config| config.spec.sysctls = settings, &User::default(), &[])
    };
    assert_eq!(set("net.core.somaxconn").unwrap()["linux"]["sysctl"]["net.core.somaxconn"], "1");
    assert!(set("kernel.shmmax").is_ok());
    assert_eq!(set("vm.swappiness").unwrap_err().message, "sysctl 'vm.swappiness' is not allowed");
}

#[test]
fn a_further_process_runs_in_the_containers_environment() {
    let config = ContainerConfig::default();
    let wanted = crate::exec::ExecConfig {
        command: words(&["id"]),
        env: words(&["LANG=fr"]),
        tty: true,
        ..Default::default()
    };
    let process = exec(&ExecPlan {
        config: &config,
        image: &image(),
        machine: &machine(),
        hostname: "web",
        user: &User { uid: 7, gid: 7, groups: vec![7] },
        exec: &wanted,
    })
    .unwrap();
    let _parsed: oci_spec::runtime::Process = serde_json::from_value(process.clone()).unwrap();
    let env = &process["env"];
    check(env, &expect![[r#"["PATH=/bin","HOSTNAME=web","LANG=fr","DROP=1","TERM=xterm"]"#]]);
    assert_eq!((&process["cwd"], &process["args"][0]), (&json!("/srv"), &json!("id")));
}

#[test]
fn memory_and_swap_are_limited_as_docker_counts_them() {
    let memory = |machine: &Machine, limit: i64, swap, swappiness| {
        let resources = Resources { limit_memory: limit, swap, swappiness, ..Resources::default() };
        let spec = render_on(machine, |config| config.resources = resources, &User::default(), &[]);
        spec.unwrap()["linux"]["resources"]["memory"].to_string()
    };
    let here = machine();
    assert_eq!(memory(&here, 100, None, None), r#"{"limit":100,"swap":200}"#);
    assert_eq!(memory(&here, 100, Some(0), None), r#"{"limit":100,"swap":100}"#);
    assert_eq!(memory(&here, 100, Some(50), Some(0)), r#"{"limit":100,"swap":150,"swappiness":0}"#);
    assert_eq!(memory(&here, 100, Some(-1), None), r#"{"limit":100,"swap":-1}"#);
    assert_eq!(memory(&here, 0, None, Some(60)), r#"{"swappiness":60}"#);
    // With cgroup v2, the OCI's sum is the same and there is no swappiness.
    let second = Machine { cgroup2: true, swappiness: false, ..machine() };
    assert_eq!(memory(&second, 100, Some(50), Some(60)), r#"{"limit":100,"swap":150}"#);
    let without = Machine { swap: false, swappiness: false, ..machine() };
    assert_eq!(memory(&without, 100, Some(50), Some(60)), r#"{"limit":100}"#);
}

#[test]
fn processes_are_confined_as_the_user_and_the_machine_say() {
    let confined = Machine { seccomp: true, apparmor: Some("own".to_owned()), ..machine() };
    let render = |change: fn(&mut types::Security)| {
        let edit = |config: &mut ContainerConfig| change(&mut config.spec.security);
        let spec = render_on(&confined, edit, &User::default(), &[]).unwrap();
        let _parsed: oci_spec::runtime::Spec = serde_json::from_value(spec.clone()).unwrap();
        spec
    };
    let usual = render(|_| {});
    assert_eq!(usual["process"]["apparmorProfile"], "own");
    assert_eq!(usual["process"]["noNewPrivileges"], false);
    assert_eq!(usual["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
    let free = render(|security| {
        security.seccomp = Seccomp::Unconfined;
        security.apparmor = AppArmor::Unconfined;
    });
    assert_eq!(free["process"]["apparmorProfile"], "unconfined");
    assert!(free["linux"].get("seccomp").is_none());
    let strict = render(|security| {
        security.no_new_privileges = true;
        security.apparmor = AppArmor::Named("mine".to_owned());
    });
    assert_eq!(strict["process"]["noNewPrivileges"], true);
    assert_eq!(strict["process"]["apparmorProfile"], "mine");
    // A machine without either runs containers all the same.
    let plain = rendered(|_| {});
    assert!(plain["process"].get("apparmorProfile").is_none());
}

#[test]
fn hidden_and_read_only_paths_are_the_users_where_he_says_so() {
    let spec = rendered(|config| {
        config.masked_paths = Some(Vec::new());
        config.readonly_paths = Some(words(&["/proc/sys"]));
    });
    assert_eq!(spec["linux"]["maskedPaths"], json!([]));
    assert_eq!(spec["linux"]["readonlyPaths"], json!(["/proc/sys"]));
}

#[test]
fn where_the_root_is_read_only_the_files_in_etc_are_too() {
    for (read_only, access) in [(true, "ro"), (false, "rw")] {
        let spec = rendered(|config| config.spec.read_only = read_only);
        let mounts: Vec<String> = spec["mounts"].as_array().unwrap().iter().map(line).collect();
        for name in ["hosts", "hostname", "resolv.conf"] {
            let mount = format!("/data/c0ffee/{name} /etc/{name} rbind,rprivate,{access}");
            assert!(mounts.contains(&mount), "{mount}: {mounts:?}");
        }
    }
}

#[test]
fn a_small_init_runs_first_where_it_is_wanted() {
    let spec = rendered(|config| config.spec.init = Some(true));
    check(&spec["process"]["args"], &expect![[r#"["/sbin/docker-init","--","/entry","serve"]"#]]);
    let mounts: Vec<String> = spec["mounts"].as_array().unwrap().iter().map(line).collect();
    assert!(mounts.contains(&"/lib/init /sbin/docker-init rbind,rprivate,ro".to_owned()));
}

#[test]
fn options_of_mounts_are_rendered() {
    let mount = |change: fn(&mut Mount)| {
        let mut point = MountPoint { source: "/src".into(), ..MountPoint::default() };
        point.mount.kind = MountKind::Bind;
        point.mount.target = "/t".to_owned();
        change(&mut point.mount);
        let spec = render_with(|_| {}, &User::default(), &[point]).unwrap();
        let root = spec["linux"]["rootfsPropagation"].as_str().unwrap_or("-").to_owned();
        let last = spec["mounts"].as_array().unwrap().last().unwrap().clone();
        format!("{} {root}", line(&last))
    };
    assert_eq!(mount(|_| {}), "/src /t rbind,rprivate,rw -");
    assert_eq!(mount(|it| it.not_below = true), "/src /t bind,rprivate,rw -");
    assert_eq!(mount(|it| it.read_only = true), "/src /t rbind,rprivate,rro -");
    assert_eq!(
        mount(|it| (it.read_only, it.read_only_not_below) = (true, true)),
        "/src /t rbind,rprivate,ro -"
    );
    assert_eq!(
        mount(|it| it.propagation = Propagation::Rshared),
        "/src /t rbind,rshared,rw shared"
    );
    assert_eq!(mount(|it| it.propagation = Propagation::Slave), "/src /t rbind,slave,rw rslave");
    let tmpfs = mount(|it| {
        it.kind = MountKind::Tmpfs;
        it.tmpfs_options = vec!["exec".to_owned(), "uid=7".to_owned()];
    });
    assert_eq!(tmpfs, "tmpfs /t nosuid,nodev,noexec,exec,uid=7,mode=1777 -");
}

#[test]
fn a_privileged_container_may_do_what_the_daemon_may_and_no_more() {
    let spec = rendered(|config| config.node.privileged = true);
    let all = json!(capabilities::of_mask(0x1ff_feff_ffff));
    assert_eq!(spec["process"]["capabilities"]["effective"], all);
    let linux = &spec["linux"];
    assert_eq!(linux["resources"]["devices"], json!([{ "allow": true, "access": "rwm" }]));
    assert!(linux.get("maskedPaths").is_none() && linux.get("readonlyPaths").is_none());
    let lines: Vec<String> = spec["mounts"].as_array().unwrap().iter().map(line).collect();
    assert!(lines.contains(&"sysfs /sys nosuid,noexec,nodev,rw".to_owned()), "{lines:?}");
    let confining = Machine { seccomp: true, apparmor: Some("skep".to_owned()), ..machine() };
    let root = User::default();
    let on = |privileged| {
        render_on(&confining, |config| config.node.privileged = privileged, &root, &[]).unwrap()
    };
    for (spec, profile, filtered) in [(on(false), "skep", true), (on(true), "unconfined", false)] {
        assert_eq!(spec["process"]["apparmorProfile"], profile);
        assert_eq!(spec["linux"].get("seccomp").is_some(), filtered);
    }
}

#[test]
fn name_spaces_of_the_node_and_its_devices_are_there_for_who_asks() {
    let spec = rendered(|config| {
        config.node = types::NodeAccess { pid: true, ipc: true, uts: true, ..Default::default() };
    });
    let kinds = spec["linux"]["namespaces"].as_array().unwrap();
    let kinds: Vec<_> = kinds.iter().map(|kind| kind["type"].as_str().unwrap()).collect();
    assert_eq!((kinds, spec.get("hostname")), (vec!["mount", "network"], None));
    let lines: Vec<String> = spec["mounts"].as_array().unwrap().iter().map(line).collect();
    assert!(lines.contains(&"/dev/shm /dev/shm rbind,rprivate,rw".to_owned()), "{lines:?}");
    let sysctl = |config: &mut ContainerConfig| {
        config.node.ipc = true;
        config.spec.sysctls.insert("kernel.shmmax".to_owned(), "1".to_owned());
    };
    render_with(sysctl, &User::default(), &[]).unwrap_err();

    let mut config = ContainerConfig { network: NetworkMode::Attached, ..Default::default() };
    config.node.device_rules = words(&["c 7:* rw", "a *:* m"]);
    let found = Found {
        path: "/dev/other".to_owned(),
        kind: 'c',
        numbers: (1, 3),
        mode: 0o666,
        owner: (0, 5),
        access: "r".to_owned(),
    };
    let spec = render(&Plan {
        id: "c0ffee",
        config: &config,
        image: &image(),
        machine: &machine(),
        user: &User::default(),
        hostname: "web",
        netns: &Netns::New,
        mounts: &[],
        files: Path::new("/data/c0ffee"),
        memory_files: &[],
        cgroup_parent: "/skep/",
        borrowed: &Borrowed::default(),
        devices: &[found],
    });
    let linux = &spec.unwrap()["linux"];
    check(
        &linux["devices"],
        &expect![[
            r#"[{"path":"/dev/other","type":"c","major":1,"minor":3,"fileMode":438,"uid":0,"gid":5}]"#
        ]],
    );
    check(
        &linux["resources"]["devices"],
        &expect![[
            r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"r"},{"allow":true,"type":"c","access":"rw","major":7},{"allow":true,"type":"a","access":"m"}]"#
        ]],
    );
}
