//! What lines become, and that they arrive, or are counted.

use super::courier::{Parts, keep_unsent, take_unsent};
use super::*;
use crate::config::LogConfig;
use bytes::Bytes;
use flate2::read::GzDecoder;
use std::io::Read;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixDatagram};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::{Labels, Timestamp};

fn options(driver: &str, options: &[(&str, &str)]) -> Options {
    let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Options::parse(&LogConfig { driver: driver.to_owned(), options }).unwrap()
}

fn source() -> Source {
    Source {
        id: "0123456789abcdef".to_owned(),
        name: "web.1".to_owned(),
        image: "web:1".to_owned(),
        image_id: "sha256:ff".to_owned(),
        created: "2023-11-14T00:00:00Z".to_owned(),
        command: "serve --all".to_owned(),
        tag: "the-tag".to_owned(),
        host: "machine".to_owned(),
        attributes: Labels::from([("com.example.tier".to_owned(), "front".to_owned())]),
    }
}

fn entry(text: &str, stderr: bool) -> LogEntry {
    let time = Timestamp(1_700_000_000_123_456_789);
    LogEntry { stderr, time, bytes: Bytes::copy_from_slice(text.as_bytes()) }
}

fn bytes(driver: &str, given: &[(&str, &str)], entry: &LogEntry) -> Vec<Vec<u8>> {
    let protocol = options(driver, given).protocol.unwrap();
    protocol.message(&source(), (entry, None), 7).pieces
}

fn syslog(given: &[(&str, &str)], entry: &LogEntry) -> String {
    let pieces = bytes("syslog", given, entry);
    let text = String::from_utf8(pieces.concat()).unwrap();
    text.replace(&std::process::id().to_string(), "PID")
}

#[test]
fn a_line_becomes_what_each_format_of_syslog_says() {
    let (line, error) = (entry("a line\n", false), entry("bad\n", true));
    let unix = "<30>Nov 14 22:13:20 the-tag[PID]: a line\n";
    assert_eq!(syslog(&[], &line), unix);
    let facility = [("syslog-facility", "local7"), ("syslog-format", "rfc3164")];
    let rfc3164 = "<187>Nov 14 22:13:20 machine the-tag[PID]: bad\n";
    assert_eq!(syslog(&facility, &error), rfc3164);
    let rfc5424 = "<30>1 2023-11-14T22:13:20Z machine the-tag PID the-tag - a line\n";
    assert_eq!(syslog(&[("syslog-format", "rfc5424")], &line), rfc5424);
    let micro = [("syslog-format", "rfc5424micro"), ("syslog-facility", "1")];
    let rfc5424 = "<14>1 2023-11-14T22:13:20.123456Z machine the-tag PID the-tag - a line\n";
    assert_eq!(syslog(&micro, &line), rfc5424);
    let tls = [("syslog-format", "rfc5424"), ("syslog-address", "tcp+tls://a:1")];
    let framed = syslog(&tls, &line);
    let (length, message) = framed.split_once(' ').unwrap();
    let pid = std::process::id().to_string();
    assert_eq!(length.parse(), Ok(message.replace("PID", &pid).len()), "{framed}");
    assert!(bytes("syslog", &[], &entry("\n", false)).is_empty(), "an empty line is not sent");
}

