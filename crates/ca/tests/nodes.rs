//! A manager, its nodes and strangers, over real connections.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use ca::{Authority, Identity, JoinToken, Peer, Secrets, tls};
use scope::{BoxError, Scope};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_stream::StreamExt;
use tonic::{Response, Status};
use types::{Availability, Cluster, Fault, FaultKind, NodeRole, RootCa, Timestamp};
use wire::{
    Done, EnrollReply, EnrollRequest, IssueReply, IssueRequest, LeaveRequest, Membership,
    NumberRequest, Release, RootReply, RootRequest, fault_of, membership_client, membership_server,
    status_of,
};

const DAY: Duration = Duration::from_hours(24);

#[expect(clippy::disallowed_methods, reason = "certificates are checked against the real clock")]
fn now() -> Timestamp {
    Timestamp(0).after(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap())
}

fn identity(root: &RootCa, node: &str, role: NodeRole, valid_for: Duration) -> Identity {
    let request = Identity::generate().unwrap();
    let certificate = sign(root, request.csr(), node, role, valid_for);
    request.accept(&certificate, &root.certificate).unwrap()
}

/// Signs as if it were a little earlier: what is valid for no time has expired.
fn sign(root: &RootCa, csr: &str, node: &str, role: NodeRole, valid_for: Duration) -> String {
    let authority = Authority::load(root).unwrap();
    let earlier = Timestamp(now().0 - 10_000_000_000);
    let peer = Peer { node: node.into(), role, cluster: "cluster1".into() };
    authority.sign(csr, &peer, valid_for, earlier).unwrap()
}

/// Issues certificates, and tells callers who they are.
struct Member {
    root: RootCa,
    token: String,
    role: Arc<Mutex<NodeRole>>,
    requests: Arc<AtomicU32>,
    release: Arc<Mutex<Release>>,
}

#[tonic::async_trait]
impl Membership for Member {
    async fn root(
        &self,
        request: tonic::Request<RootRequest>,
    ) -> Result<Response<RootReply>, Status> {
        assert!(ca::remote(&request).unwrap().ip().is_loopback());
        let who = format!("{:?}", ca::peer(&request).map(|peer| (peer.node, peer.role)));
        Ok(Response::new(RootReply { release: self.release.lock().unwrap().clone(), root: who }))
    }

    async fn issue(
        &self,
        request: tonic::Request<IssueRequest>,
    ) -> Result<Response<IssueReply>, Status> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let peer = ca::peer(&request);
        let IssueRequest { token, csr, availability, .. } = request.into_inner();
        let role = *self.role.lock().unwrap();
        let node = match peer {
            Some(Peer { node, .. }) if token.is_empty() => node,
            Some(_) | None => {
                let given = JoinToken::parse(&token).map_err(|error| status_of(error.into()))?;
                // A change that may yet be made.
                if availability == Availability::Pause {
                    return Err(status_of(Fault::unavailable("the disk is slow")));
                }
                if !given.matches(&JoinToken::parse(&self.token).unwrap()) {
                    return Err(status_of(Fault::forbidden(ca::TOKEN_REFUSED)));
                }
                "joined".into()
            }
        };
        let certificate = sign(&self.root, &csr, node.as_str(), role, DAY);
        let root = self.root.certificate.clone();
        Ok(Response::new(IssueReply { node, role, certificate, root }))
    }

    async fn enroll(
        &self,
        request: tonic::Request<EnrollRequest>,
    ) -> Result<Response<EnrollReply>, Status> {
        if self.requests.fetch_add(1, Ordering::Relaxed) == 0 {
            return Err(status_of(Fault::unavailable("another manager leads")));
        }
        assert_eq!(request.into_inner().address, "192.168.0.1:2377");
        Ok(Response::new(EnrollReply { release: Release::own(), raft_id: 7 }))
    }

    async fn number(
        &self,
        request: tonic::Request<NumberRequest>,
    ) -> Result<Response<EnrollReply>, Status> {
        let NumberRequest { raft_id, address, .. } = request.into_inner();
        assert_eq!(address, "192.168.0.1:2377");
        let raft_id = if raft_id == 7 { 7 } else { 0 };
        Ok(Response::new(EnrollReply { release: Release::own(), raft_id }))
    }

    async fn leave(&self, request: tonic::Request<LeaveRequest>) -> Result<Response<Done>, Status> {
        match ca::peer(&request) {
            Some(_) => Ok(Response::new(Done {})),
            None => Err(status_of(Fault::forbidden("strangers cannot leave"))),
        }
    }
}

