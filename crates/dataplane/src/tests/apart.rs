//! A name server that is a process of its own: daemons come and go, and it comes and goes itself.

use super::client::{exchange, lookup, query};
use super::{Host, PACE, Place, Program, Wanted, addresses, knowledge, namespaces, until};
use crate::handle::News;
use crate::names::{Names, Process};
use crate::port::Namespaces as _;
use discovery::{Here, OrdMap, OrdSet, Sandbox};
use domain::base::Rtype;
use scope::Scope;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// A container on `net`, where the task t2 serves.
async fn container() -> (Host, u16) {
    let host = Host::new(Place::Apart).await;
    host.identify().await;
    host.learn(knowledge(&[("t2", 111, true)]), 1).await;
    let port = host.attach("c1", None, 11).await.dns_port;
    (host, port)
}

async fn answers(port: u16) -> bool {
    exchange(port, &query("web", Rtype::A).finish()).await.is_some()
}

/// Connects as a daemon does, and reads what the server says first.
async fn connected(host: &Host) -> UnixStream {
    let mut stream = UnixStream::connect(&host.program.socket).await.unwrap();
    for _ in ["hello", "held"] {
        let len = stream.read_u32().await.unwrap();
        let mut message = vec![0; len.try_into().unwrap()];
        stream.read_exact(&mut message).await.unwrap();
    }
    stream
}

/// Waits until the server has closed a connection.
async fn is_closed(mut stream: UnixStream) {
    let mut rest = Vec::new();
    let closed = stream.read_to_end(&mut rest);
    // Reset, if it did not read all that we wrote.
    drop(tokio::time::timeout(PACE.patience, closed).await.expect("closed in time"));
}

#[tokio::test]
async fn a_test_finds_every_port_free() {
    // Somebody else's, on this machine.
    let theirs = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let host = Host::new(Place::Apart).await;
    let port = theirs.local_addr().unwrap().port();
    std::net::UdpSocket::bind(("127.0.0.1", port)).unwrap();
    host.dataplane.sandboxes().await.unwrap();
}

#[tokio::test]
async fn names_are_answered_while_no_daemon_runs() {
    let (mut host, port) = container().await;
    host.stop().await;
    assert_eq!(lookup(port, "tasks.web").await, addresses(&[111]));
    host.restart().await;
    assert_eq!(host.program.starts(), 1);
    host.learn(knowledge(&[("t3", 112, true)]), 1).await;
    assert_eq!(lookup(port, "tasks.web").await, addresses(&[112]));
    // The new daemon closes what the old one has opened.
    host.dataplane.detach("c1").await.unwrap();
    assert!(!answers(port).await);
}

#[tokio::test]
async fn a_killed_name_server_comes_back_at_the_same_port_with_the_same_names() {
    let (host, port) = container().await;
    let rules = host.kernel.held();
    for starts in 2..5 {
        host.program.kill().await;
        until(starts, async || host.program.starts()).await;
        until(true, async || answers(port).await).await;
        assert_eq!(lookup(port, "tasks.web").await, addresses(&[111]));
    }
    assert_eq!(host.kernel.held(), rules);
    host.dataplane.detach("c1").await.unwrap();
}

#[tokio::test]
async fn a_name_server_at_another_port_is_found_by_the_rules() {
    let (host, port) = container().await;
    host.program.kill().await;
    // Somebody in the container takes the port meanwhile.
    let mut thief = tokio::net::UdpSocket::bind(("127.0.0.1", port)).await;
    while thief.is_err() {
        tokio::task::yield_now().await;
        thief = tokio::net::UdpSocket::bind(("127.0.0.1", port)).await;
    }
    let port_in_rules = async || host.kernel.held().sandboxes["c1"].dns_port;
    until(true, async || port_in_rules().await != port).await;
    assert_eq!(lookup(port_in_rules().await, "tasks.web").await, addresses(&[111]));
    let known = host.dataplane.sandboxes().await.unwrap()["c1"].dns_port;
    assert_eq!(known, port_in_rules().await);
}