#[test]
fn a_line_becomes_a_gelf_message_in_chunks_where_it_is_long() {
    let tcp = bytes("gelf", &[("gelf-address", "tcp://a:1")], &entry("bad\n", true)).concat();
    let json: serde_json::Value = serde_json::from_slice(tcp.strip_suffix(b"\0").unwrap()).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "version": "1.1", "host": "machine", "short_message": "bad",
            "timestamp": 1_700_000_000.123, "level": 3, "_command": "serve --all",
            "_container_id": "0123456789abcdef", "_container_name": "web.1",
            "_created": "2023-11-14T00:00:00Z", "_image_id": "sha256:ff", "_image_name": "web:1",
            "_tag": "the-tag", "_com.example.tier": "front",
        })
    );
    let udp = [("gelf-address", "udp://a:1")];
    let zipped = bytes("gelf", &udp, &entry("fine\n", false)).concat();
    let mut text = String::new();
    GzDecoder::new(&zipped[..]).read_to_string(&mut text).unwrap();
    assert!(text.contains(r#""short_message":"fine""#) && text.contains(r#""level":6"#), "{text}");
    let plain = [("gelf-address", "udp://a:1"), ("gelf-compression-type", "none")];
    let long = "x".repeat(16 << 10);
    let chunks = bytes("gelf", &plain, &entry(&long, false));
    assert!(chunks.iter().all(|chunk| chunk.len() <= 1420 && chunk.starts_with(&[0x1e, 0x0f])));
    let count = chunks.len();
    for (number, chunk) in chunks.iter().enumerate() {
        assert_eq!(&chunk[2..10], &chunks[0][2..10]);
        assert_eq!((usize::from(chunk[10]), usize::from(chunk[11])), (number, count));
    }
    let whole: Vec<u8> = chunks.iter().flat_map(|chunk| chunk[12..].to_vec()).collect();
    assert!(serde_json::from_slice::<serde_json::Value>(&whole).unwrap()["short_message"] == long);
}

#[test]
fn a_line_becomes_an_event_of_fluentd() {
    let event = bytes("fluentd", &[], &entry("a line\n", false)).concat();
    let mut expected = vec![0x94, 0xa7];
    expected.extend(b"the-tag");
    expected.extend([0xce, 0x65, 0x53, 0xf1, 0x00, 0x85]);
    for (name, value) in [
        ("container_id", "0123456789abcdef"),
        ("container_name", "/web.1"),
        ("source", "stdout"),
        ("log", "a line"),
        ("com.example.tier", "front"),
    ] {
        rmp::encode::write_str(&mut expected, name).unwrap();
        rmp::encode::write_str(&mut expected, value).unwrap();
    }
    expected.push(0x80);
    assert_eq!(event, expected);
    let precise = [("fluentd-sub-second-precision", "true")];
    let event = bytes("fluentd", &precise, &entry("a line\n", false)).concat();
    assert_eq!(&event[9..19], [0xd7, 0, 0x65, 0x53, 0xf1, 0, 0x07, 0x5b, 0xcd, 0x15]);
}

#[test]
fn a_line_becomes_an_entry_of_the_journal() {
    let datagram = bytes("journald", &[], &entry("a line\n", true)).concat();
    let text = String::from_utf8(datagram).unwrap();
    let expected = "PRIORITY=3\nMESSAGE=a line\nCOM_EXAMPLE_TIER=front\nCONTAINER_ID=0123456789ab\n\
        CONTAINER_ID_FULL=0123456789abcdef\nCONTAINER_NAME=web.1\nCONTAINER_TAG=the-tag\n\
        IMAGE_NAME=web:1\nSYSLOG_IDENTIFIER=the-tag\n\
        SYSLOG_TIMESTAMP=2023-11-14T22:13:20.123456789Z\nCONTAINER_LOG_ORDINAL=7\n";
    assert_eq!(text, expected);
    // A value of several lines says how long it is.
    let mut several = source();
    several.attributes = Labels::from([("_0x".to_owned(), "a\nb".to_owned())]);
    let datagram = journald::datagram(&several, (&entry("\n", false), None), 1);
    let binary = [b"X\n".as_slice(), &3_u64.to_le_bytes(), b"a\nb\n"].concat();
    assert!(datagram.windows(binary.len()).any(|window| window == binary));
}

#[test]
fn pieces_of_a_long_line_are_numbered() {
    let mut parts = Parts::default();
    let long = "x".repeat(16 << 10);
    let mut next = |text: &str, stderr| parts.next(&entry(text, stderr), 1);
    assert_eq!(next("short\n", false), None);
    let first = next(&long, false).unwrap();
    assert_eq!((first.ordinal, first.last), (1, false));
    assert_eq!(next("of the other stream\n", true), None);
    let last = next("end\n", false).unwrap();
    assert_eq!((last.id, last.ordinal, last.last), (first.id, 2, true));
    assert_eq!(next("short\n", false), None);
}

/// A remote driver of a container whose folder this is.
fn remote(driver: &str, given: &[(&str, &str)], folder: &Path) -> Arc<Remote> {
    let paths = (folder, folder.join("journal"));
    Arc::new(Remote::new(&options(driver, given), source(), (paths.0, &paths.1)).unwrap())
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    String::from_utf8(read_event(stream, end.as_bytes()).await).unwrap()
}

fn lines(range: std::ops::Range<u32>) -> Vec<LogEntry> {
    range.map(|number| entry(&format!("line-{number}\n"), false)).collect()
}

#[tokio::test]
async fn a_receiver_that_comes_back_gets_the_lines_that_follow() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let remote = remote("syslog", &[("syslog-address", &format!("tcp://{address}"))], dir.path());
    let link = remote.connect().await.unwrap();
    let (mut first, _) = listener.accept().await.unwrap();
    let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let courier = remote.courier(link, &tracker, shutdown);
    courier.take(lines(0..2), std::future::pending()).await;
    let text = read_until(&mut first, "line-1\n").await;
    assert_eq!(text.lines().count(), 2, "{text}");
    drop(first);
    courier.take(lines(2..3), std::future::pending()).await;
    let (mut second, _) = listener.accept().await.unwrap();
    assert!(read_until(&mut second, "\n").await.ends_with("line-2\n"));
    drop(courier);
    tracker.close();
    tracker.wait().await;
    assert!(!dir.path().join("unsent.log").exists());
}