/// A manager that serves on loopback.
struct Manager {
    root: RootCa,
    token: String,
    address: SocketAddr,
    role: Arc<Mutex<NodeRole>>,
    /// How many certificates it was asked for.
    requests: Arc<AtomicU32>,
    release: Arc<Mutex<Release>>,
    identity: Identity,
    connections: ca::Connections,
    _scope: Scope,
}

async fn manager() -> Manager {
    manager_with(NodeRole::Manager, DAY).await
}

async fn manager_with(own_role: NodeRole, valid_for: Duration) -> Manager {
    let root = Authority::create(now()).unwrap();
    let token = JoinToken::draw(&root).unwrap().render();
    let identity = identity(&root, "manager1", own_role, valid_for);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let role = Arc::new(Mutex::new(NodeRole::Worker));
    let requests = Arc::new(AtomicU32::new(0));
    let release = Arc::new(Mutex::new(Release::own()));
    let membership = Member {
        root: root.clone(),
        token: token.clone(),
        role: Arc::clone(&role),
        requests: Arc::clone(&requests),
        release: Arc::clone(&release),
    };
    let mut scope = Scope::new();
    let (acceptor, accepted) = ca::accept(listener, &identity, scope.token()).unwrap();
    let ca::Accepted { nodes, strangers, connections, .. } = accepted;
    scope.spawn("acceptor", acceptor);
    scope.spawn("server", async move {
        let server = tonic::transport::Server::builder().add_service(membership_server(membership));
        let arrivals = nodes.merge(strangers);
        server.serve_with_incoming(arrivals).await.map_err(BoxError::from)
    });
    Manager { root, token, address, role, requests, release, identity, connections, _scope: scope }
}

impl Manager {
    fn address(&self) -> String {
        self.address.to_string()
    }

    /// Who the manager takes `identity` for.
    async fn sees(&self, identity: &Identity) -> Result<String, Fault> {
        let channel = ca::connect(&self.address(), tls::client_config(identity)?).await?;
        let reply =
            membership_client(channel).root(RootRequest::default()).await.map_err(fault_of)?;
        Ok(reply.into_inner().root)
    }
}

