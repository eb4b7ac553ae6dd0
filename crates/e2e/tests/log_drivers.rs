//! Log drivers that send lines elsewhere: what the docker CLI asks for arrives at real receivers, stays
//! readable here, and outlives a daemon.

use e2e::{Lab, until};
use std::fmt::Write as _;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(1);
const IMAGE: &str = "busybox:latest";

#[test]
fn lines_go_where_the_log_driver_sends_them() {
    let lab = Lab::up(2, &["busybox"]);
    what_is_wrong_is_refused_at_once(&lab);
    rsyslog_gets_lines_and_docker_reads_them_again(&lab);
    a_service_sends_gelf(&lab);
    a_stack_sends_to_fluentd_also_while_no_daemon_runs(&lab);
    the_journal_and_a_daemons_own_driver(&lab);
    let left = lab.down();
    assert!(left.is_empty(), "{left:#?}");
}

fn option(name: &str, value: &str) -> [String; 2] {
    ["--log-opt".to_owned(), format!("{name}={value}")]
}

fn run(lab: &Lab, driver: &str, options: &[[String; 2]], command: &[&str]) -> e2e::Shown {
    let options = options.iter().flatten().map(String::as_str);
    let mut words = vec!["run", "--log-driver", driver];
    words.extend(options);
    words.push(IMAGE);
    words.extend(command);
    lab.docker(&words)
}