#[tokio::test]
async fn the_end_of_a_receiver_that_has_said_something_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let remote = remote("syslog", &[("syslog-address", &format!("tcp://{address}"))], dir.path());
    let link = remote.connect().await.unwrap();
    let (mut first, _) = listener.accept().await.unwrap();
    let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let courier = remote.courier(link, &tracker, shutdown);
    first.write_all(b"a greeting, longer than what is read at once").await.unwrap();
    courier.take(lines(0..1), std::future::pending()).await;
    assert!(read_until(&mut first, "\n").await.ends_with("line-0\n"));
    first.write_all(b"a farewell").await.unwrap();
    drop(first);
    courier.take(lines(1..2), std::future::pending()).await;
    let (mut second, _) = tokio::time::timeout(Duration::from_secs(10), listener.accept())
        .await
        .expect("the line went into a connection that has ended")
        .unwrap();
    assert!(read_until(&mut second, "\n").await.ends_with("line-1\n"));
}

/// A receiver with TLS 1.3, which sends tickets after the handshake that nobody asks for.
fn tls_receiver() -> tokio_rustls::TlsAcceptor {
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key.into())
        .unwrap();
    Arc::new(config).into()
}

#[tokio::test]
async fn the_end_of_a_receiver_with_tls_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp+tls://{}", listener.local_addr().unwrap());
    let given = [("syslog-address", address.as_str()), ("syslog-tls-skip-verify", "true")];
    let (remote, receiver) = (remote("syslog", &given, dir.path()), tls_receiver());
    let accept = async || {
        let (stream, _) = listener.accept().await.unwrap();
        receiver.accept(stream).await.unwrap()
    };
    let read_line = async |stream: &mut tokio_rustls::server::TlsStream<TcpStream>| {
        let mut text = String::new();
        while !text.ends_with('\n') {
            text.push(stream.read_u8().await.unwrap().into());
        }
        text
    };
    let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let courier = remote.courier(None, &tracker, shutdown);
    courier.take(lines(0..1), std::future::pending()).await;
    let mut first = accept().await;
    assert!(read_line(&mut first).await.ends_with("line-0\n"));
    drop(first);
    courier.take(lines(1..2), std::future::pending()).await;
    let mut second = tokio::time::timeout(Duration::from_secs(10), accept())
        .await
        .expect("the line went into a connection that has ended");
    assert!(read_line(&mut second).await.ends_with("line-1\n"));
}