#[tokio::test]
async fn a_machine_joins_with_a_token_and_is_known_from_then_on() {
    let manager = manager().await;
    let worker =
        ca::join(&[manager.address()], &manager.token, Availability::Active).await.unwrap();
    assert_eq!(worker.node_id().as_str(), "joined");
    assert_eq!(worker.role(), NodeRole::Worker);
    assert_eq!(worker.cluster().as_str(), "cluster1");
    let left = worker.expires_at().since(now());
    assert!(left + Duration::from_mins(1) > DAY && left <= DAY, "{left:?}");
    assert_eq!(manager.sees(&worker).await.unwrap(), r#"Some((NodeId("joined"), Worker))"#);
}

#[tokio::test]
async fn a_token_that_is_not_the_clusters_is_refused() {
    let manager = manager().await;
    let wrong_secret = JoinToken::draw(&manager.root).unwrap().render();
    let fault =
        ca::join(&[manager.address()], &wrong_secret, Availability::Active).await.unwrap_err();
    assert_eq!(fault, Fault::forbidden("a valid join token is necessary to join this cluster"));

    let other = Authority::create(now()).unwrap();
    let other = JoinToken::draw(&other).unwrap();
    let fault =
        ca::join(&[manager.address()], &other.render(), Availability::Active).await.unwrap_err();
    let text = format!("remote CA does not match fingerprint. Expected: {}", other.digest());
    assert_eq!(fault, Fault::invalid(text));

    let fault =
        ca::join(&[manager.address()], "SWMTKN-1-abc", Availability::Active).await.unwrap_err();
    assert_eq!(fault, Fault::invalid("invalid join token"));
}

/// A request that has arrived may have made a node: a second one would make another.
#[tokio::test]
async fn a_join_is_asked_for_once() {
    let manager = manager().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = listener.local_addr().unwrap().to_string();
    drop(listener);
    let managers = [nobody, manager.address(), manager.address()];
    let fault = ca::join(&managers, &manager.token, Availability::Pause).await.unwrap_err();
    assert_eq!(fault, Fault::unavailable("the disk is slow"));
    assert_eq!(manager.requests.load(Ordering::Relaxed), 1);
    ca::join(&managers, &manager.token, Availability::Active).await.unwrap();
    assert_eq!(manager.requests.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn managers_are_asked_for_a_part_in_the_log_until_one_leads() {
    let manager = manager().await;
    let node = identity(&manager.root, "n", NodeRole::Manager, DAY);
    let address = "192.168.0.1:2377";
    let managers = [manager.address(), manager.address()];
    assert_eq!(ca::enroll(&managers, &node, address).await, Ok(7));
    assert_eq!(manager.requests.load(Ordering::Relaxed), 2);
}

/// It is not even asked for a certificate: it would make a node.
#[tokio::test]
async fn a_machine_does_not_join_managers_of_a_former_release() {
    let manager = manager().await;
    *manager.release.lock().unwrap() = Release::default();
    let fault = ca::join(&[manager.address()], &manager.token, Availability::Active).await;
    let fault = fault.unwrap_err();
    assert!(fault.message.contains("update the managers first"), "{fault}");
    assert_eq!(manager.requests.load(Ordering::Relaxed), 0);
}

/// What a stranger may do, the one who serves the call says.
#[tokio::test]
async fn a_stranger_is_let_in_as_a_stranger() {
    let manager = manager().await;
    let digest = ca::root_digest(&manager.root.certificate).unwrap();
    let config = tls::bootstrap_client_config(&digest).unwrap();
    let channel = ca::connect(&manager.address(), config).await.unwrap();
    let mut client = membership_client(channel);
    assert_eq!(client.root(RootRequest::default()).await.unwrap().into_inner().root, "None");
    let refused = client.leave(LeaveRequest::default()).await.unwrap_err();
    assert_eq!(fault_of(refused), Fault::forbidden("strangers cannot leave"));
}

#[tokio::test]
async fn certificates_of_another_cluster_are_not_taken_on_either_side() {
    let manager = manager().await;
    let other = Authority::create(now()).unwrap();
    let own = identity(&manager.root, "worker1", NodeRole::Worker, DAY);
    let foreign = identity(&other, "worker1", NodeRole::Worker, DAY);
    let fault = manager.sees(&foreign).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Invalid, "{fault}");
    assert!(fault.message.contains("is not trusted"), "{fault}");

    let request = Identity::generate().unwrap();
    let certificate = sign(&other, request.csr(), "evil", NodeRole::Manager, DAY);
    let error = request.accept(&certificate, &manager.root.certificate).unwrap_err();
    assert!(matches!(error, ca::Error::Tls(_)), "{error}");
    assert!(own.renew(Identity::generate().unwrap(), &certificate, &own.roots()).is_err());
    assert_eq!(manager.sees(&own).await.unwrap(), r#"Some((NodeId("worker1"), Worker))"#);
}

#[tokio::test]
async fn a_worker_cannot_pose_as_a_manager() {
    let fake = manager_with(NodeRole::Worker, DAY).await;
    let fault = ca::join(&[fake.address()], &fake.token, Availability::Active).await.unwrap_err();
    assert!(fault.message.contains("it is a worker's, not a manager's"), "{fault}");
    let node = identity(&fake.root, "n", NodeRole::Worker, DAY);
    let fault = fake.sees(&node).await.unwrap_err();
    assert!(fault.message.contains("it is a worker's, not a manager's"), "{fault}");
}

#[tokio::test]
async fn an_expired_certificate_is_not_taken() {
    let manager = manager().await;
    let expired = identity(&manager.root, "old", NodeRole::Worker, Duration::ZERO);
    assert!(expired.expires_at() <= now());
    // It says so at the first call: a TLS 1.3 client is done before the server has looked.
    let fault = manager.sees(&expired).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unavailable, "{fault}");

    let expired = manager_with(NodeRole::Manager, Duration::ZERO).await;
    let fault = expired.sees(&manager.identity).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Invalid, "{fault}");
}

/// Also a new role: connections that are made later show it.
#[tokio::test]
async fn a_renewed_certificate_is_shown_by_configurations_that_exist() {
    let manager = manager().await;
    let node = ca::join(&[manager.address()], &manager.token, Availability::Active).await.unwrap();
    let config = tls::client_config(&node).unwrap();
    let channel = ca::connect(&manager.address(), Arc::clone(&config)).await.unwrap();
    let mut client = membership_client(channel.clone());
    *manager.role.lock().unwrap() = NodeRole::Manager;
    let key = |node: &Identity| {
        let (_, pem) = x509_parser::pem::parse_x509_pem(node.certificate().as_bytes()).unwrap();
        pem.parse_x509().unwrap().public_key().raw.to_vec()
    };
    let before = key(&node);
    ca::renew(channel, &node).await.unwrap();
    assert_ne!(key(&node), before);
    assert_eq!(node.role(), NodeRole::Manager);

    // The open connection is still what it was.
    let root = client.root(RootRequest::default()).await.unwrap().into_inner().root;
    assert_eq!(root, r#"Some((NodeId("joined"), Worker))"#);
    let channel = ca::connect(&manager.address(), config).await.unwrap();
    let root =
        membership_client(channel).root(RootRequest::default()).await.unwrap().into_inner().root;
    assert_eq!(root, r#"Some((NodeId("joined"), Manager))"#);
}

#[tokio::test]
async fn an_identity_is_read_as_it_was_saved() {
    use std::os::unix::fs::PermissionsExt;
    let manager = manager().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("certificates");
    assert!(Identity::load(&path, None).unwrap().is_none());
    let none = Secrets::default();
    manager.identity.save(&path, &none, &none).unwrap();
    let mode =
        |name: &str| std::fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("node.key"), mode("node.crt")), (0o700, 0o600, 0o600));
    let (loaded, _) = Identity::load(&path, None).unwrap().unwrap();
    assert_eq!(loaded.certificate(), manager.identity.certificate());
    assert_eq!(loaded.role(), NodeRole::Manager);
    assert!(manager.sees(&loaded).await.unwrap().contains("manager1"));

    // A renewal that was killed between key and certificate.
    let other = identity(&manager.root, "manager1", NodeRole::Manager, DAY);
    let own_key = std::fs::read_to_string(path.join("node.key")).unwrap();
    other.save(&path, &none, &none).unwrap();
    let new_key = std::fs::read_to_string(path.join("node.key")).unwrap();
    assert_eq!(new_key.matches("BEGIN PRIVATE KEY").count(), 1);
    for certificate in [&manager.identity, &other].map(Identity::certificate) {
        std::fs::write(path.join("node.key"), [new_key.clone(), own_key.clone()].concat()).unwrap();
        std::fs::write(path.join("node.crt"), &certificate).unwrap();
        assert_eq!(Identity::load(&path, None).unwrap().unwrap().0.certificate(), certificate);
    }

    // Another node's certificate is not taken for this key.
    let other = identity(&manager.root, "other", NodeRole::Worker, DAY);
    std::fs::write(path.join("node.crt"), other.certificate()).unwrap();
    assert!(Identity::load(&path, None).is_err());
    std::fs::remove_file(path.join("node.key")).unwrap();
    let error = Fault::from(Identity::load(&path, None).unwrap_err());
    assert!(error.message.contains("node.key: it is missing"), "{error}");
}

#[tokio::test]
async fn small_calls_do_not_wait_for_acknowledgements() {
    let manager = manager().await;
    let config = tls::client_config(&manager.identity).unwrap();
    let channel = ca::connect(&manager.address(), config).await.unwrap();
    let mut client = membership_client(channel);
    let calls = async {
        for _ in 0..200 {
            client.root(RootRequest::default()).await.unwrap();
        }
    };
    // With Nagle's algorithm each takes 40 ms.
    tokio::time::timeout(Duration::from_secs(4), calls).await.expect("200 calls in 4 s");
}

/// Connections that say nothing, before or after their handshake, keep nobody out, not even others
/// at the same address. The oldest are closed.
#[tokio::test]
async fn silent_connections_keep_nobody_out() {
    let manager = manager().await;
    let stranger = tls::bootstrap_client_config(JoinToken::parse(&manager.token).unwrap().digest());
    let connector = tokio_rustls::TlsConnector::from(stranger.unwrap());
    let (mut strangers, mut silent) = (Vec::new(), Vec::new());
    for _ in 0..80 {
        let stream = TcpStream::connect(manager.address).await.unwrap();
        let name = "swarm-manager".try_into().unwrap();
        strangers.push(connector.connect(name, stream).await.unwrap());
    }
    for _ in 0..500 {
        silent.push(TcpStream::connect(manager.address).await.unwrap());
    }
    let enter = async {
        assert!(manager.sees(&manager.identity).await.unwrap().contains("manager1"));
        ca::join(&[manager.address()], &manager.token, Availability::Active).await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(3), enter).await.expect("nodes get in at once");
    for oldest in [&mut silent[0], strangers[0].get_mut().0] {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(3), oldest.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "it is closed");
    }
}