#[tokio::test]
async fn the_last_daemon_to_connect_is_heard_alone() {
    let (mut host, port) = container().await;
    host.stop().await;
    let first = connected(&host).await;
    let second = connected(&host).await;
    is_closed(first).await;
    host.restart().await;
    is_closed(second).await;
    host.learn(knowledge(&[("t3", 112, true)]), 2).await;
    assert_eq!(lookup(port, "tasks.web").await, addresses(&[112]));
    assert_eq!(host.program.starts(), 1);
}

#[tokio::test]
async fn what_is_no_message_is_refused_and_changes_nothing() {
    let (mut host, port) = container().await;
    host.stop().await;
    for garbage in [&b"\xff\xff\xff\xff"[..], b"\0\0\0\x01\xc1", b"\0\0\0\x02\x93\x01\x02"] {
        let mut stream = connected(&host).await;
        stream.write_all(garbage).await.unwrap();
        is_closed(stream).await;
        assert_eq!(lookup(port, "tasks.web").await, addresses(&[111]));
    }
    host.restart().await;
    host.learn(knowledge(&[("t3", 112, true)]), 2).await;
    assert_eq!(lookup(port, "tasks.web").await, addresses(&[112]));
    assert_eq!(host.program.starts(), 1);
}

#[tokio::test]
async fn a_name_server_of_another_version_is_replaced() {
    let (mut host, port) = container().await;
    host.stop().await;
    host.program.kill().await;
    drop(std::fs::remove_file(&host.program.socket));
    let listener = tokio::net::UnixListener::bind(&host.program.socket).unwrap();
    let mut scope = Scope::new();
    scope.spawn("an old version", async move {
        loop {
            let (mut stream, _) = listener.accept().await?;
            stream.write_all(b"\0\0\0\x04\xa3old").await?;
        }
        #[expect(unreachable_code, reason = "the type of the loop's error")]
        Ok::<(), io::Error>(())
    });
    host.restart().await;
    assert_eq!(host.program.starts(), 2);
    assert_eq!(lookup(port, "tasks.web").await, addresses(&[111]));
}

#[tokio::test]
async fn a_port_that_is_noted_needs_no_new_state() {
    let dir = tempfile::tempdir().unwrap();
    let namespaces = namespaces();
    let mut scope = Scope::new();
    let mut names = Names::here(namespaces.clone(), &dir.path().join("none"), &mut scope).await;
    let netns = dir.path().join("c1");
    namespaces.create(&netns).await.unwrap();
    let sandbox = Sandbox {
        task: None,
        netns: netns.display().to_string(),
        gateway_addresses: [172, 30, 0, 2].into(),
        attachments: Vec::new(),
        dns_port: 0,
        host_ports: Vec::new(),
        nameservers: Vec::new(),
    };
    let mut here = Here {
        node: "n1".into(),
        address: [192, 168, 0, 1].into(),
        data_path_port: 4789,
        sandboxes: OrdMap::unit("c1".to_owned(), sandbox),
        hidden: OrdSet::new(),
    };
    let known = discovery::Knowledge::default();
    names.publish(known.clone(), here.clone());
    let held = names.hold(PACE.patience).await.unwrap();
    here.sandboxes.get_mut("c1").unwrap().dns_port = held.ports["c1"];
    names.note(&here);
    assert!(names.is_published(&known, &here));
    assert_eq!(names.held(), Some(held));
}

/// Cannot be started.
struct Broken;

impl Process for Broken {
    async fn renew(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
}

#[tokio::test]
async fn without_a_name_server_the_kernel_is_served_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = crate::fake::Kernel::default();
    let mut scope = Scope::new();
    let program = Program::new(dir.path(), &namespaces());
    let names = Names::at(program.socket.clone(), Broken, &mut scope);
    let ports = (kernel.clone(), program.namespaces.clone(), names);
    let dataplane =
        crate::handle::start_at(super::config(&dir), ports, &mut scope, PACE).await.unwrap();
    dataplane.learn(News::Whole(knowledge(&[])), 7).await.unwrap();
    dataplane.applied().wait_for(|applied| *applied == 7).await.unwrap();
    let failed = dataplane.attach("c1", Wanted::default()).await;
    assert!(matches!(failed, Err(crate::error::Error::Resolver { .. })), "{failed:?}");
    until(true, async || kernel.held().sandboxes.is_empty()).await;
}
