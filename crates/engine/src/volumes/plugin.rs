//! Drivers of volumes that are programs of others: Docker's plugin protocol over unix sockets.
//!
//! A plugin is found where Docker finds it: `NAME.sock`, or a file `NAME.spec` or `NAME.json` that
//! says where its socket is, in folders that the daemon is told. It may hang, die, or answer
//! anything: every call has a time limit, every answer a size limit, and no lock is held meanwhile.

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use types::{Fault, Labels};

/// For a call that says or finds something, and for one that does something.
const ASK_MAX: Duration = Duration::from_secs(5);
const DO_MAX: Duration = Duration::from_secs(30);
/// Bytes of an answer, and of a file that says where a plugin is.
const ANSWER_MAX: usize = 4 << 20;
const SPEC_MAX: u64 = 64 << 10;
/// Names of drivers, volumes and the like.
const NAME_MAX: usize = 255;
/// What a plugin says of itself where it is one for volumes.
const DRIVER: &str = "VolumeDriver";
const VERSION: &str = "application/vnd.docker.plugins.v1.2+json";

/// The folders that plugins are found in.
#[derive(Clone, Debug)]
pub(crate) struct Plugins {
    folders: Vec<PathBuf>,
}

/// A plugin that is there; nothing is known of it but its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plugin {
    name: String,
    socket: PathBuf,
    limits: (Duration, Duration),
}

/// Why a plugin did not mount a volume.
#[derive(Debug)]
pub(crate) struct NotMounted {
    pub(crate) fault: Fault,
    /// Otherwise it may have mounted it all the same.
    pub(crate) is_sure: bool,
}

