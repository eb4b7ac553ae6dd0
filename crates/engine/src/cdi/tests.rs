//! Files of vendors, and what they do to a container.

use super::{Registry, names};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use types::DeviceRequest;

const YAML: &str = r#"
cdiVersion: "0.6.0"
kind: skep.test/thing
annotations: {a: b}
containerEdits:
  env: [THINGS=yes]
devices:
  - name: one
    containerEdits:
      env: [ONE=1, LANG=D]
      deviceNodes:
        - {path: /dev/one, hostPath: /dev/null, permissions: rw}
        - {path: /dev/made, type: b, major: 7, minor: 9, fileMode: 432, uid: 5}
      mounts:
        - {hostPath: /usr/share/one, containerPath: /usr/lib/one/deep, options: [ro, nosuid]}
        - {hostPath: /other, containerPath: /mnt, options: [bind]}
      hooks:
        - {hookName: createContainer, path: /bin/hook, args: [hook, x], timeout: 5}
      additionalGids: [44]
  - name: all
"#;

fn stage(files: &[(&str, &str)]) -> (tempfile::TempDir, [PathBuf; 2]) {
    let dir = tempfile::tempdir().unwrap();
    let folders = ["first", "second"].map(|name| dir.path().join(name));
    for folder in &folders {
        std::fs::create_dir(folder).unwrap();
    }
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    (dir, folders)
}

fn spec(uid: u32) -> Value {
    json!({
        "process": { "user": { "uid": uid, "gid": 0, "additionalGids": [1] }, "env": ["PATH=/bin", "LANG=C"] },
        "mounts": [{ "destination": "/proc" }, { "destination": "/mnt", "source": "/old" }],
        "linux": { "resources": { "devices": [{ "allow": false, "access": "rwm" }] } },
    })
}

fn named(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn injected(folders: &[PathBuf], wanted: &[&str], uid: u32) -> Result<Value, String> {
    let mut spec = spec(uid);
    let injected = Registry::read(folders).inject(&named(wanted), &mut spec);
    injected.map(|()| spec).map_err(|fault| fault.message)
}

#[test]
fn a_device_brings_what_its_file_says_into_the_specification() {
    let (_dir, folders) = stage(&[("first/thing.yaml", YAML)]);
    let spec = injected(&folders, &["skep.test/thing=one"], 0).unwrap();
    assert_eq!(spec["process"]["env"], json!(["PATH=/bin", "THINGS=yes", "ONE=1", "LANG=D"]));
    assert_eq!(spec["process"]["user"]["additionalGids"], json!([1, 44]));
    let devices = json!([
        { "path": "/dev/one", "type": "c", "major": 1, "minor": 3 },
        { "path": "/dev/made", "type": "b", "major": 7, "minor": 9, "fileMode": 432, "uid": 5 },
    ]);
    assert_eq!(spec["linux"]["devices"], devices);
    let rules = json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw" },
        { "allow": true, "type": "b", "major": 7, "minor": 9, "access": "rwm" },
    ]);
    assert_eq!(spec["linux"]["resources"]["devices"], rules);
    let targets: Vec<&str> = spec["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| mount["destination"].as_str().unwrap())
        .collect();
    assert_eq!(targets, ["/proc", "/mnt", "/usr/lib/one/deep"]);
    assert_eq!(spec["mounts"][1]["source"], "/other");
    assert_eq!(spec["mounts"][2]["options"], json!(["ro", "nosuid", "rbind"]));
    let hook = json!([{ "path": "/bin/hook", "args": ["hook", "x"], "env": [], "timeout": 5 }]);
    assert_eq!(spec["hooks"]["createContainer"], hook);
    // Who is not root could not open what is root's.
    let user = injected(&folders, &["skep.test/thing=one"], 1000).unwrap();
    assert_eq!(user["linux"]["devices"][0]["uid"], 1000);
    assert_eq!(user["linux"]["devices"][1]["uid"], 5);
}

