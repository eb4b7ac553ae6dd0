//! What is left of policies for one container.

use super::*;
use crate::spec::capabilities;
use serde_json::json;

fn machine(kernel: (u32, u32)) -> Machine {
    Machine { seccomp: true, kernel, ..Machine::default() }
}

/// The default for a container with some capabilities besides Docker's own.
fn default_with(add: &[&str]) -> Value {
    let add: Vec<String> = add.iter().map(|name| (*name).to_owned()).collect();
    let all = capabilities::of_mask(u64::MAX);
    let set = capabilities::plan(&add, &[], &all).unwrap();
    render(&Seccomp::Default, &machine((6, 1)), &set).unwrap().unwrap()
}

/// The rules on a call, as `ACTION` or `ACTION index op value`.
fn rules(profile: &Value, call: &str) -> Vec<String> {
    let rules = profile["syscalls"].as_array().unwrap().iter();
    let about = rules.filter(|rule| rule["names"].as_array().unwrap().contains(&json!(call)));
    let line = |rule: &Value| {
        let action = rule["action"].as_str().unwrap().trim_start_matches("SCMP_ACT_");
        let argument = |it: &Value| {
            let op = it["op"].as_str().unwrap().trim_start_matches("SCMP_CMP_");
            format!(" {} {op} {}", it["index"], it["value"])
        };
        let args: String = rule["args"].as_array().into_iter().flatten().map(argument).collect();
        let errno = rule["errnoRet"].as_u64().map(|errno| format!(" {errno}")).unwrap_or_default();
        format!("{action}{errno}{args}")
    };
    about.map(line).collect()
}

#[test]
fn the_default_refuses_what_an_ordinary_program_does_not_need() {
    let profile = default_with(&[]);
    let _parsed: oci_spec::runtime::LinuxSeccomp = serde_json::from_value(profile.clone()).unwrap();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    assert_eq!(profile["defaultErrnoRet"], 1);
    for call in [
        "mount",
        "unshare",
        "setns",
        "keyctl",
        "add_key",
        "bpf",
        "reboot",
        "kexec_load",
        "init_module",
    ] {
        assert!(rules(&profile, call).is_empty(), "{call}");
    }
    for call in ["io_uring_setup", "userfaultfd", "perf_event_open", "open_by_handle_at", "swapon"]
    {
        assert!(rules(&profile, call).is_empty(), "{call}");
    }
    for call in ["read", "execve", "socketpair", "chroot", "ptrace", "futex_waitv", "seccomp"] {
        assert_eq!(rules(&profile, call), ["ALLOW"], "{call}");
    }
}

#[test]
fn some_calls_depend_on_their_arguments() {
    let profile = default_with(&[]);
    // All families but AF_ALG (38) and AF_VSOCK (40).
    assert_eq!(rules(&profile, "socket"), ["ALLOW 0 LT 38", "ALLOW 0 EQ 39", "ALLOW 0 GT 40"]);
    assert_eq!(rules(&profile, "personality").len(), 5);
    assert_eq!(rules(&profile, "clone"), ["ALLOW 0 MASKED_EQ 2114060288"]);
    assert_eq!(rules(&profile, "clone3"), ["ERRNO 38"]);
}

#[test]
fn whoever_has_a_capability_may_make_its_calls() {
    let admin = default_with(&["SYS_ADMIN"]);
    for call in ["mount", "unshare", "clone", "clone3"] {
        assert_eq!(rules(&admin, call), ["ALLOW"], "{call}");
    }
    assert_eq!(rules(&default_with(&["BPF"]), "bpf"), ["ALLOW"]);
    assert_eq!(rules(&default_with(&["SYS_TIME"]), "clock_settime"), ["ALLOW"]);
    let all = capabilities::of_mask(u64::MAX);
    let none = capabilities::plan(&[], &["ALL".to_owned()], &all).unwrap();
    let old = render(&Seccomp::Default, &machine((4, 7)), &none).unwrap().unwrap();
    assert!(rules(&old, "chroot").is_empty() && rules(&old, "ptrace").is_empty());
}

#[test]
fn a_kernel_without_seccomp_runs_the_default_and_refuses_a_profile_of_ones_own() {
    let without = Machine::default();
    assert_eq!(render(&Seccomp::Default, &without, &BTreeSet::new()).unwrap(), None);
    let own = Seccomp::Custom(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#.to_owned());
    assert!(check(&own, &without).unwrap_err().message.contains("not enabled in your kernel"));
    assert_eq!(check(&own, &machine((6, 1))), Ok(()));
}

#[test]
fn a_profile_of_ones_own_is_filtered_for_its_container() {
    let text = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": null, "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}],
        "syscalls": [
            {"name": "chmod", "action": "SCMP_ACT_ERRNO", "errnoRet": 13, "args": null},
            {"names": ["mkdir"], "action": "SCMP_ACT_KILL", "comment": "", "includes": {},
                "excludes": {"caps": ["CAP_CHOWN"]}},
            {"names": ["rmdir"], "action": "SCMP_ACT_KILL", "includes": {"minKernel": "7.0"}},
        ],
    });
    let caps = BTreeSet::from(["CAP_CHOWN"]);
    let seccomp = Seccomp::Custom(text.to_string());
    let profile = render(&seccomp, &machine((6, 18)), &caps).unwrap().unwrap();
    assert_eq!(rules(&profile, "chmod"), ["ERRNO 13"]);
    assert!(rules(&profile, "mkdir").is_empty() && rules(&profile, "rmdir").is_empty());
    assert_eq!(profile["architectures"].as_array().unwrap().len(), 2);
    assert_eq!(profile["flags"], json!(["SECCOMP_FILTER_FLAG_LOG"]));
    // Docker takes a profile that says nothing for none.
    let empty = Seccomp::Custom("{}".to_owned());
    assert_eq!(render(&empty, &machine((6, 18)), &caps).unwrap(), None);
}

#[test]
fn what_is_no_profile_is_refused() {
    for (text, reason) in [
        ("{", "EOF"),
        (r#"{"defaultAction":"ALLOW"}"#, "unknown action 'ALLOW'"),
        (r#"{"syscalls":[{"names":["a"],"action":"SCMP_ACT_ALLOW"}]}"#, "unknown action ''"),
        (
            r#"{"defaultAction":"SCMP_ACT_LOG","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_LOG"}]}"#,
            "either 'name' or 'names'",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_LOG","architectures":["a"],"archMap":[{"architecture":"b"}]}"#,
            "either 'architectures' or 'archMap'",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_LOG","syscalls":[{"name":"a","action":"SCMP_ACT_LOG","includes":{"minKernel":"x"}}]}"#,
            "no kernel version",
        ),
    ] {
        let fault = check_profile(text).unwrap_err();
        assert!(fault.message.contains(reason), "{text}: {fault}");
    }
    assert!(check_profile(&" ".repeat(2 << 20)).unwrap_err().message.contains("larger"));
}