/// A volume as a plugin tells it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct PluginVolume {
    pub(crate) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) mountpoint: String,
    pub(crate) status: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Answer {
    #[serde(deserialize_with = "or_default")]
    err: String,
    #[serde(deserialize_with = "or_default")]
    implements: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    mountpoint: String,
    volume: Option<PluginVolume>,
    #[serde(deserialize_with = "or_default")]
    volumes: Vec<PluginVolume>,
    capabilities: Option<Capabilities>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Capabilities {
    scope: String,
}

/// Go's programs write `null` for what they leave out.
fn or_default<'de, D, T>(value: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + DeserializeOwned,
{
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

impl Plugins {
    pub(crate) fn new(folders: Vec<PathBuf>) -> Self {
        Self { folders }
    }

    /// Says whether there can be none.
    pub(crate) fn is_empty(&self) -> bool {
        self.folders.is_empty()
    }

    /// The plugin of this name, wherever it is found first. Waits for the disk.
    pub(crate) fn find(&self, name: &str) -> Result<Plugin, Fault> {
        let name = name.strip_suffix(":latest").unwrap_or(name);
        let missing = || {
            Fault::not_found(format!(
                "error looking up volume plugin {name}: plugin \"{name}\" not found"
            ))
        };
        if name.is_empty() || NAME_MAX < name.len() || name.contains(['/', '\0']) || name == ".." {
            return Err(missing());
        }
        let socket = self.folders.iter().find_map(|folder| socket_in(folder, name).transpose());
        let socket = socket.ok_or_else(missing)?.map_err(|why| {
            Fault::invalid(format!("error looking up volume plugin {name}: {why}"))
        })?;
        Ok(Plugin { name: name.to_owned(), socket, limits: (ASK_MAX, DO_MAX) })
    }

    /// All that are there, also those that are no drivers of volumes.
    fn all(&self) -> Vec<Plugin> {
        let mut names = BTreeSet::new();
        for folder in &self.folders {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let ends = [".sock", ".spec", ".json"];
                let file = entry.file_name().into_string().unwrap_or_default();
                let stem = ends.iter().find_map(|end| file.strip_suffix(end));
                let name = stem.map_or_else(|| path.is_dir().then_some(file.as_str()), Some);
                names.extend(name.map(str::to_owned));
            }
        }
        names.iter().filter_map(|name| self.find(name).ok()).collect()
    }

    /// The drivers of volumes among them, each asked at the same time.
    pub(crate) async fn drivers(&self) -> Vec<Plugin> {
        let own = self.clone();
        let all = tokio::task::spawn_blocking(move || own.all()).await.unwrap_or_default();
        let asked = all.into_iter().map(|plugin| async move {
            let activated = plugin.activate().await;
            if let Err(fault) = &activated {
                tracing::debug!(plugin = plugin.name, %fault, "a plugin is not used");
            }
            activated.is_ok().then_some(plugin)
        });
        futures_util::future::join_all(asked).await.into_iter().flatten().collect()
    }
}

/// Where the socket of a plugin is; an error says why nobody can reach it.
fn socket_in(folder: &Path, name: &str) -> Result<Option<PathBuf>, String> {
    for place in [folder.to_owned(), folder.join(name)] {
        let socket = place.join(format!("{name}.sock"));
        if socket.exists() {
            return Ok(Some(socket));
        }
    }
    for place in [folder.to_owned(), folder.join(name)] {
        let read = |end: &str| text(&place.join(format!("{name}.{end}")));
        if let Some(address) = read("spec") {
            return at(address.trim()).map(Some);
        }
        if let Some(json) = read("json") {
            let json: Value = serde_json::from_str(&json).map_err(|error| error.to_string())?;
            return at(json["Addr"].as_str().unwrap_or_default()).map(Some);
        }
    }
    Ok(None)
}

fn text(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut text = String::new();
    fs::File::open(path).ok()?.take(SPEC_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

fn at(address: &str) -> Result<PathBuf, String> {
    match address.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(path.into()),
        _ => Err(format!("its address is \"{address}\": only unix:///PATH is supported by skep")),
    }
}

impl Plugin {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Asks what it is; an error where it is no driver of volumes.
    pub(crate) async fn activate(&self) -> Result<(), Fault> {
        let answer = self.call("Plugin.Activate", json!({}), self.limits.0).await?;
        if answer.implements.iter().any(|it| it == DRIVER) {
            return Ok(());
        }
        let name = &self.name;
        Err(Fault::invalid(format!("plugin \"{name}\" does not implement \"volumedriver\"")))
    }

    pub(crate) async fn create(&self, volume: &str, options: &Labels) -> Result<(), Fault> {
        self.activate().await?;
        let request = json!({ "Name": volume, "Opts": options });
        self.call("VolumeDriver.Create", request, self.limits.1).await.map(drop)
    }

    pub(crate) async fn remove(&self, volume: &str) -> Result<(), Fault> {
        let request = json!({ "Name": volume });
        self.call("VolumeDriver.Remove", request, self.limits.1).await.map(drop)
    }

    /// Where the volume is on this node from now on, for this user of it.
    pub(crate) async fn mount(&self, volume: &str, user: &str) -> Result<PathBuf, NotMounted> {
        const METHOD: &str = "VolumeDriver.Mount";
        let sure = |fault| NotMounted { fault, is_sure: true };
        let unsure = |fault| NotMounted { fault, is_sure: false };
        self.activate().await.map_err(sure)?;
        let request = json!({ "Name": volume, "ID": user });
        let answer = self.ask(METHOD, request, self.limits.1).await.map_err(unsure)?;
        let answer = self.unless_refused(METHOD, answer).map_err(sure)?;
        let path = PathBuf::from(answer.mountpoint);
        if path.is_absolute() {
            return Ok(path);
        }
        let (name, path) = (&self.name, path.display());
        Err(unsure(Fault::internal(format!(
            "plugin \"{name}\" mounted the volume at \"{path}\", which is no absolute path"
        ))))
    }

    pub(crate) async fn unmount(&self, volume: &str, user: &str) -> Result<(), Fault> {
        let request = json!({ "Name": volume, "ID": user });
        self.call("VolumeDriver.Unmount", request, self.limits.1).await.map(drop)
    }

    pub(crate) async fn get(&self, volume: &str) -> Result<PluginVolume, Fault> {
        let request = json!({ "Name": volume });
        let answer = self.call("VolumeDriver.Get", request, self.limits.0).await?;
        let missing = || Fault::not_found(format!("get {volume}: no such volume"));
        answer.volume.filter(|found| found.name == volume).ok_or_else(missing)
    }

    pub(crate) async fn list(&self) -> Result<Vec<PluginVolume>, Fault> {
        Ok(self.call("VolumeDriver.List", json!({}), self.limits.0).await?.volumes)
    }

    /// Says whether its volumes are the same on all nodes. One that does not say is of this node.
    pub(crate) async fn is_global(&self) -> bool {
        let answer = self.call("VolumeDriver.Capabilities", json!({}), self.limits.0).await;
        let scope = answer.ok().and_then(|it| it.capabilities).unwrap_or_default().scope;
        scope.eq_ignore_ascii_case("global")
    }

    async fn call(
        &self,
        method: &str,
        request: impl Serialize,
        limit: Duration,
    ) -> Result<Answer, Fault> {
        let answer = self.ask(method, request, limit).await?;
        self.unless_refused(method, answer)
    }

    fn unless_refused(&self, method: &str, answer: Answer) -> Result<Answer, Fault> {
        if answer.err.is_empty() {
            return Ok(answer);
        }
        Err(self.failed(method, &cut(&answer.err)))
    }

    fn failed(&self, method: &str, why: &str) -> Fault {
        Fault::internal(format!("plugin \"{}\": {method}: {why}", self.name))
    }

    /// Asks; the answer may be that it refuses.
    async fn ask(
        &self,
        method: &str,
        request: impl Serialize,
        limit: Duration,
    ) -> Result<Answer, Fault> {
        let failed = |why: String| self.failed(method, &why);
        let body = serde_json::to_vec(&request).map_err(|error| failed(error.to_string()))?;
        let answered = tokio::time::timeout(limit, self.exchange(method, body)).await;
        let (status, bytes) = answered
            .map_err(|_elapsed| failed(format!("no answer within {limit:?}")))?
            .map_err(failed)?;
        let parsed: Result<Answer, _> = serde_json::from_slice(&bytes);
        match parsed {
            Ok(answer) if status.is_success() || !answer.err.is_empty() => Ok(answer),
            Ok(_) | Err(_) if !status.is_success() => {
                Err(failed(format!("{status}: {}", cut(&String::from_utf8_lossy(&bytes)))))
            }
            Ok(answer) => Ok(answer),
            Err(error) => Err(failed(format!("it does not answer in the protocol: {error}"))),
        }
    }

    async fn exchange(&self, method: &str, body: Vec<u8>) -> Result<(StatusCode, Vec<u8>), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| format!("cannot connect to {}: {error}", self.socket.display()))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| text(&error))?;
        let request = Request::post(format!("/{method}"))
            .header("Host", "plugin")
            .header("Accept", VERSION)
            .header("Content-Type", VERSION)
            .body(Full::new(bytes::Bytes::from(body)))
            .map_err(|error| text(&error))?;
        let answer = async {
            let answer = sender.send_request(request).await.map_err(|error| text(&error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
            let body = body.map_err(|error| text(&error))?;
            Ok((status, body.to_bytes().to_vec()))
        };
        // The connection is carried on as long as somebody waits for its answer.
        let mut connection = std::pin::pin!(connection);
        let mut answer = std::pin::pin!(answer);
        let mut is_open = true;
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                _ended = &mut connection, if is_open => is_open = false,
            }
        }
    }
}

