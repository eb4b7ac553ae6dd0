//! Volume plugins: a small one of the test's own, on one node of two.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use e2e::{Lab, until};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(1);

/// What a plugin has and does, shared with its thread.
#[derive(Default)]
struct State {
    folder: PathBuf,
    volumes: BTreeSet<String>,
    /// How many users each volume has, as plugins count that unmount at zero: more ends of uses than
    /// beginnings are below it, for good.
    users: BTreeMap<String, i64>,
    /// What every call but the first is answered with instead.
    instead: Option<String>,
    /// No call is answered.
    hangs: bool,
}

/// A driver of volumes that are folders of its own.
struct Plugin(Arc<Mutex<State>>);

impl Plugin {
    /// Listens at a socket until the test ends.
    fn at(socket: &Path, folder: PathBuf) -> Self {
        fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(socket).unwrap();
        let state = Arc::new(Mutex::new(State { folder, ..State::default() }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self(state)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }
}

/// Answers one request.
fn serve(mut stream: UnixStream, state: &Mutex<State>) -> Option<()> {
    let mut bytes = Vec::new();
    let (path, body) = loop {
        let mut more = [0; 4096];
        let count = stream.read(&mut more).ok().filter(|count| 0 < *count)?;
        bytes.extend_from_slice(&more[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        if length.unwrap_or(0) <= body.len() {
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            break (path, serde_json::from_str::<Value>(body).unwrap_or_default());
        }
    };
    let (is_first, hangs) = (path == "/Plugin.Activate", state.lock().unwrap().hangs);
    if hangs && !is_first {
        // Until the other side gives up.
        return stream.read(&mut [0; 1]).ok().map(drop);
    }
    let instead = state.lock().unwrap().instead.clone().filter(|_| !is_first);
    let answer =
        instead.unwrap_or_else(|| answer(&path, &body, &mut state.lock().unwrap()).to_string());
    let length = answer.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{answer}"
    )
    .ok()
}

fn answer(path: &str, body: &Value, state: &mut State) -> Value {
    let name = body["Name"].as_str().unwrap_or_default().to_owned();
    let place = state.folder.join(&name);
    let volume = |name: &str, place: &Path| json!({ "Name": name, "Mountpoint": place, "Status": {"made": "here"} });
    match path {
        "/Plugin.Activate" => json!({ "Implements": ["VolumeDriver"] }),
        "/VolumeDriver.Capabilities" => json!({ "Capabilities": { "Scope": "global" } }),
        "/VolumeDriver.Create" if body["Opts"]["fail"] == "yes" => {
            json!({ "Err": "no more flocks" })
        }
        "/VolumeDriver.Create" => {
            fs::create_dir_all(&place).unwrap();
            state.volumes.insert(name);
            json!({ "Err": "" })
        }
        "/VolumeDriver.Remove" => {
            state.volumes.remove(&name);
            json!({ "Err": null })
        }
        "/VolumeDriver.Mount" => {
            *state.users.entry(name).or_default() += 1;
            json!({ "Mountpoint": place, "Err": "" })
        }
        "/VolumeDriver.Unmount" => {
            *state.users.entry(name).or_default() -= 1;
            json!({ "Err": "" })
        }
        "/VolumeDriver.Get" if state.volumes.contains(&name) => {
            json!({ "Volume": volume(&name, &place), "Err": "" })
        }
        "/VolumeDriver.List" => {
            let all = state.volumes.iter().map(|name| volume(name, &state.folder.join(name)));
            json!({ "Volumes": all.collect::<Vec<_>>(), "Err": "" })
        }
        _ => json!({ "Err": "no such volume" }),
    }
}

#[test]
fn volumes_of_plugins_are_where_their_driver_is() {
    let lab = Lab::with_managers(2, 1, &["busybox"]);
    let create = ["volume", "create", "--driver", "flock"];
    let refused = lab.docker(&[&create[..], &["early"]].concat()).bad();
    assert!(refused.contains("plugin \"flock\" not found"), "{refused}");
    let mount = "type=volume,src=wool,dst=/d,volume-driver=flock,volume-opt=k=v";
    let service = ["service", "create", "--detach", "--name", "web", "--replicas", "2"];
    let rest = ["--mount", mount, "busybox:latest", "sleep", "100000"];
    lab.docker(&[&service[..], &rest].concat()).good();
    until("it waits for the driver", LIMIT, || {
        let told =
            lab.docker(&["service", "ps", "--no-trunc", "--format", "{{.Error}}", "web"]).good();
        let is_told = told.contains("no suitable node (missing plugin on 2 nodes)")
            && told.contains("node-2: the volume driver flock is missing");
        if is_told { Ok(()) } else { Err(told) }
    });

    let socket = lab.folder().join("run/node-2/plugins/flock.sock");
    let plugin = Plugin::at(&socket, lab.folder().join("flock"));
    lab.converged("web", "2/2", LIMIT);
    let containers = lab.containers(2, "web");
    assert!(containers.iter().all(|(node, _)| *node == 2), "{containers:?}");
    lab.inside(&containers[0], "echo text > /d/file").good();
    assert_eq!(lab.inside(&containers[1], "cat /d/file").good(), "text\n");
    assert_eq!(fs::read_to_string(lab.folder().join("flock/wool/file")).unwrap(), "text\n");
    let users = |count: i64| BTreeMap::from([("wool".to_owned(), count)]);
    assert_eq!(plugin.change(|state| state.users.clone()), users(2));
    let format = "{{range .Description.Engine.Plugins}}{{.Type}}/{{.Name}} {{end}}";
    let told = lab.docker(&["node", "inspect", "--format", format, "node-2"]).good();
    assert!(told.contains("Volume/flock") && told.contains("Volume/local"), "{told}");
    let told = lab.docker_at(2, &["info", "--format", "{{json .Plugins.Volume}}"]).good();
    assert_eq!(told.trim(), r#"["local","flock"]"#);
    lab.docker(&["service", "rm", "web"]).good();
    until("all are unmounted", LIMIT, || match plugin.change(|state| state.users.clone()) {
        none if none == users(0) => Ok(()),
        some => Err(format!("{some:?}")),
    });
    let of_web = ["ps", "-aq", "--filter", "label=com.docker.swarm.service.name=web"];
    until("its containers are gone", LIMIT, || match lab.docker_at(2, &of_web).good() {
        none if none.is_empty() => Ok(()),
        some => Err(some),
    });
    assert_eq!(plugin.change(|state| state.users.clone()), users(0), "each was told once");
    // One that never starts has no use of it.
    lab.docker_at(2, &["create", "--name", "idle", "-v", "wool:/d", "busybox:latest"]).good();
    lab.docker_at(2, &["rm", "idle"]).good();
    assert_eq!(plugin.change(|state| state.users.clone()), users(0));

    volumes_are_made_and_shown(&lab, &plugin);
    one_that_fails_holds_nobody_up(&lab, &plugin);
    // It dies.
    fs::remove_file(&socket).unwrap();
    let refused = lab.docker_at(2, &[&create[..], &["late"]].concat()).bad();
    assert!(refused.contains("plugin \"flock\" not found"), "{refused}");
    until("the cluster hears of it", LIMIT, || {
        let told = lab.docker(&["node", "inspect", "--format", format, "node-2"]).good();
        if told.contains("flock") { Err(told) } else { Ok(()) }
    });
}

/// By hand, on the node that has the driver.
fn volumes_are_made_and_shown(lab: &Lab, plugin: &Plugin) {
    let create = ["volume", "create", "--driver", "flock"];
    let docker = |arguments: &[&str]| lab.docker_at(2, arguments);
    let shown = |volume: &str| -> Value {
        let told = docker(&["volume", "inspect", "--format", "{{json .}}", volume]).good();
        serde_json::from_str(&told).unwrap()
    };
    let wool = shown("wool");
    assert_eq!((wool["Driver"].as_str(), wool["Scope"].as_str()), (Some("flock"), Some("global")));
    assert_eq!(wool["Status"]["made"], "here");
    assert_eq!(wool["Options"]["k"], "v");
    let refused = docker(&["volume", "create", "--driver", "local", "wool"]).bad();
    assert!(refused.contains("driver 'flock' already has volume 'wool'"), "{refused}");
    let refused = docker(&[&create[..], &["--opt", "fail=yes", "other"]].concat()).bad();
    assert!(refused.contains("VolumeDriver.Create: no more flocks"), "{refused}");
    // What only the plugin knows is found, too.
    plugin.change(|state| state.volumes.insert("strange".to_owned()));
    let listed = docker(&["volume", "ls", "--filter", "driver=flock", "--quiet"]).good();
    assert_eq!(listed, "strange\nwool\n");
    assert_eq!(shown("strange")["Driver"], "flock");
}

/// Whether it answers nonsense or hangs.
fn one_that_fails_holds_nobody_up(lab: &Lab, plugin: &Plugin) {
    let docker = |arguments: &[&str]| lab.docker_at(2, arguments);
    let huge = format!("{{\"Err\": \"{}\"}}", "x".repeat(5 << 20));
    for (instead, said) in [
        ("nonsense", "does not answer in the protocol"),
        (r#"{"Mountpoint": 7}"#, "does not answer in the protocol"),
        (r#"{"Mountpoint": "relative"}"#, "which is no absolute path"),
        (huge.as_str(), "length limit exceeded"),
    ] {
        plugin.change(|state| state.instead = Some(instead.to_owned()));
        let refused = docker(&["run", "--rm", "-v", "wool:/d", "busybox:latest", "true"]).bad();
        assert!(refused.contains(said), "{said}: {refused}");
    }
    plugin.change(|state| (state.instead, state.hangs) = (None, true));
    let refused = docker(&["run", "--rm", "-v", "wool:/d", "busybox:latest", "true"]).bad();
    assert!(refused.contains("VolumeDriver.Mount: no answer within 30s"), "{refused}");
    docker(&["run", "--rm", "-v", "other:/d", "busybox:latest", "true"]).good();
    plugin.change(|state| state.hangs = false);
    docker(&["volume", "rm", "wool"]).good();
    assert_eq!(
        plugin.change(|state| state.volumes.clone()),
        BTreeSet::from(["strange".to_owned()])
    );
}
