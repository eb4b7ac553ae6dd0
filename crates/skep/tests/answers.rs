//! What `skep` does with what a daemon answers: a daemon that knows little stands in for one.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

/// What was asked for, `METHOD PATH`, in its order.
type Asked = Arc<Mutex<Vec<String>>>;

/// Answers each request with what `answer` says to its method and path.
fn daemon(
    socket: &Path,
    mut answer: impl FnMut(&str) -> (&'static str, String) + Send + 'static,
) -> Asked {
    let listener = UnixListener::bind(socket).expect("a socket");
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.expect("a connection"));
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert!(stream.read_line(&mut head).expect("a request") > 0);
            }
            let lower = head.to_ascii_lowercase();
            let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: u64 = length.map_or(0, |length| length.parse().expect("a length"));
            let mut body = Vec::new();
            (&mut stream).take(length).read_to_end(&mut body).expect("a body");
            let words: Vec<&str> = head.split(' ').take(2).collect();
            let request = words.join(" ");
            let (status, text) = answer(&request);
            seen.lock().expect("nobody panicked").push(request);
            let length = text.len();
            let told = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{text}");
            stream.get_mut().write_all(told.as_bytes()).expect("the client listens");
        }
    });
    asked
}

#[expect(clippy::disallowed_methods, reason = "tests run programs")]
fn skep(socket: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skep"));
    command.args(arguments).args(["-H", &format!("unix://{}", socket.display())]);
    command.output().expect("the program starts")
}

fn told(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A service of one task, or of as many as there are nodes.
fn service(name: &str) -> String {
    let mode =
        if name == "all" { r#"{"Global": {}}"# } else { r#"{"Replicated": {"Replicas": 1}}"# };
    format!(
        r#"{{"ID": "{name}-id", "Version": {{"Index": 7}}, "Spec": {{"Name": "{name}", "Mode": {mode},
            "TaskTemplate": {{"ContainerSpec": {{"Image": "busybox"}}}}}}}}"#
    )
}

/// Knows the services `web`, `api` and `all`.
fn three_services(request: &str) -> (&'static str, String) {
    let (method, path) = request.split_once(' ').expect("two words");
    let path = path.split('?').next().unwrap_or_default();
    match (method, path.strip_prefix("/services/")) {
        ("GET", Some(name @ ("web" | "api" | "all"))) => ("200 OK", service(name)),
        ("POST", Some("web-id/update" | "api-id/update")) => ("200 OK", "{}".to_owned()),
        (_, Some(name)) => {
            ("404 Not Found", format!(r#"{{"message": "service {name} not found"}}"#))
        }
        (_, None) => ("200 OK", "[]".to_owned()),
    }
}

#[test]
fn a_name_that_is_wrong_keeps_nothing_from_the_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("docker.sock");
    let asked = daemon(&socket, three_services);
    let has_asked = |part: &str| {
        asked.lock().expect("nobody panicked").iter().any(|request| request.contains(part))
    };

    let scales = ["service", "scale", "--detach", "nosuch=1", "web=2", "all=3", "web=x", "api=4"];
    let output = skep(&socket, &scales);
    assert_eq!(told(&output.stdout), "web scaled to 2\napi scaled to 4\n");
    let wrong = told(&output.stderr);
    for reason in [
        "nosuch: Error response from daemon: service nosuch not found",
        "all: scale can only be used with replicated or replicated-job mode",
        "web: invalid replicas value x",
    ] {
        assert!(wrong.contains(reason), "{reason}: {wrong}");
    }
    assert!(!output.status.success() && has_asked("POST /services/api-id/update?version=7"));

    let output = skep(&socket, &["service", "ps", "nosuch", "web", "api"]);
    assert!(told(&output.stdout).starts_with("ID "), "{output:?}");
    assert!(told(&output.stderr).contains("service nosuch not found"), "{output:?}");
    assert!(!output.status.success() && has_asked("GET /tasks?filters="));

    let output = skep(&socket, &["service", "inspect", "nosuch", "--format", "{{.ID}}", "web"]);
    assert_eq!(told(&output.stdout), "web-id\n");
    assert!(told(&output.stderr).contains("service nosuch not found") && !output.status.success());

    let output = skep(&socket, &["service", "ps", "nosuch"]);
    assert!(output.stdout.is_empty() && !output.status.success(), "{output:?}");

    let count = asked.lock().expect("nobody panicked").len();
    let output = skep(&socket, &["service", "scale", "web=2", "api"]);
    assert!(told(&output.stderr).contains("invalid scale specifier 'api'"), "{output:?}");
    assert_eq!(asked.lock().expect("nobody panicked").len(), count, "nothing is begun");
}

/// A daemon knows tasks whose service is gone by their label alone.
#[test]
fn a_stack_is_removed_once_its_tasks_have_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("docker.sock");
    let mut states = ["running", "running", "shutdown"].into_iter();
    let asked = daemon(&socket, move |request| {
        let is_of_stack = request.contains("com.docker.stack.namespace");
        match request.split_once('?').map_or(request, |(path, _)| path) {
            "GET /services" => ("200 OK", format!("[{}]", service("web"))),
            "DELETE /services/web-id" => ("200 OK", String::new()),
            "GET /tasks" if is_of_stack => {
                let state = states.next().expect("nobody asks for what has ended");
                ("200 OK", format!(r#"[{{"ID": "t", "Status": {{"State": "{state}"}}}}]"#))
            }
            "GET /tasks" => {
                ("404 Not Found", r#"{"message": "service web-id not found"}"#.to_owned())
            }
            _ => ("200 OK", "[]".to_owned()),
        }
    });
    let output = skep(&socket, &["stack", "rm", "--detach=false", "shop"]);
    assert!(output.status.success(), "{output:?}");
    let asked = asked.lock().expect("nobody panicked");
    assert_eq!(asked.iter().filter(|request| request.starts_with("GET /tasks")).count(), 3);
}