/// What others write into a message is cut.
fn cut(text: &str) -> String {
    const TEXT_MAX: usize = 1000;
    text.trim().chars().take(TEXT_MAX).collect()
}

/// Asks several plugins for all their volumes; one that does not answer has none.
pub(crate) async fn volumes_of(plugins: &[Plugin]) -> BTreeMap<String, Vec<PluginVolume>> {
    let asked = plugins.iter().map(|plugin| async move {
        let listed = plugin.list().await;
        if let Err(fault) = &listed {
            tracing::warn!(%fault, "the volumes of a plugin are not listed");
        }
        (plugin.name.clone(), listed.unwrap_or_default())
    });
    futures_util::future::join_all(asked).await.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    #[test]
    fn plugins_are_found_where_docker_finds_them() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        for folder in [&one, &two, &one.join("deep")] {
            fs::create_dir(folder).unwrap();
        }
        fs::write(one.join("plain.sock"), "").unwrap();
        fs::write(one.join("deep/deep.sock"), "").unwrap();
        fs::write(two.join("plain.spec"), "unix:///other.sock").unwrap();
        fs::write(two.join("said.spec"), "unix:///said.sock\n").unwrap();
        fs::write(two.join("json.json"), r#"{"Name":"json","Addr":"unix:///json.sock"}"#).unwrap();
        fs::write(two.join("far.spec"), "tcp://192.0.2.1:80").unwrap();
        fs::write(two.join("bad.json"), "{").unwrap();
        let plugins = Plugins::new(vec![one.clone(), dir.path().join("none"), two]);
        let socket = |name: &str| plugins.find(name).map(|plugin| plugin.socket);
        assert_eq!(socket("plain"), Ok(one.join("plain.sock")));
        assert_eq!(socket("plain:latest"), Ok(one.join("plain.sock")));
        assert_eq!(socket("deep"), Ok(one.join("deep/deep.sock")));
        assert_eq!(socket("said"), Ok("/said.sock".into()));
        assert_eq!(socket("json"), Ok("/json.sock".into()));
        for (name, said) in [
            ("far", "its address is \"tcp://192.0.2.1:80\": only unix:///PATH is supported"),
            ("bad", "error looking up volume plugin bad: "),
            ("none", "plugin \"none\" not found"),
            ("", "not found"),
            ("../one/plain", "not found"),
            ("..", "not found"),
        ] {
            let refused = socket(name).unwrap_err();
            assert!(refused.message.contains(said), "{name}: {refused}");
        }
        let all: Vec<String> = plugins.all().into_iter().map(|plugin| plugin.name).collect();
        assert_eq!(all, ["deep", "json", "plain", "said"]);
    }

    /// A plugin that answers everything with this, and never where that is empty.
    fn answering(answer: &'static str) -> (tempfile::TempDir, Plugin) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("odd.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        drop(tokio_util::task::TaskTracker::new().spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _asked = stream.read(&mut [0; 4096]).await;
                if answer.is_empty() {
                    let _gone = stream.read(&mut [0; 4096]).await;
                }
                let _written = stream.write_all(answer.as_bytes()).await;
            }
        }));
        let limits = (Duration::from_millis(300), Duration::from_millis(300));
        (dir, Plugin { name: "odd".to_owned(), socket, limits })
    }

    #[tokio::test]
    async fn a_plugin_that_answers_oddly_is_named_with_what_it_was_asked() {
        for (answer, said) in [
            ("", "plugin \"odd\": VolumeDriver.Get: no answer within 300ms"),
            ("nonsense\r\n\r\n", "plugin \"odd\": VolumeDriver.Get: "),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n7", "does not answer in the protocol"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "VolumeDriver.Get: "),
            ("HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\nfull", "500 Internal Server Error: full"),
            ("HTTP/1.1 404 No\r\nContent-Length: 14\r\n\r\n{\"Err\":\"never\"}", "404"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"Err\":\"never\"}", "Get: never"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"Err\":null}", "no such volume"),
        ] {
            let (_dir, plugin) = answering(answer);
            let refused = plugin.get("data").await.unwrap_err();
            assert!(refused.message.contains(said), "{answer:?}: {refused}");
        }
        let (_dir, plugin) =
            answering("HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\n{\"Implements\":[\"Other\"]}");
        let refused = plugin.activate().await.unwrap_err();
        assert!(refused.message.contains("does not implement \"volumedriver\""), "{refused}");
        assert!(!plugin.is_global().await);
    }
}