#[test]
fn a_pause_is_never_nothing() {
    let pause =
        |driver, given: &[(&str, &str)]| options(driver, given).protocol.unwrap().patience().pause;
    let fluentd = |value| pause("fluentd", &[("fluentd-retry-wait", value)]);
    assert_eq!(fluentd("0"), Duration::from_secs(1), "as fluentd's own client");
    assert_eq!(fluentd("1ns"), Duration::from_millis(10));
    assert_eq!(fluentd("2s"), Duration::from_secs(2));
    let gelf = [("gelf-address", "tcp://a:1"), ("gelf-tcp-reconnect-delay", "0")];
    assert_eq!(pause("gelf", &gelf), Duration::from_millis(10));
}

#[test]
fn what_is_put_aside_is_bounded_and_the_oldest_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("unsent.log");
    // A disk that was full.
    std::fs::write(&path, "{\"log\":\"ha").unwrap();
    assert_eq!(keep_unsent(&path, &lines(0..3), 1 << 20).unwrap(), 0);
    assert_eq!(take_unsent(&path), lines(0..3), "half a line takes no other with it");
    let lost = keep_unsent(&path, &lines(0..1000), 4096).unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() <= 4096);
    let more = keep_unsent(&path, &lines(1000..2000), 4096).unwrap();
    assert_eq!(more, 1000, "there is no place left");
    let kept = take_unsent(&path);
    assert!(!kept.is_empty() && !path.exists());
    assert_eq!(kept, lines(lost..1000));
}

#[tokio::test]
async fn whoever_is_not_there_lets_no_container_start_unless_it_is_asynchronous() {
    let dir = tempfile::tempdir().unwrap();
    // A port that nobody listens on.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let away = |driver, name, value: &str| {
        let remote = remote(driver, &[(name, value)], dir.path());
        async move { remote.connect().await.unwrap_err().message }
    };
    let refused = format!("dial tcp {address}: connect: connection refused");
    let message = away("fluentd", "fluentd-address", &address).await;
    assert_eq!(message, format!("failed to initialize logging driver: {refused}"));
    let message = away("syslog", "syslog-address", &format!("tcp://{address}")).await;
    assert_eq!(message, format!("failed to initialize logging driver: {refused}"));
    let message = away("gelf", "gelf-address", &format!("tcp://{address}")).await;
    let endpoint = "failed to initialize logging driver: gelf: cannot connect to GELF endpoint";
    assert_eq!(message, format!("{endpoint}: {refused}"));
    let message = away("syslog", "syslog-address", "unix:///nowhere/log").await;
    assert!(message.ends_with("dial unix /nowhere/log: connect: no such file or directory"));
    let message = away("journald", "cache-disabled", "false").await;
    let journald = "failed to initialize logging driver: journald is not enabled on this host";
    assert_eq!(message, journald);
    let given = [("fluentd-address", address.as_str()), ("fluentd-async", "true")];
    assert!(remote("fluentd", &given, dir.path()).connect().await.unwrap().is_none());
    let datagrams = [("syslog-address", format!("udp://{address}"))];
    let datagrams = datagrams.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert!(remote("syslog", &datagrams, dir.path()).connect().await.unwrap().is_some());
}

#[tokio::test]
async fn datagrams_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let mut buffer = vec![0; 4096];
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = format!("udp://{}", socket.local_addr().unwrap());
    let syslog = remote("syslog", &[("syslog-address", &address)], dir.path());
    let courier = syslog.courier(None, &tracker, shutdown.clone());
    courier.take(lines(0..1), std::future::pending()).await;
    let count = socket.recv(&mut buffer).await.unwrap();
    assert!(buffer[..count].ends_with(b"line-0\n"));
    let journal = UnixDatagram::bind(dir.path().join("journal")).unwrap();
    let journald = remote("journald", &[], dir.path());
    let link = journald.connect().await.unwrap();
    let courier = journald.courier(link, &tracker, shutdown);
    courier.take(lines(0..1), std::future::pending()).await;
    let count = journal.recv(&mut buffer).await.unwrap();
    assert!(String::from_utf8_lossy(&buffer[..count]).contains("\nMESSAGE=line-0\n"));
}

