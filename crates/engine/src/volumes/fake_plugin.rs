//! A volume plugin in this process, for tests.

use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// Listens until the runtime of its test ends.
#[derive(Clone, Default)]
pub(crate) struct FakePlugin {
    calls: Arc<Mutex<Vec<String>>>,
}

impl FakePlugin {
    /// Answers each method, with its argument, with what `answer` says; `Null`: that it is done.
    pub(crate) fn at(
        socket: &Path,
        answer: impl Fn(&str, &Value) -> Value + Send + Sync + 'static,
    ) -> Self {
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(socket).unwrap();
        let plugin = Self::default();
        let calls = Arc::clone(&plugin.calls);
        drop(tokio_util::task::TaskTracker::new().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _served = serve(stream, &calls, &answer).await;
            }
        }));
        plugin
    }

    /// What it was asked to do with volumes so far, e.g. `Mount data`.
    pub(crate) fn calls(&self, methods: &[&str]) -> Vec<String> {
        let calls = self.calls.lock().unwrap();
        let is_one = |call: &&String| methods.iter().any(|it| call.split(' ').next() == Some(it));
        calls.iter().filter(is_one).cloned().collect()
    }
}

async fn serve(
    mut stream: UnixStream,
    calls: &Mutex<Vec<String>>,
    answer: &(impl Fn(&str, &Value) -> Value + Send + Sync),
) -> Option<()> {
    let mut text = String::new();
    let (method, body) = loop {
        let mut more = [0; 4096];
        let count = stream.read(&mut more).await.ok().filter(|count| 0 < *count)?;
        text.push_str(std::str::from_utf8(&more[..count]).ok()?);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        if let Ok(body) = serde_json::from_str::<Value>(body) {
            break (head.split(' ').nth(1)?.rsplit(['/', '.']).next()?.to_owned(), body);
        }
    };
    let name = body["Name"].as_str().unwrap_or_default();
    calls.lock().unwrap().push(format!("{method} {name}"));
    let answer = match answer(&method, &body) {
        Value::Null if method == "Activate" => json!({ "Implements": ["VolumeDriver"] }),
        Value::Null => json!({ "Err": "" }),
        other => other,
    };
    let answer = answer.to_string();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", answer.len());
    let whole = format!("{head}Connection: close\r\n\r\n{answer}");
    stream.write_all(whole.as_bytes()).await.ok()
}