#[tokio::test]
async fn open_connections_of_a_node_can_be_ended() {
    let manager = manager().await;
    let worker = identity(&manager.root, "worker1", NodeRole::Worker, DAY);
    let (mut parts, mut stays) =
        (connection(&manager, &worker).await, connection(&manager, &manager.identity).await);
    let mut answer = [0; 256];
    let mut is_open = async |stream: &mut TlsStream<TcpStream>| {
        let read = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut answer)).await;
        !matches!(read, Ok(Ok(0) | Err(_)))
    };
    let over = async {
        while is_open(&mut parts).await {
            // The server may have been slower to see it than its client.
            manager.connections.retain(|peer| peer.node.as_str() != "worker1");
        }
    };
    tokio::time::timeout(Duration::from_secs(10), over).await.expect("it ends");
    assert!(is_open(&mut stays).await);
}

/// Says whether a connection is closed within the time.
async fn ends(stream: &mut TlsStream<TcpStream>, limit: Duration) -> bool {
    let mut answer = [0; 256];
    let end = async { while !matches!(stream.read(&mut answer).await, Ok(0) | Err(_)) {} };
    tokio::time::timeout(limit, end).await.is_ok()
}

async fn connection(manager: &Manager, identity: &Identity) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(manager.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(tls::client_config(identity).unwrap());
    connector.connect("swarm-manager".try_into().unwrap(), stream).await.unwrap()
}

