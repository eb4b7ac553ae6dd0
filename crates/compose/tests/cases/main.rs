//! Stack files and what they become, or why they are refused.

#![expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod whole;

use compose::{Around, Loaded, load};
use expect_test::{Expect, expect, expect_file};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

fn read(path: &Path) -> Result<Vec<u8>, String> {
    if path == Path::new("/stack/key") {
        return Ok(b"k\xff".to_vec());
    }
    if path == Path::new("/stack/web.env") {
        Ok("# of the file\nFROM_FILE=1\nA=file\nHOME_DIR\n".into())
    } else {
        Err("no such file".into())
    }
}

fn run(files: &[(&str, &str)]) -> Result<Loaded, String> {
    let files: Vec<(String, String)> =
        files.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
    let env: BTreeMap<String, String> =
        [("TAG", "1.25"), ("N", "3"), ("HOME_DIR", "/home/u"), ("EMPTY", "")]
            .map(|(name, value)| (name.into(), value.into()))
            .into();
    let (folder, profiles) = (Path::new("/stack"), &["debug".to_owned()]);
    let around = Around { stack: "st", folder, env: &env, profiles, read: &read };
    load(&files, &around).map_err(|error| error.to_string())
}

/// The whole answer as text.
fn show(files: &[(&str, &str)]) -> String {
    let loaded = match run(files) {
        Ok(loaded) => loaded,
        Err(text) => return format!("{text}\n"),
    };
    let mut out = String::new();
    for warning in &loaded.warnings {
        writeln!(out, "warning: {warning}").unwrap();
    }
    for network in &loaded.project.networks {
        let external = if network.external { " external" } else { "" };
        writeln!(out, "network{external}: {}", serde_json::to_string(&network.spec).unwrap())
            .unwrap();
    }
    for service in &loaded.project.services {
        writeln!(out, "service: {}", serde_json::to_string_pretty(service).unwrap()).unwrap();
    }
    out
}

/// What one service becomes, as far as it differs from a service of nothing but an image.
fn service(body: &str, wanted: &Expect) {
    let plain = run(&[("f.yml", "services:\n  web:\n    image: i\n")]).unwrap();
    let plain = serde_json::to_value(&plain.project.services[0]).unwrap();
    let body = body.trim_end().replace('\n', "\n    ");
    let text = format!("services:\n  web:\n    image: i\n    {body}\nvolumes:\n  data:\n");
    let out = match run(&[("f.yml", &text)]) {
        Ok(loaded) => {
            let mut out = String::new();
            for warning in &loaded.warnings {
                writeln!(out, "warning: {warning}").unwrap();
            }
            let value = serde_json::to_value(&loaded.project.services[0]).unwrap();
            differences("", &plain, &value, &mut out);
            out
        }
        Err(text) => format!("{text}\n"),
    };
    wanted.assert_eq(&out);
}

fn differences(path: &str, base: &serde_json::Value, value: &serde_json::Value, out: &mut String) {
    match (base.as_object(), value.as_object()) {
        _ if base == value => {}
        (Some(base), Some(map)) => {
            for (key, value) in map {
                let inner = format!("{path}.{key}");
                differences(&inner, base.get(key).unwrap_or(&serde_json::Value::Null), value, out);
            }
        }
        (_, _) => writeln!(out, "{path} = {value}").unwrap(),
    }
}

#[test]
fn the_wordpress_example_is_read() {
    let text = include_str!("../../../../examples/wordpress/docker-stack.yml");
    expect_file!["wordpress.txt"].assert_eq(&show(&[("docker-stack.yml", text)]));
}