#[tokio::test]
async fn an_event_is_sent_again_until_it_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let given = [
        ("fluentd-address", address.as_str()),
        ("fluentd-request-ack", "true"),
        ("fluentd-retry-wait", "1ms"),
    ];
    let remote = remote("fluentd", &given, dir.path());
    let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let courier = remote.courier(None, &tracker, shutdown);
    courier.take(lines(0..1), std::future::pending()).await;
    // `chunk` is the last word of an event.
    let chunk = b"0123456789abcdef-1";
    let (mut first, _) = listener.accept().await.unwrap();
    read_event(&mut first, chunk).await;
    drop(first);
    let (mut second, _) = listener.accept().await.unwrap();
    read_event(&mut second, chunk).await;
    let mut answer = vec![0x81, 0xa3];
    answer.extend(b"ack");
    rmp::encode::write_str(&mut answer, "0123456789abcdef-1").unwrap();
    second.write_all(&answer).await.unwrap();
    drop(courier);
    let mut rest = Vec::new();
    second.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty(), "it is not sent once more");
    tracker.close();
    tracker.wait().await;
}

async fn read_event(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end) {
        bytes.push(stream.read_u8().await.unwrap());
    }
    bytes
}

#[tokio::test]
async fn what_a_daemon_has_not_sent_the_next_one_sends_first() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let given = [("fluentd-address", address.as_str()), ("fluentd-retry-wait", "1ms")];
    let remote = remote("fluentd", &given, dir.path());
    let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let courier = remote.courier(None, &tracker, shutdown.clone());
    // It has no receiver, and the container waits for it, until the daemon ends.
    let many = lines(0..4000);
    let taking = courier.take(many, shutdown.cancelled());
    tokio::join!(taking, async { shutdown.cancel() });
    drop(courier);
    tracker.close();
    tracker.wait().await;
    let listener = TcpListener::bind(&address).await.unwrap();
    let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let courier = remote.courier(None, &tracker, shutdown);
    courier.take(lines(4000..4001), std::future::pending()).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    drop(courier);
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    let text = String::from_utf8_lossy(&received);
    let mut at = 0;
    for number in 0..=4000 {
        let found = text[at..].find(&format!("line-{number}"));
        at += found.unwrap_or_else(|| panic!("line {number} is lost or out of turn"));
    }
    assert!(!dir.path().join("unsent.log").exists());
}

#[tokio::test]
async fn the_last_lines_of_a_container_that_has_ended_are_sent_by_the_next_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let remote = remote("fluentd", &[("fluentd-address", &address)], dir.path());
    let tracker = TaskTracker::new();
    remote.send_unsent(&tracker, CancellationToken::new()).await;
    assert!(tracker.is_empty(), "there is nothing to send");
    assert_eq!(keep_unsent(&dir.path().join("unsent.log"), &lines(0..3), 4096).unwrap(), 0);
    remote.send_unsent(&tracker, CancellationToken::new()).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    let text = String::from_utf8_lossy(&received);
    assert!((0..3).all(|number| text.contains(&format!("line-{number}"))), "{text}");
    tracker.close();
    tracker.wait().await;
    assert!(!dir.path().join("unsent.log").exists());
}

#[tokio::test]
async fn who_does_not_wait_loses_what_there_is_no_place_for() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let given = [
        ("fluentd-address", address.as_str()),
        ("fluentd-async", "true"),
        ("fluentd-buffer-limit", "10"),
        ("fluentd-retry-wait", "1ms"),
    ];
    let remote = remote("fluentd", &given, dir.path());
    let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let courier = remote.courier(None, &tracker, shutdown);
    // Nothing else runs on this thread before it waits.
    courier.take(lines(0..25), std::future::pending()).await;
    assert_eq!(courier.dropped(), 15);
    let (mut stream, _) = listener.accept().await.unwrap();
    drop(courier);
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    let count = received.windows(5).filter(|window| window == b"line-").count();
    assert_eq!(count, 10);
}