/// They were signed ten seconds ago.
#[tokio::test]
async fn a_connection_ends_with_the_certificate_of_either_side() {
    let (soon, long) = (Duration::from_secs(12), Duration::from_secs(10));
    let of = async |manager: &Manager, identity: &Identity| {
        let config = tls::client_config(identity).unwrap();
        membership_client(ca::connect(&manager.address(), config).await.unwrap())
    };
    // The node's: the manager closes.
    let lasting = manager().await;
    let node = identity(&lasting.root, "soon", NodeRole::Worker, soon);
    let mut stays = connection(&lasting, &lasting.identity).await;
    assert!(ends(&mut connection(&lasting, &node).await, long).await);
    assert!(node.expires_at() <= now());
    assert!(!ends(&mut stays, Duration::from_millis(50)).await);
    // The manager's: the node does, and a call finds no other one.
    let ending = manager_with(NodeRole::Manager, soon).await;
    let mut client = of(&ending, &identity(&ending.root, "n", NodeRole::Worker, DAY)).await;
    client.root(RootRequest::default()).await.unwrap();
    let over = async { while client.root(RootRequest::default()).await.is_ok() {} };
    tokio::time::timeout(long, over).await.expect("no call goes through any more");
    assert!(ending.identity.expires_at() <= now());
}