#[test]
fn ports_have_short_and_long_forms() {
    service(
        "ports:\n  - 8080:80\n  - \"127.0.0.1:53:53/udp\"\n  - target: 443\n    published: \"8443\"\n    mode: host\n",
        &expect![[r#"
            warning: f.yml:6:9: services.web.ports[1]: the address 127.0.0.1 is ignored: a published port is open on every address of a node
            .endpoint.ports = [{"name":"","protocol":"udp","target":53,"published":53,"mode":"ingress"},{"name":"","protocol":"tcp","target":80,"published":8080,"mode":"ingress"},{"name":"","protocol":"tcp","target":443,"published":8443,"mode":"host"}]
        "#]],
    );
}

#[test]
fn environment_comes_from_files_lists_and_mappings() {
    service(
        "env_file: web.env\nenvironment:\n  A: 1\n  B: true\n  C: \"yes\"\n  D: yes\n  HOME_DIR:\n  UNSET:\n  F: 1.5",
        &expect![[r#"
            .task.container.env = ["A=1","B=true","C=yes","D=yes","F=1.5","FROM_FILE=1","HOME_DIR=/home/u","UNSET"]
        "#]],
    );
    service(
        "environment:\n  - A=b=c\n  - HOME_DIR\n  - $TAG=${TAG}",
        &expect![[r#"
        .task.container.env = ["1.25=1.25","A=b=c","HOME_DIR=/home/u"]
    "#]],
    );
    service(
        "env_file: [none.env]",
        &expect![[r#"
        f.yml:4:15: services.web.env_file: cannot read /stack/none.env: no such file
    "#]],
    );
}

#[test]
fn commands_are_split_like_a_shell_does() {
    service(
        "command: sh -c \"echo $$HOME 'a b'\"\nentrypoint: [\"/bin/tini\", \"--\"]",
        &expect![[r#"
            .task.container.command = ["/bin/tini","--"]
            .task.container.args = ["sh","-c","echo $HOME 'a b'"]
        "#]],
    );
    service(
        "command: \"sh 'a\"",
        &expect![[r#"
        f.yml:4:14: services.web.command: a quote is not closed
    "#]],
    );
}

#[test]
fn health_checks_have_their_forms() {
    service(
        "healthcheck:\n  test: curl -f localhost\n  interval: 1m30s\n  retries: 3",
        &expect![[r#"
        .task.container.health = {"test":["CMD-SHELL","curl -f localhost"],"interval":{"secs":90,"nanos":0},"timeout":{"secs":0,"nanos":0},"start_period":{"secs":0,"nanos":0},"start_interval":{"secs":0,"nanos":0},"retries":3}
    "#]],
    );
    service(
        "healthcheck:\n  disable: true",
        &expect![[r#"
        .task.container.health = {"test":["NONE"],"interval":{"secs":0,"nanos":0},"timeout":{"secs":0,"nanos":0},"start_period":{"secs":0,"nanos":0},"start_interval":{"secs":0,"nanos":0},"retries":0}
    "#]],
    );
    service(
        "healthcheck:\n  test: [\"curl\"]",
        &expect![[r#"
        f.yml:5:13: services.web.healthcheck.test: the first item should be one of NONE, CMD, CMD-SHELL
    "#]],
    );
}

#[test]
fn mounts_have_short_and_long_forms() {
    service(
        "volumes:\n  - data:/var/lib/data:ro\n  - ./conf:/etc/conf\n  - /anonymous\n  - type: tmpfs\n    target: /cache\n    tmpfs: {size: 64M, mode: 0755}\ntmpfs: /run:size=1m,mode=700",
        &expect![[r#"
            .task.container.mounts = [{"kind":"volume","source":"st_data","target":"/var/lib/data","read_only":true,"read_only_not_below":false,"read_only_or_fail":false,"propagation":"rprivate","not_below":false,"make_source":false,"no_copy":false,"tmpfs_size":0,"tmpfs_mode":0,"tmpfs_options":[],"labels":{"com.docker.stack.namespace":"st"},"volume_driver":""},{"kind":"bind","source":"/stack/conf","target":"/etc/conf","read_only":false,"read_only_not_below":false,"read_only_or_fail":false,"propagation":"rprivate","not_below":false,"make_source":false,"no_copy":false,"tmpfs_size":0,"tmpfs_mode":0,"tmpfs_options":[],"labels":{},"volume_driver":""},{"kind":"volume","source":"","target":"/anonymous","read_only":false,"read_only_not_below":false,"read_only_or_fail":false,"propagation":"rprivate","not_below":false,"make_source":false,"no_copy":false,"tmpfs_size":0,"tmpfs_mode":0,"tmpfs_options":[],"labels":{},"volume_driver":""},{"kind":"tmpfs","source":"","target":"/cache","read_only":false,"read_only_not_below":false,"read_only_or_fail":false,"propagation":"rprivate","not_below":false,"make_source":false,"no_copy":false,"tmpfs_size":67108864,"tmpfs_mode":493,"tmpfs_options":[],"labels":{},"volume_driver":""},{"kind":"tmpfs","source":"","target":"/run","read_only":false,"read_only_not_below":false,"read_only_or_fail":false,"propagation":"rprivate","not_below":false,"make_source":false,"no_copy":false,"tmpfs_size":1048576,"tmpfs_mode":448,"tmpfs_options":[],"labels":{},"volume_driver":""}]
        "#]],
    );
    service(
        "volumes: [\"other:/data\", \"data:rel\"]",
        &expect![[r#"
        f.yml:4:15: services.web.volumes[0]: the volume "other" is not in the file's top-level volumes
        f.yml:4:30: services.web.volumes[1]: the target should be an absolute path
    "#]],
    );
}

#[test]
fn deploy_says_how_it_runs() {
    service(
        "deploy:\n  replicas: ${N}\n  endpoint_mode: dnsrr\n  labels: [\"a=b\"]\n  update_config: {parallelism: 2, order: start-first, failure_action: rollback, delay: 10s}\n  resources:\n    limits: {cpus: '0.50', memory: 50M, pids: 100}\n    reservations: {memory: 20M, generic_resources: [{discrete_resource_spec: {kind: gpu, value: 2}}]}\n  restart_policy: {condition: on-failure, max_attempts: 3, window: 2m}\n  placement:\n    constraints: [node.role == manager]\n    preferences: [{spread: node.labels.zone}]\n    max_replicas_per_node: 2",
        &expect![[r#"
            .labels.a = "b"
            .task.resources.limit_nano_cpus = 500000000
            .task.resources.limit_memory = 52428800
            .task.resources.limit_pids = 100
            .task.resources.reserve_memory = 20971520
            .task.restart.condition = "on-failure"
            .task.restart.max_attempts = 3
            .task.restart.window.secs = 120
            .task.placement.constraints = ["node.role == manager"]
            .task.placement.preferences = [{"spread":"node.labels.zone"}]
            .task.placement.max_replicas_per_node = 2
            .task.generic = {"gpu":2}
            .mode.replicated.replicas = 3
            .endpoint.mode = "dnsrr"
            .update.parallelism = 2
            .update.delay.secs = 10
            .update.failure_action = "rollback"
            .update.order = "start-first"
        "#]],
    );
    service(
        "deploy:\n  mode: global\n  replicas: 2",
        &expect![[r#"
            f.yml:6:17: services.web.deploy.replicas: replicas can only be used with mode replicated or replicated-job
        "#]],
    );
    service(
        "deploy:\n  placement:\n    constraints: [rack=1]",
        &expect![[r#"
            f.yml:6:22: services.web.deploy.placement.constraints: constraint expected one operator from ==, !=: rack=1
        "#]],
    );
    service(
        "restart: on-failure:3",
        &expect![[r#"
        .task.restart.condition = "on-failure"
        .task.restart.max_attempts = 3
    "#]],
    );
}

#[test]
fn jobs_say_how_many_complete_and_when() {
    service(
        "deploy:\n  mode: replicated-job\n  replicas: 5",
        &expect![[r#"
        .mode.replicated-job = {"max_concurrent":5,"total_completions":5}
    "#]],
    );
    service(
        "deploy:\n  mode: replicated-job",
        &expect![[r#"
        .mode.replicated-job = {"max_concurrent":1,"total_completions":1}
    "#]],
    );
    service(
        "x-schedule: 30 3 * * *\ndeploy:\n  mode: global-job\n  labels: {a: b}",
        &expect![[r#"
            .labels.a = "b"
            .labels.skep.schedule = "30 3 * * *"
            .mode = "global-job"
        "#]],
    );
    service(
        "x-sticky: true",
        &expect![[r#"
            .labels.skep.sticky = "on"
        "#]],
    );
    service(
        "x-sticky: maybe",
        &expect![[r#"
            f.yml:4:15: services.web.x-sticky: should be true or false
        "#]],
    );
    service(
        "volumes:\n  - {type: image, source: 'web:1', target: /w, image: {subpath: etc}}\n  - {type: volume, source: data, target: /d, volume: {subpath: a/b}}\n  - {type: bind, source: /s, target: /s, read_only: true, bind: {create_host_path: true, recursive: readonly}}",
        &expect![[r#"
            .task.container.mounts = [{"kind":"image","source":"web:1","target":"/w","read_only":false,"read_only_not_below":false,"read_only_or_fail":false,"propagation":"rprivate","not_below":false,"make_source":false,"no_copy":false,"tmpfs_size":0,"tmpfs_mode":0,"tmpfs_options":[],"labels":{},"volume_driver":"","subpath":"etc"},{"kind":"volume","source":"st_data","target":"/d","read_only":false,"read_only_not_below":false,"read_only_or_fail":false,"propagation":"rprivate","not_below":false,"make_source":false,"no_copy":false,"tmpfs_size":0,"tmpfs_mode":0,"tmpfs_options":[],"labels":{"com.docker.stack.namespace":"st"},"volume_driver":"","subpath":"a/b"},{"kind":"bind","source":"/s","target":"/s","read_only":true,"read_only_not_below":false,"read_only_or_fail":true,"propagation":"rprivate","not_below":false,"make_source":true,"no_copy":false,"tmpfs_size":0,"tmpfs_mode":0,"tmpfs_options":[],"labels":{},"volume_driver":""}]
        "#]],
    );
    service(
        "volumes: [{type: image, target: /w}, {type: bind, source: /s, target: /s, bind: {recursive: maybe}}]",
        &expect![[r#"
            f.yml:4:15: services.web.volumes[0]: an image mount needs a source
            f.yml:4:97: services.web.volumes[1].bind.recursive: should be enabled, disabled, writable or readonly
        "#]],
    );
    service(
        "deploy:\n  mode: global-job",
        &expect![[r#"
        .mode = "global-job"
    "#]],
    );
    service(
        "deploy:\n  mode: global-job\n  replicas: 2\n  update_config:\n    parallelism: 2\n  \
         rollback_config: {}",
        &expect![[r#"
            f.yml:6:17: services.web.deploy.replicas: replicas can only be used with mode replicated or replicated-job
            f.yml:8:9: services.web.deploy.update_config: update and rollback configuration is not supported for jobs
            f.yml:9:24: services.web.deploy.rollback_config: update and rollback configuration is not supported for jobs
        "#]],
    );
}

#[test]
fn everything_else_of_a_container_is_taken() {
    service(
        "hostname: h\nuser: \"1000:1000\"\nworking_dir: /w\nread_only: true\ntty: true\nstdin_open: true\ninit: true\nstop_signal: SIGQUIT\nstop_grace_period: 30s\ncap_add: [NET_ADMIN]\ncap_drop: [ALL]\ndns: 8.8.8.8\ndns_search: [a, b]\nextra_hosts: [\"db:10.0.0.9\", \"six:::1\"]\nulimits: {nproc: 65535, nofile: {soft: 1, hard: 2}}\nsysctls: {net.core.somaxconn: 1024}\nlabels: {l: 1}\nlogging: {driver: json-file, options: {max-size: 10m, max-file: 3}}\nx-mine: {any: thing}",
        &expect![[r#"
            .task.container.labels.l = "1"
            .task.container.hostname = "h"
            .task.container.dir = "/w"
            .task.container.user = "1000:1000"
            .task.container.tty = true
            .task.container.open_stdin = true
            .task.container.read_only = true
            .task.container.init = true
            .task.container.stop_signal = "SIGQUIT"
            .task.container.stop_grace_period = {"secs":30,"nanos":0}
            .task.container.hosts = [{"address":"10.0.0.9","names":["db"]},{"address":"::1","names":["six"]}]
            .task.container.dns.nameservers = ["8.8.8.8"]
            .task.container.dns.search = ["a","b"]
            .task.container.cap_add = ["CAP_NET_ADMIN"]
            .task.container.cap_drop = ["ALL"]
            .task.container.sysctls.net.core.somaxconn = "1024"
            .task.container.ulimits = [{"name":"nofile","soft":1,"hard":2},{"name":"nproc","soft":65535,"hard":65535}]
            .task.log_driver = "json-file"
            .task.log_options.max-file = "3"
            .task.log_options.max-size = "10m"
        "#]],
    );
}

#[test]
fn volumes_have_options_of_their_drivers() {
    let text = "services:\n  web:\n    image: i\n    volumes: ['share:/s', 'theirs:/t']\nvolumes:\n  share:\n    driver: flock\n    driver_opts: {type: nfs, size: 4, o: 'addr=files,ro'}\n  theirs: {external: true}\n";
    let loaded = run(&[("f.yml", text)]).unwrap();
    let [share, theirs] = loaded.project.services[0].task.container.mounts.as_slice() else {
        panic!("two mounts")
    };
    let options: Vec<String> =
        share.driver_options.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(options, ["o=addr=files,ro", "size=4", "type=nfs"]);
    assert_eq!((share.source.as_str(), share.volume_driver.as_str()), ("st_share", "flock"));
    assert!(theirs.driver_options.is_empty() && theirs.volume_driver.is_empty());
}

#[test]
fn mounts_keep_their_options_and_volumes_their_driver() {
    let text = "services:\n  web:\n    image: i\n    volumes:\n      - data:/a:nocopy\n      - /b:/b:ro,rslave\n      - {type: volume, source: data, target: /c, volume: {nocopy: true}}\n      - {type: bind, source: /d, target: /d, bind: {propagation: shared}}\n      - theirs:/e\n      - bare:/f\n    tmpfs: /g:exec\nvolumes:\n  data: {driver: local}\n  theirs: {external: true, driver: local}\n  bare:\n";
    let loaded = run(&[("f.yml", text)]).unwrap();
    let mut out = String::new();
    for mount in &loaded.project.services[0].task.container.mounts {
        let (propagation, tmpfs) = (mount.propagation.as_str(), &mount.tmpfs_options);
        let (driver, copied) = (&mount.volume_driver, !mount.no_copy);
        writeln!(out, "{} {driver:?} copied={copied} {propagation} {tmpfs:?}", mount.target)
            .unwrap();
    }
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    expect![[r#"
        /a "local" copied=false rprivate []
        /b "" copied=true rslave []
        /c "local" copied=false rprivate []
        /d "" copied=true shared []
        /e "" copied=true rprivate []
        /f "" copied=true rprivate []
        /g "" copied=true rprivate ["exec"]
    "#]]
    .assert_eq(&out);
    service(
        "volumes: [\"data:/a:z\", {type: bind, source: /b, target: /b, bind: {propagation: sideways}}]\ntmpfs: /g:uid=7",
        &expect![[r#"
            f.yml:4:85: services.web.volumes[1].bind.propagation: "sideways" is none of rprivate, private, rshared, shared, rslave, slave
        "#]],
    );
}

#[test]
fn what_a_service_asks_of_its_nodes_is_in_labels_of_its_container() {
    service(
        "privileged: true\npid: host\nipc: host\nuts: host\nuserns_mode: host\ncgroup: host\ncgroup_parent: /mine\nshm_size: 128m\ndevices:\n  - /dev/fuse\n  - /dev/null:/dev/other:rw\n  - {source: /dev/kvm, target: /dev/k, permissions: r}\n  - v.io/c=x\ndevice_cgroup_rules: [\"c 1:3 rw\"]\ngpus: all\nlabels: {own: label}",
        &expect![[r#"
            .task.container.labels.own = "label"
            .task.container.labels.skep.cgroup = "host"
            .task.container.labels.skep.cgroup_parent = "/mine"
            .task.container.labels.skep.device_cgroup_rules = "c 1:3 rw"
            .task.container.labels.skep.devices = "/dev/fuse,/dev/null:/dev/other:rw,/dev/kvm:/dev/k:r,v.io/c=x"
            .task.container.labels.skep.gpus = "all"
            .task.container.labels.skep.ipc = "host"
            .task.container.labels.skep.pid = "host"
            .task.container.labels.skep.privileged = "true"
            .task.container.labels.skep.shm_size = "128m"
            .task.container.labels.skep.userns_mode = "host"
            .task.container.labels.skep.uts = "host"
        "#]],
    );
    service(
        "gpus: [{count: 2}]\ndeploy:\n  resources:\n    limits: {memory: 64m}\n    reservations:\n      devices: [{driver: cdi, device_ids: [v.io/c=x]}]\nmemswap_limit: 128m\nmem_swappiness: 10",
        &expect![[r#"
            .task.container.labels.skep.devices = "v.io/c=x"
            .task.container.labels.skep.gpus = "2"
            .task.resources.limit_memory = 67108864
            .task.resources.swap = 67108864
            .task.resources.swappiness = 10
        "#]],
    );
    service(
        "deploy:\n  resources:\n    reservations:\n      devices: [{driver: nvidia, device_ids: ['0', GPU-1], capabilities: [gpu]}]\nsecurity_opt: [\"no-new-privileges:true\", \"seccomp=unconfined\", \"apparmor:unconfined\", \"label:disable\"]\nprivileged: false\nmemswap_limit: -1",
        &expect![[r#"
            .task.container.labels.skep.gpus = "device=0,GPU-1"
            .task.container.security.seccomp = "unconfined"
            .task.container.security.apparmor = "unconfined"
            .task.container.security.no_new_privileges = true
            .task.container.security.selinux_disabled = true
            .task.resources.swap = -1
        "#]],
    );
    service(
        "network_mode: host",
        &expect![[r#"
        .task.networks = [{"target":"host","aliases":[]}]
    "#]],
    );
    service(
        "network_mode: none",
        &expect![[r#"
        .task.networks = [{"target":"none","aliases":[]}]
    "#]],
    );
}

#[test]
fn what_is_asked_for_in_several_places_is_had_together_or_refused() {
    service(
        "devices: [/dev/fuse, v.io/c=x]\ndevice_cgroup_rules: [\"c 1:3 r\"]\nlabels: {skep.devices: /dev/kvm, skep.device_cgroup_rules: \"c 1:5 r\", skep.pid: host}\npid: host\ndeploy:\n  resources:\n    reservations:\n      devices: [{driver: cdi, device_ids: [v.io/c=x, v.io/c=y]}]",
        &expect![[r#"
            .task.container.labels.skep.device_cgroup_rules = "c 1:5 r,c 1:3 r"
            .task.container.labels.skep.devices = "/dev/kvm,v.io/c=x,v.io/c=y,/dev/fuse"
            .task.container.labels.skep.pid = "host"
        "#]],
    );
    service(
        "gpus: all\nshm_size: 64m\nlabels: {skep.shm_size: 128m}\ndeploy:\n  resources:\n    reservations:\n      devices: [{capabilities: [gpu], count: 1}]",
        &expect![[r#"
            f.yml:4:11: services.web.gpus: GPUs are asked for twice: 1 and all
            f.yml:5:15: services.web.shm_size: skep.shm_size is asked for twice: 128m and 64m
        "#]],
    );
    service(
        "labels: {skep.gpus: all}\ndeploy:\n  resources:\n    reservations:\n      devices: [{capabilities: [gpu], count: 1}]",
        &expect![[r#"
            f.yml:6:7: services.web.deploy: GPUs are asked for twice: all and 1
        "#]],
    );
}

#[test]
fn what_no_service_can_ask_of_its_nodes_is_an_error_with_its_place() {
    service(
        "privileged: maybe\npid: container:x\nipc: service:web\nuts: mine\ncgroup: x\nuserns_mode: keep\nshm_size: none\ndevices: [null0, {source: /dev/kvm, name: k}]\ndevice_cgroup_rules: [x]\ngpus: [{count: 1, device_ids: [a]}, {driver: cdi}, {driver: cdi, device_ids: [x]}, {driver: mine}]",
        &expect![[r#"
            f.yml:4:17: services.web.privileged: should be true or false
            f.yml:5:10: services.web.pid: "container:x": a task has no name spaces of other containers, which may be elsewhere
            f.yml:6:10: services.web.ipc: "service:web": a task has no name spaces of other containers, which may be elsewhere
            f.yml:7:10: services.web.uts: "mine" is none of host
            f.yml:8:13: services.web.cgroup: "x" is none of host, private
            f.yml:9:18: services.web.userns_mode: "keep" is none of host
            f.yml:10:15: services.web.shm_size: "none" is no amount of bytes such as 64m
            f.yml:11:14: services.web.devices: invalid device path "null0": it is not absolute
            f.yml:11:41: services.web.devices[1]: unknown key "name"
            f.yml:12:26: services.web.device_cgroup_rules: invalid device cgroup rule format: 'x'
            f.yml:13:12: services.web.gpus[0]: count and device_ids exclude each other
            f.yml:13:41: services.web.gpus[1]: the driver cdi needs device_ids
            f.yml:13:56: services.web.gpus[2]: "x" is no name of CDI: VENDOR/CLASS=NAME
            f.yml:13:88: services.web.gpus[3]: the driver "mine" is not supported by skep: use cdi
        "#]],
    );
    service(
        "network_mode: service:db\nnetworks: [a]\ndeploy: {resources: {reservations: {devices: [{capabilities: [tpu]}]}}}\nmemswap_limit: 64m\nmem_swappiness: 101\nsecurity_opt: [\"label:type:t\", \"apparmor:mine\", \"seccomp:none.json\", \"odd:x\"]",
        &expect![[r#"
            f.yml:4:19: services.web.network_mode: "service:db" is none of host, none, bridge: a task has no network of other containers, which may be elsewhere
            f.yml:5:15: services.web.networks: networks and network_mode exclude each other
            f.yml:6:51: services.web.deploy.resources.reservations.devices[0]: there are devices of the capability gpu alone, not [tpu]
            f.yml:7:20: services.web.memswap_limit: it counts memory and swap, so it is at least deploy.resources.limits.memory
            f.yml:8:21: services.web.mem_swappiness: should be from 0 to 100
            f.yml:9:19: services.web.security_opt: containers get no SELinux labels with skep
            f.yml:9:19: services.web.security_opt: a service has its node's AppArmor profile, or is unconfined
            f.yml:9:19: services.web.security_opt: cannot read /stack/none.json: no such file
            f.yml:9:19: services.web.security_opt: "odd" is no security option
        "#]],
    );
    service(
        "network_mode: host\nports: [\"80:80\"]",
        &expect![[r#"
        f.yml:4:19: services.web.network_mode: ports are not published on the network host: remove ports
    "#]],
    );
}