fn what_is_wrong_is_refused_at_once(lab: &Lab) {
    let wrong = |driver: &str, name: &str, value: &str| {
        run(lab, driver, &[option(name, value)], &["true"]).bad()
    };
    for (driver, name, value, text) in [
        ("syslog", "syslog-adress", "udp://1.2.3.4", "unknown log opt 'syslog-adress' for syslog"),
        ("gelf", "gelf-address", "", "gelf-address is a required parameter"),
        ("awslogs", "awslogs-region", "x", "no log driver named 'awslogs' is registered"),
        ("fluentd", "max-buffer-size", "1m", "only supported with 'mode=non-blocking'"),
    ] {
        let told = wrong(driver, name, value);
        assert!(told.contains(text), "{told}");
        let service = ["service", "create", "--detach", "--log-driver", driver];
        let given = option(name, value);
        let given = [given[0].as_str(), given[1].as_str(), IMAGE, "true"];
        let told = lab.docker(&[&service[..], &given].concat()).bad();
        assert!(told.contains(text), "{told}");
    }
    // Nobody listens there.
    let listener = TcpListener::bind((lab.address(0), 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let away = wrong("fluentd", "fluentd-address", &address.to_string());
    let refused = format!(
        "failed to initialize logging driver: dial tcp {address}: connect: connection refused"
    );
    assert!(away.contains(&refused), "{away}");
    let away = wrong("journald", "tag", "x");
    assert!(away.contains("journald is not enabled on this host"), "{away}");
}

/// A syslog server of Debian's, which ends with the test.
struct Rsyslog {
    process: Child,
    file: PathBuf,
    port: u16,
}

impl Rsyslog {
    #[expect(clippy::disallowed_methods, reason = "tests run programs")]
    fn start(lab: &Lab) -> Self {
        let folder = lab.folder().join("rsyslog");
        std::fs::create_dir_all(&folder).expect("a folder");
        let (file, address) = (folder.join("lines"), lab.address(0));
        let port =
            TcpListener::bind((address, 0)).expect("a port").local_addr().expect("it").port();
        let mut config = String::new();
        for kind in ["tcp", "udp"] {
            writeln!(config, r#"module(load="im{kind}")"#).expect("a text");
            let at = format!(r#"address="{address}" port="{port}""#);
            writeln!(config, r#"input(type="im{kind}" {at} ruleset="all")"#).expect("a text");
        }
        let line = "%syslogfacility-text% %syslogseverity-text% %programname%:%msg%\\n";
        writeln!(config, r#"template(name="line" type="string" string="{line}")"#).expect("a text");
        let action = format!(r#"action(type="omfile" file="{}" template="line")"#, file.display());
        writeln!(config, "ruleset(name=\"all\") {{ {action} }}").expect("a text");
        let path = folder.join("conf");
        std::fs::write(&path, config).expect("a file");
        let process = Command::new("rsyslogd")
            .arg("-n")
            .arg("-f")
            .arg(path)
            .arg("-i")
            .arg(folder.join("pid"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("rsyslog is installed: scripts/install.sh --tests");
        until("rsyslog listens", PATIENCE, || {
            TcpStream::connect((address, port)).map(drop).map_err(|error| error.to_string())
        });
        Self { process, file, port }
    }

    fn has(&self, words: &[&str]) {
        until("rsyslog has the line", PATIENCE, || {
            let text = std::fs::read_to_string(&self.file).unwrap_or_default();
            let has = text.lines().any(|line| words.iter().all(|word| line.contains(word)));
            if has { Ok(()) } else { Err(text) }
        });
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

fn rsyslog_gets_lines_and_docker_reads_them_again(lab: &Lab) {
    let rsyslog = Rsyslog::start(lab);
    let (address, port) = (lab.address(0), rsyslog.port);
    for (kind, format, facility) in [
        ("tcp", "rfc5424micro", "local3"),
        ("udp", "rfc3164", "user"),
        ("tcp", "rfc5424", "daemon"),
    ] {
        let words = ["sh", "-c", "echo to-$WHERE; echo bad >&2"];
        let name = format!("{kind}-{format}");
        let options = [
            option("syslog-address", &format!("{kind}://{address}:{port}")),
            option("syslog-format", format),
            option("syslog-facility", facility),
            option("tag", "tag-{{.Name}}"),
        ];
        let options: Vec<&str> = options.iter().flatten().map(String::as_str).collect();
        let where_to = format!("WHERE={name}");
        let head = ["run", "--name", &name, "--env", &where_to, "--log-driver", "syslog"];
        lab.docker(&[&head[..], &options, &[IMAGE], &words].concat()).good();
        rsyslog.has(&[facility, "info", &format!("tag-{name}"), &format!("to-{name}")]);
        rsyslog.has(&[facility, "err", &format!("tag-{name}"), "bad"]);
        let read = lab.docker(&["logs", &name]).good();
        assert!(read.contains(&format!("to-{name}")), "{read}");
        lab.docker(&["rm", &name]).good();
    }
    let options = [
        option("syslog-address", &format!("tcp://{address}:{port}")),
        option("cache-disabled", "true"),
    ];
    let options: Vec<&str> = options.iter().flatten().map(String::as_str).collect();
    let head = ["run", "--name", "uncached", "--log-driver", "syslog"];
    lab.docker(&[&head[..], &options, &[IMAGE, "echo", "uncached"]].concat()).good();
    rsyslog.has(&["uncached"]);
    let unread = lab.docker(&["logs", "uncached"]).bad();
    assert!(unread.contains("configured logging driver does not support reading"), "{unread}");
    lab.docker(&["rm", "uncached"]).good();
}

fn a_service_sends_gelf(lab: &Lab) {
    let socket = UdpSocket::bind((lab.address(0), 0)).expect("a port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let address = format!("udp://{}", socket.local_addr().expect("an address"));
    let options = [
        option("gelf-address", &address),
        option("gelf-compression-type", "none"),
        option("labels", "com.docker.swarm.service.name"),
        option("env-regex", "^ZONE"),
    ];
    let options: Vec<&str> = options.iter().flatten().map(String::as_str).collect();
    let head = ["service", "create", "--detach", "--name", "grey", "--env=ZONE_A=north"];
    let image = ["--log-driver=gelf", IMAGE, "sh", "-c", "echo a-line; sleep 1000000"];
    lab.docker(&[&head[..], &options, &image].concat()).good();
    let mut bytes = vec![0; 64 << 10];
    let count = socket.recv(&mut bytes).expect("a message");
    let message: serde_json::Value = serde_json::from_slice(&bytes[..count]).expect("JSON");
    assert_eq!(message["short_message"], "a-line");
    assert_eq!(message["_com.docker.swarm.service.name"], "grey");
    assert_eq!(message["_ZONE_A"], "north");
    assert_eq!(message["level"], 6);
    assert!(message["_container_name"].as_str().is_some_and(|name| name.starts_with("grey.1.")));
    until("the service's log is read", PATIENCE, || {
        let read = lab.docker(&["service", "logs", "--raw", "grey"]);
        if read.out.contains("a-line") { Ok(()) } else { Err(read.out + &read.err) }
    });
    // The options of another driver do not hold for this one.
    let update = ["service", "update", "--detach", "--log-driver", "local", "grey"];
    lab.docker(&update).good();
    lab.update_ends("grey", "completed", PATIENCE);
    let shown = lab.service("grey", "{{json .Spec.TaskTemplate.LogDriver}}");
    assert_eq!(shown.trim(), r#"{"Name":"local"}"#);
    lab.docker(&["service", "rm", "grey"]).good();
}

/// What comes by any connection to it.
#[derive(Clone)]
struct Receiver {
    address: String,
    received: Arc<Mutex<Vec<u8>>>,
}

impl Receiver {
    /// It listens until the test ends.
    fn start(address: Ipv4Addr) -> Self {
        let listener = TcpListener::bind((address, 0)).expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let received = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&received);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let all = Arc::clone(&all);
                std::thread::spawn(move || take(stream, &all));
            }
        });
        Self { address, received }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.received.lock().expect("it is not poisoned")).into_owned()
    }

    fn gets(&self, words: &str) {
        until(words, PATIENCE, || {
            let text = self.text();
            if text.contains(words) { Ok(()) } else { Err(text) }
        });
    }
}

fn take(mut stream: TcpStream, all: &Mutex<Vec<u8>>) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        all.lock().expect("it is not poisoned").extend(&bytes[..count]);
    }
}

fn a_stack_sends_to_fluentd_also_while_no_daemon_runs(lab: &Lab) {
    let receiver = Receiver::start(lab.address(0));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("stack.yml");
    let text = format!(
        r#"version: "3.8"
services:
  app:
    image: {IMAGE}
    command: ["sh", "-c", "i=0; while :; do echo count-$$i.; i=$$((i+1)); sleep 0.05; done"]
    deploy: {{placement: {{constraints: [node.hostname == node-2]}}}}
    logging:
      driver: fluentd
      options:
        fluentd-address: "{}"
        fluentd-sub-second-precision: "true"
        tag: "skep.{{{{.Name}}}}"
"#,
        receiver.address
    );
    std::fs::write(&file, text).expect("a file");
    let file = file.display().to_string();
    lab.docker(&["stack", "deploy", "--detach=true", "--compose-file", &file, "st"]).good();
    receiver.gets("count-20.");
    assert!(receiver.text().contains("skep.st_app.1."));
    let count = || {
        let (text, mut number) = (receiver.text(), 0);
        while text.contains(&format!("count-{number}.")) {
            number += 1;
        }
        number
    };
    lab.lab(&["kill", "node-2"]).good();
    let before = count();
    // What the container writes meanwhile is put aside.
    until("the container goes on", PATIENCE, || {
        let aside = lab.folder().join("run/node-2/containers");
        let folders = std::fs::read_dir(aside).expect("its folder").flatten();
        let size = |folder: std::fs::DirEntry| {
            folder.path().join("stdout.aside").metadata().map_or(0, |file| file.len())
        };
        let size = folders.map(size).max().unwrap_or_default();
        if 200 < size { Ok(()) } else { Err(format!("{size} bytes are put aside")) }
    });
    lab.lab(&["start", "node-2"]).good();
    receiver.gets(&format!("count-{}.", before + 60));
    let text = receiver.text();
    for number in 0..before + 60 {
        assert!(text.contains(&format!("count-{number}.")), "line {number} is lost");
    }
    lab.docker(&["stack", "rm", "st"]).good();
    until("its tasks are gone", PATIENCE, || {
        let left = lab.containers(2, "st_app");
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

fn the_journal_and_a_daemons_own_driver(lab: &Lab) {
    let path = lab.folder().join("journal");
    let journal = UnixDatagram::bind(&path).expect("a socket");
    journal.set_read_timeout(Some(PATIENCE)).expect("a limit");
    lab.lab(&["kill", "node-2"]).good();
    let socket = path.display().to_string();
    let start = ["start", "node-2", "--", "--journal-socket", &socket, "--log-driver=journald"];
    lab.lab(&[&start[..], &["--log-opt", "tag=own-{{.Name}}"]].concat()).good();
    let driver = lab.docker_at(2, &["info", "--format", "{{.LoggingDriver}}"]).good();
    assert_eq!(driver.trim(), "journald");
    lab.docker_at(2, &["run", "--name", "told", IMAGE, "echo", "for the journal"]).good();
    let mut bytes = vec![0; 64 << 10];
    let count = journal.recv(&mut bytes).expect("an entry");
    let entry = String::from_utf8_lossy(&bytes[..count]).into_owned();
    for field in [
        "PRIORITY=6\n",
        "MESSAGE=for the journal\n",
        "CONTAINER_NAME=told\n",
        "SYSLOG_IDENTIFIER=own-told\n",
    ] {
        assert!(entry.contains(field), "{entry}");
    }
    let config = ["inspect", "--format", "{{json .HostConfig.LogConfig}}", "told"];
    let config = lab.docker_at(2, &config).good();
    assert_eq!(config.trim(), r#"{"Type":"journald","Config":{"tag":"own-{{.Name}}"}}"#);
    assert_eq!(lab.docker_at(2, &["logs", "told"]).good(), "for the journal\n");
    lab.docker_at(2, &["rm", "told"]).good();
}
