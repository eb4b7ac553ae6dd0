//! What a container gets, seen from inside: what it may do, its init, its memory, its mounts, its
//! log.

#![allow(clippy::disallowed_methods, reason = "tests run programs")]

use e2e::{Lab, until};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Of the system calls below: on x86-64 alone.
const HERE: bool = cfg!(target_arch = "x86_64");

#[test]
fn a_container_gets_what_docker_gives_and_what_was_asked_for() {
    let lab = Lab::up(1, &["busybox"]);
    let folder = std::env::temp_dir().join(format!("skep-probe-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    system_calls_are_filtered(&lab, &folder);
    an_init_hands_signals_on(&lab);
    memory_and_swap_are_limited(&lab);
    mounts_have_their_options(&lab, &folder);
    a_long_line_has_one_time_stamp(&lab);
    what_is_the_nodes_is_there_for_who_asks(&lab);
    name_spaces_of_other_containers_are_joined(&lab);
    devices_are_given_as_their_vendors_say(&lab);
    what_is_wrong_is_refused_at_once(&lab);
    fs::remove_dir_all(&folder).expect("it was ours");
}

/// Runs a shell in a container; says what it printed.
fn inside(lab: &Lab, options: &[&str], script: &str) -> String {
    let run = [&["run", "--rm"], options, &["busybox:latest", "sh", "-c", script]].concat();
    lab.docker(&run).good().trim().to_owned()
}

/// Builds the program that makes one system call.
fn probe(folder: &Path) -> PathBuf {
    let program = folder.join("probe");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../linux/init/probe.rs");
    let mut compiler = Command::new("rustc");
    compiler.args(["--edition", "2024", "--crate-name", "probe", "-o"]).arg(&program).arg(source);
    for option in ["panic=abort", "opt-level=s", "relocation-model=static"] {
        compiler.arg("-C").arg(option);
    }
    for option in ["-nostartfiles", "-nostdlib", "-static"] {
        compiler.arg("-C").arg(format!("link-arg={option}"));
    }
    assert!(compiler.status().expect("a compiler").success(), "the probe is built");
    program
}

fn system_calls_are_filtered(lab: &Lab, folder: &Path) {
    let info = lab.docker(&["info", "--format", "{{json .SecurityOptions}}"]).good();
    assert!(info.contains("name=seccomp,profile=builtin"), "{info}");
    let privileges = |options: &[&str]| inside(lab, options, "grep NoNewPrivs /proc/self/status");
    assert!(privileges(&[]).ends_with('0'));
    assert!(privileges(&["--security-opt", "no-new-privileges"]).ends_with('1'));
    let profile = folder.join("no-mkdir.json");
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
        [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}"#;
    fs::write(&profile, text).expect("a file");
    let own = format!("seccomp={}", profile.display());
    let refused = inside(lab, &["--security-opt", &own], "mkdir /d 2>&1; true");
    assert!(refused.contains("Permission denied"), "{refused}");
    assert_eq!(inside(lab, &[], "mkdir /d && echo made"), "made");
    if !HERE {
        return;
    }
    let volume = format!("{}:/probe:ro", probe(folder).display());
    // socket(AF_ALG, SOCK_SEQPACKET), unshare(CLONE_NEWUSER), mount, keyctl, clone(CLONE_NEWNET),
    // bpf, io_uring_setup; clone3 last.
    let calls = ["41 38 5", "272 268435456", "165", "250 0", "56 1073741824", "321", "425", "435"];
    let script: String = calls.map(|call| format!("/probe {call}; echo $?; ")).concat();
    let answers = |options: &[&str]| {
        let answers = inside(lab, &[&["-v", &volume], options].concat(), &script);
        answers.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    // EPERM for all; ENOSYS for clone3, so that programs use clone.
    assert_eq!(answers(&[]), ["1", "1", "1", "1", "1", "1", "1", "38"]);
    let free = answers(&["--security-opt", "seccomp=unconfined"]);
    // Whatever the kernel says then: it was asked. (A network of one's own takes a capability.)
    for (call, answer) in calls.iter().zip(&free).filter(|(call, _)| !call.starts_with("56")) {
        assert_ne!(answer, "1", "{call} is refused without a filter");
    }
    // Whoever has the capability makes its calls, and no others.
    let admin = answers(&["--cap-add", "SYS_ADMIN"]);
    assert_eq!((admin[0].as_str(), admin[2].as_str(), admin[3].as_str()), ("1", "14", "1"));
    // What is executed later is filtered, too.
    let volume = ["-v", &volume];
    let id = [&["run", "--detach", "--rm"], &volume[..], &["busybox:latest", "sleep", "1000"]];
    let id = lab.docker(&id.concat()).good();
    let script = "/probe 165; echo $?";
    assert_eq!(lab.docker(&["exec", id.trim(), "sh", "-c", script]).good().trim(), "1");
    lab.docker(&["kill", id.trim()]).good();
}

fn an_init_hands_signals_on(lab: &Lab) {
    assert_eq!(inside(lab, &["--init"], "cat /proc/1/comm"), "docker-init");
    assert_ne!(inside(lab, &[], "cat /proc/1/comm"), "docker-init");
    // As the first process it would not be ended by a signal that it does not handle.
    let run = ["run", "--detach", "--init", "--name", "sleeper", "busybox:latest", "sleep", "1000"];
    lab.docker(&run).good();
    lab.docker(&["kill", "--signal", "TERM", "sleeper"]).good();
    assert_eq!(lab.docker(&["wait", "sleeper"]).good().trim(), "143");
    lab.docker(&["rm", "sleeper"]).good();
    // Services, too; and orphans are reaped.
    let script = "for i in 1 2 3; do (sh -c true & exec true); done; sleep 1
        echo zombies $(grep -l '^State:.Z' /proc/[0-9]*/status | wc -l); exec sleep 1000";
    let create = ["service", "create", "--detach", "--init", "--name", "reaped"];
    lab.docker(&[&create[..], &["busybox:latest", "sh", "-c", script]].concat()).good();
    until("no zombies", Duration::from_mins(1), || {
        let shown = lab.docker(&["service", "logs", "--raw", "reaped"]);
        if shown.out.trim() == "zombies 0" { Ok(()) } else { Err(format!("{shown:?}")) }
    });
    lab.docker(&["service", "rm", "reaped"]).good();
}

fn memory_and_swap_are_limited(lab: &Lab) {
    let first = "/sys/fs/cgroup/memory/memory";
    let read = format!(
        "cat {first}.memsw.limit_in_bytes 2>/dev/null || \
         echo $(($(cat /sys/fs/cgroup/memory.max) + $(cat /sys/fs/cgroup/memory.swap.max)))"
    );
    let both = |options: &[&str]| inside(lab, &[&["--memory", "64m"], options].concat(), &read);
    assert_eq!(both(&[]), (128 << 20).to_string());
    assert_eq!(both(&["--memory-swap", "96m"]), (96 << 20).to_string());
    if Path::new("/sys/fs/cgroup/memory/memory.swappiness").exists() {
        let swappiness = ["--memory", "64m", "--memory-swappiness", "7"];
        assert_eq!(inside(lab, &swappiness, &format!("cat {first}.swappiness")), "7");
    }
}

fn mounts_have_their_options(lab: &Lab, folder: &Path) {
    let mounted = |options: &[&str]| inside(lab, options, "grep ' /t ' /proc/self/mountinfo");
    assert!(mounted(&["--tmpfs", "/t"]).contains("noexec"));
    assert!(!mounted(&["--tmpfs", "/t:exec"]).contains("noexec"));
    let bind = |options: &str| format!("type=bind,src={},dst=/t{options}", folder.display());
    assert!(mounted(&["--mount", &bind(",readonly")]).contains(" ro"));
    assert!(mounted(&["--mount", &bind("")]).contains(" rw"));
    // Busybox has files in /etc.
    let volume = |options: &str| {
        let mount = format!("type=volume,dst=/etc{options}");
        inside(lab, &["--mount", &mount], "ls /etc | grep -c passwd; true")
    };
    assert_eq!(volume(""), "1");
    assert_eq!(volume(",volume-nocopy"), "0");
}

fn a_long_line_has_one_time_stamp(lab: &Lab) {
    let script = "head -c 40000 /dev/zero | tr '\\000' x; echo END; echo next";
    let run = ["run", "--name", "long", "--log-opt", "tag={{.Name}}", "busybox:latest"];
    lab.docker(&[&run[..], &["sh", "-c", script]].concat()).good();
    let shown = lab.docker(&["logs", "--timestamps", "long"]).good();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 2);
    let (stamp, text) = lines[0].split_once(' ').expect("a time stamp");
    assert!(stamp.ends_with('Z') && text.len() == 40_003 && text.ends_with("xEND"));
    let tail = lab.docker(&["logs", "--tail", "2", "long"]).good();
    assert_eq!(tail.len(), 40_004 + 5);
    let details = lab.docker(&["logs", "--tail", "1", "--details", "long"]).good();
    assert_eq!(details, "tag=long next\n");
    lab.docker(&["rm", "long"]).good();
}

fn what_is_the_nodes_is_there_for_who_asks(lab: &Lab) {
    // The lab's daemons share this machine's name spaces, but for the network.
    let own = |kind: &str| {
        let link = fs::read_link(format!("/proc/self/ns/{kind}")).expect("a name space");
        link.display().to_string()
    };
    for (option, kind) in [("--pid", "pid"), ("--ipc", "ipc"), ("--uts", "uts")] {
        let script = format!("readlink /proc/self/ns/{kind}");
        assert_ne!(inside(lab, &[], &script), own(kind), "{option}");
        assert_eq!(inside(lab, &[option, "host"], &script), own(kind), "{option}");
    }
    let pid = std::process::id();
    let sees = format!("[ -d /proc/{pid} ] && grep -c . /proc/{pid}/comm");
    assert_eq!(inside(lab, &["--pid", "host"], &sees), "1");
    let name = fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    assert_eq!(inside(lab, &["--uts", "host"], "hostname"), name.trim());
    assert_eq!(inside(lab, &["--uts", "host"], "cat /etc/hostname"), name.trim());
    let shared = Path::new("/dev/shm").join(format!("skep-e2e-{pid}"));
    fs::write(&shared, "shared").expect("a file");
    assert_eq!(inside(lab, &["--ipc", "host"], &format!("cat {}", shared.display())), "shared");
    fs::remove_file(&shared).expect("it was ours");

    let full = "/dev/full:/dev/other:rw";
    let written = "echo x 2>/dev/null >/dev/other; echo $?; ls -l /dev/other | cut -c1";
    assert_eq!(inside(lab, &["--device", full], written), "1\nc");
    // fuse's: none of those that every container has.
    let fuse = "mknod /fuse c 10 229 && (: </fuse) 2>&1; echo $?";
    assert!(inside(lab, &[], fuse).contains("not permitted"));
    let may = inside(lab, &["--device-cgroup-rule", "c 10:229 rwm"], fuse);
    assert!(!may.contains("not permitted"), "{may}");
    let all =
        "grep -c '^Seccomp:.*0' /proc/self/status; [ -w /proc/sys/kernel/domainname ] && echo w";
    assert_eq!(inside(lab, &["--privileged"], all), "1\nw");
    let rights = |options: &[&str]| inside(lab, options, "grep CapBnd /proc/self/status");
    let own = fs::read_to_string("/proc/self/status").expect("a status");
    let own = own.lines().find(|line| line.starts_with("CapBnd")).expect("a set");
    assert_eq!(rights(&["--privileged"]), own);
    assert_ne!(rights(&[]), own);

    let refused = |options: &[&str]| {
        let all = [&["run", "--rm"], options, &["busybox:latest", "true"]].concat();
        lab.docker(&all).bad()
    };
    assert!(refused(&["--device", "/dev/there-is-none"]).contains("/dev/there-is-none"));
    let both = refused(&["--uts", "host", "--hostname", "x"]);
    assert!(both.contains("conflicting options"), "{both}");
    assert!(refused(&["--pid", "private"]).contains("invalid PID mode"));
    let parent = format!("{}/mine", lab.cgroup());
    let own =
        inside(lab, &["--cgroupns", "host", "--cgroup-parent", &parent], "cat /proc/self/cgroup");
    assert!(own.contains(&format!(":{parent}/")), "{own}");
    assert!(refused(&["--cgroup-parent", "/a/../b"]).contains("invalid cgroup parent"));
}

fn name_spaces_of_other_containers_are_joined(lab: &Lab) {
    let run = ["run", "--detach", "--name", "donor", "--hostname", "giver", "--ipc", "shareable"];
    let rest = ["--shm-size", "8m", "busybox:latest", "sleep", "1000"];
    lab.docker(&[&run[..], &rest].concat()).good();
    let of_donor =
        |script: &str| lab.docker(&["exec", "donor", "sh", "-c", script]).good().trim().to_owned();
    for (option, kind) in [("--pid", "pid"), ("--ipc", "ipc"), ("--network", "net")] {
        let script = format!("readlink /proc/self/ns/{kind}");
        let joined = inside(lab, &[option, "container:donor"], &script);
        assert_eq!(joined, of_donor(&script), "{option}");
        assert_ne!(inside(lab, &[], &script), joined, "{option}");
    }
    of_donor("echo word >/dev/shm/shared; echo hosts >>/etc/hosts");
    let size = "cat /dev/shm/shared; df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2";
    assert_eq!(inside(lab, &["--ipc", "container:donor"], size), "word\n8192");
    let same = "hostname; tail -1 /etc/hosts; cat /etc/resolv.conf";
    let network = ["--network", "container:donor"];
    let same_there = inside(lab, &network, same);
    assert_eq!(same_there, of_donor(same));
    assert!(same_there.starts_with("giver\nhosts\n"), "{same_there}");
    let sees = inside(lab, &["--pid", "container:donor"], "ps | grep -c '[s]leep 1000'");
    assert_eq!(sees, "1");

    let id = lab.docker(&["inspect", "--format", "{{.Id}}", "donor"]).good();
    let create = ["create", "--name", "joined", "--pid", "container:donor"];
    lab.docker(&[&create[..], &network, &["busybox:latest", "true"]].concat()).good();
    let shown = [
        "inspect",
        "--format",
        "{{.HostConfig.NetworkMode}} {{.HostConfig.PidMode}} \
        {{.HostConfig.IpcMode}} {{json .NetworkSettings.Networks}}",
        "joined",
    ];
    let wanted = format!("container:{0} container:{0} private {{}}", id.trim());
    assert_eq!(lab.docker(&shown).good().trim(), wanted);
    let shown = ["inspect", "--format", "{{.HostConfig.IpcMode}}", "donor"];
    assert_eq!(lab.docker(&shown).good().trim(), "shareable");

    let run = |options: &[&str]| {
        let all = [&["run", "--rm"], options, &["busybox:latest", "true"]].concat();
        lab.docker(&all).bad()
    };
    assert!(run(&["--pid", "container:nobody"]).contains("No such container: nobody"));
    lab.docker(&["run", "--detach", "--name", "alone", "busybox:latest", "sleep", "1000"]).good();
    let refused = run(&["--ipc", "container:alone"]);
    assert!(refused.contains("non-shareable IPC (hint: use IpcMode:shareable"), "{refused}");
    lab.docker(&["kill", "donor", "alone"]).good();
    lab.docker(&["wait", "donor", "alone"]).good();
    let late = lab.docker(&["start", "joined"]).bad();
    let words = format!("cannot join network of a non running container: {}", id.trim());
    assert!(late.contains(&words), "{late}");
    lab.docker(&["rm", "donor", "alone", "joined"]).good();
}

/// Devices that files of their vendors describe.
fn devices_are_given_as_their_vendors_say(lab: &Lab) {
    let folder = lab.folder().join("run/cdi");
    fs::create_dir_all(&folder).expect("a folder");
    let text = r#"{"cdiVersion": "0.6.0", "kind": "skep.test/thing",
        "containerEdits": {"env": ["THINGS=yes"]}, "devices": [{"name": "one", "containerEdits": {
        "deviceNodes": [{"path": "/dev/one", "hostPath": "/dev/full"}],
        "mounts": [{"hostPath": "/proc/version", "containerPath": "/one/version",
                    "options": ["ro", "bind"]}]}}]}"#;
    fs::write(folder.join("thing.json"), text).expect("a file");
    let gpu = "kind: nvidia.com/gpu\ndevices:\n- name: \"0\"\n  containerEdits: {env: [GPU=0]}\n\
               - name: all\n  containerEdits: {env: [GPU=all]}\n";
    fs::write(folder.join("gpu.yaml"), gpu).expect("a file");
    let script = "echo $THINGS; echo x 2>/dev/null >/dev/one; echo $?; \
                  cmp /one/version /proc/version && echo same";
    assert_eq!(inside(lab, &["--device", "skep.test/thing=one"], script), "yes\n1\nsame");
    assert_eq!(inside(lab, &["--gpus", "all"], "echo $GPU"), "all");
    assert_eq!(inside(lab, &["--gpus", "1"], "echo $GPU"), "0");
    assert_eq!(inside(lab, &["--gpus", "device=0"], "echo $GPU"), "0");
    let refused = |options: &[&str]| {
        let all = [&["run", "--rm"], options, &["busybox:latest", "true"]].concat();
        lab.docker(&all).bad()
    };
    let unknown = refused(&["--device", "skep.test/thing=two"]);
    let words = "CDI device injection failed: unresolvable CDI devices skep.test/thing=two";
    assert!(unknown.contains(words), "{unknown}");
    let many = refused(&["--gpus", "7"]);
    assert!(many.contains("unresolvable CDI devices nvidia.com/gpu=1"), "{many}");
    let shown = lab.docker(&["info", "--format", "{{json .CDISpecDirs}}"]).good();
    assert!(shown.contains("/etc/cdi") && shown.contains("run/cdi"), "{shown}");
}

fn what_is_wrong_is_refused_at_once(lab: &Lab) {
    let create = |options: &[&str]| {
        let all = [&["service", "create", "--detach"], options, &["busybox:latest"]].concat();
        lab.docker(&all).bad()
    };
    assert!(create(&["--env", "X={{.Nope}}"]).contains("Nope"));
    assert!(create(&["--log-driver", "gelf"]).contains("gelf"));
    assert!(
        create(&["--log-driver", "json-file", "--log-opt", "labels-regex=("])
            .contains("labels-regex")
    );
    let run = |options: &[&str]| {
        let all = [&["run", "--rm"], options, &["busybox:latest", "true"]].concat();
        lab.docker(&all).bad()
    };
    assert!(run(&["--security-opt", "apparmor=mine"]).contains("AppArmor"));
    assert!(run(&["--memory", "64m", "--memory-swap", "32m"]).contains("memoryswap"));
    assert!(run(&["--log-driver", "nope"]).contains("nope"));
}