/// The root is rotated below a manager that serves, and its nodes.
#[tokio::test]
async fn roots_are_followed_and_one_that_is_withdrawn_ends_what_it_has_signed() {
    let manager = manager().await;
    let (old, new) = (manager.root.clone(), Authority::create(now()).unwrap());
    let next = ca::rotate(&old, new.clone(), now()).unwrap();
    let mut cluster = Cluster { root_ca: old.clone(), ..Cluster::default() };
    cluster.root_rotation = Some(next);
    let (late, early) = (
        identity(&old, "late", NodeRole::Worker, DAY),
        identity(&new, "early", NodeRole::Worker, DAY),
    );
    assert!(manager.sees(&early).await.is_err(), "of another root, as far as is known");
    manager.identity.trust(&cluster.roots()).unwrap();
    assert!(manager.sees(&late).await.unwrap().contains("late"));
    let mut open = connection(&manager, &late).await;

    let request = Identity::generate().unwrap();
    let authority = Authority::of(&cluster).unwrap();
    let peer =
        Peer { node: "manager1".into(), role: NodeRole::Manager, cluster: "cluster1".into() };
    let signed = authority.sign(request.csr(), &peer, DAY, now()).unwrap();
    manager.identity.renew(request, &signed, &cluster.roots()).unwrap();
    for node in [&late, &early] {
        manager.sees(node).await.expect("it shows what each of them trusts");
    }
    // The token is still that of the old root.
    ca::join(&[manager.address()], &manager.token, Availability::Active).await.unwrap();

    assert!(!ends(&mut open, Duration::from_millis(50)).await);
    manager.identity.trust(&new.certificate).unwrap();
    assert!(ends(&mut open, Duration::from_secs(10)).await);
    assert!(manager.sees(&late).await.is_err());
    manager.sees(&early).await.unwrap();
    let token = JoinToken::draw(&new).unwrap().digest().to_owned();
    ca::connect(&manager.address(), tls::bootstrap_client_config(&token).unwrap()).await.unwrap();
}

#[tokio::test]
async fn nobody_at_an_address_is_said_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let root = Authority::create(now()).unwrap();
    let token = JoinToken::draw(&root).unwrap().render();
    let fault = ca::join(&[address], &token, Availability::Active).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unavailable);
    assert!(fault.message.contains("Connection refused"), "{fault}");
    let fault =
        ca::join(&["no such host".to_owned()], &token, Availability::Active).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Invalid, "{fault}");
}

#[test]
fn the_certificate_says_what_the_manager_decided() {
    let root = Authority::create(now()).unwrap();
    let node = identity(&root, "node1", NodeRole::Worker, DAY);
    let (_, pem) = x509_parser::pem::parse_x509_pem(node.certificate().as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    assert_eq!(certificate.issuer().to_string(), "CN=swarm-ca");
    assert_eq!(certificate.subject().to_string(), "CN=node1, OU=swarm-worker, O=cluster1");
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let names: Vec<_> = names.value.general_names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["DNSName(swarm-worker)", "DNSName(node1)"]);
    assert!(!certificate.is_ca());

    let (_, pem) = x509_parser::pem::parse_x509_pem(root.certificate.as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let years = certificate.validity().not_after.to_datetime().year()
        - certificate.validity().not_before.to_datetime().year();
    assert_eq!(years, 20);
    assert!(certificate.is_ca());
}

#[test]
fn a_request_that_is_none_is_refused() {
    let root = Authority::create(now()).unwrap();
    let authority = Authority::load(&root).unwrap();
    let peer = Peer { node: "n".into(), role: NodeRole::Worker, cluster: "c".into() };
    let sign = |request: &str| authority.sign(request, &peer, DAY, now());
    let request = Identity::generate().unwrap();
    assert!(sign(request.csr()).is_ok());
    assert!(matches!(sign("nonsense"), Err(ca::Error::Request(_))));
    // A request whose signature is not of its own key proves nothing.
    let mut lines: Vec<String> = request.csr().lines().map(str::to_owned).collect();
    let last = lines.len() - 2;
    let flipped = if lines[last].starts_with('A') { "B" } else { "A" };
    lines[last].replace_range(0..1, flipped);
    assert!(matches!(sign(&lines.join("\n")), Err(ca::Error::Request(_))));
}