#[test]
fn a_later_folder_goes_first_and_one_name_twice_in_a_folder_is_nobodys() {
    let json = |env: &str| {
        format!(
            r#"{{"cdiVersion":"0.6.0","kind":"skep.test/thing","devices":[{{"name":"one","containerEdits":{{"env":["{env}"]}}}}]}}"#
        )
    };
    let (first, second) = (json("A=first"), json("A=second"));
    let files = [("first/a.json", first.as_str()), ("second/a.json", second.as_str())];
    let (_dir, folders) = stage(&files);
    let env = |spec: Value| spec["process"]["env"][2].clone();
    let wanted = ["skep.test/thing=one"];
    assert_eq!(injected(&folders, &wanted, 0).map(env).unwrap(), "A=second");
    let (_dir, folders) = stage(&[files[0], ("first/b.json", &second)]);
    let refused = injected(&folders, &wanted, 0).unwrap_err();
    assert!(refused.ends_with("unresolvable CDI devices skep.test/thing=one"), "{refused}");
}

#[test]
fn what_cannot_be_given_is_refused_by_name() {
    let odd = r#"{"cdiVersion":"9","kind":"a.b/c","devices":[{"name":"x"}],"later":1}"#;
    let nodes = "kind: a.b/d\ndevices:\n- {name: x, containerEdits: {deviceNodes: [{path: /etc/passwd}]}}\n- {name: y, containerEdits: {deviceNodes: [{path: /dev/there-is-none}]}}\n- {name: z, containerEdits: {hooks: [{hookName: soon, path: /x}]}}\n";
    let unnamed = "kind: a\ndevices: [{name: x}]\n";
    let files = [
        ("first/odd.json", odd),
        ("first/nodes.yml", nodes),
        ("first/unnamed.yaml", unnamed),
        ("first/other.txt", "no file of a vendor"),
    ];
    let (dir, folders) = stage(&files);
    for (name, why) in [
        ("a.b/c=x", "unknown field `later`"),
        ("a.b/c=x", "a=x is no name of a device"),
        ("a.b/d=none", "unresolvable CDI devices a.b/d=none"),
        ("a.b/d=x", "\"/etc/passwd\" is not a device"),
        ("a.b/d=y", "failed to stat device \"/dev/there-is-none\""),
        ("a.b/d=z", "there is no hook \"soon\""),
    ] {
        let refused = injected(&folders, &[name], 0).unwrap_err();
        assert!(refused.starts_with("CDI device injection failed: "), "{refused}");
        assert!(refused.contains(why), "{name}: {refused}");
    }
    let missing = dir.path().join("missing");
    assert!(injected(&[missing], &["a.b/c=x"], 0).is_err());
}

#[test]
fn gpus_are_devices_of_their_vendors() {
    let file = |devices: &str| format!("kind: nvidia.com/gpu\ndevices: [{devices}]\n");
    let found = |devices: &str, request: DeviceRequest| {
        let text = file(devices);
        let (_dir, folders) = stage(&[("first/gpu.yaml", &text)]);
        names(&[request], &Registry::read(&folders)).map_err(|fault| fault.message)
    };
    let both = "{name: '0'}, {name: '1'}, {name: all}";
    let gpus = DeviceRequest::gpus;
    assert_eq!(found(both, gpus(-1, Vec::new())).unwrap(), ["nvidia.com/gpu=all"]);
    assert_eq!(found(both, gpus(1, Vec::new())).unwrap(), ["nvidia.com/gpu=0"]);
    assert_eq!(found(both, gpus(0, named(&["1"]))).unwrap(), ["nvidia.com/gpu=1"]);
    let each = found("{name: a}, {name: b}", gpus(-1, Vec::new())).unwrap();
    assert_eq!(each, ["nvidia.com/gpu=a", "nvidia.com/gpu=b"]);
    let cdi = DeviceRequest::cdi(named(&["v.io/c=x"]));
    assert_eq!(found(both, cdi).unwrap(), ["v.io/c=x"]);
    let of = |driver: &str| DeviceRequest { driver: driver.to_owned(), ..gpus(-1, Vec::new()) };
    assert_eq!(found(both, of("nvidia")).unwrap(), ["nvidia.com/gpu=all"]);
    let tpu = DeviceRequest { capabilities: vec![named(&["tpu"])], ..gpus(-1, Vec::new()) };
    for (devices, request, words) in [
        (both, of("amd"), "could not select device driver \"amd\" with capabilities: [[gpu]]"),
        (both, tpu, "could not select device driver \"\" with capabilities: [[tpu]]"),
        ("", of(""), "could not select device driver \"\" with capabilities: [[gpu]]"),
    ] {
        let refused = found(devices, request).unwrap_err();
        assert!(refused.starts_with(words), "{refused}");
    }
    assert!(Registry::read(&[Path::new("/nowhere").to_owned()]).files.is_empty());
}
