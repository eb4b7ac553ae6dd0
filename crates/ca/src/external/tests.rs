use super::*;
use crate::authority::validity;
use crate::clock::now;
use crate::peer::statement;
use crate::text::certificates;
use crate::{rotate, rotate_signed};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, SanType,
};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use types::{ExternalCa, NodeRole, RootRotation};

const DAY: Duration = Duration::from_hours(24);
/// Everything here is quick; this is for a machine that is busy.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_mins(1));

/// An external CA that answers what a test says, to nodes of a cluster alone; it ends when dropped.
struct Ca {
    url: String,
    serves: JoinHandle<()>,
}

impl Drop for Ca {
    fn drop(&mut self) {
        self.serves.abort();
    }
}

/// What it says to a question: a status and a body.
type Says = Box<dyn Fn(Value) -> (u16, Vec<u8>) + Send>;

fn good(certificate: &str) -> (u16, Vec<u8>) {
    let answer = json!({"success": true, "result": {"certificate": certificate}, "errors": []});
    (200, answer.to_string().into_bytes())
}

/// A certificate for its own end of the connection.
fn tls(root: &RootCa) -> Arc<ServerConfig> {
    let authority = Authority::load(root).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, authority.issuer()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let roots = Roots::parse(&root.certificate).unwrap();
    let provider = crate::roots::provider;
    let clients = WebPkiClientVerifier::builder_with_provider(roots.store, provider()).build();
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.unwrap())
        .with_single_cert(vec![certificate.der().clone()], key);
    Arc::new(config.unwrap())
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, says: Says) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        // Whoever shows no certificate is not heard.
        let Ok(mut stream) = tls.accept(stream).await else { continue };
        let (mut read, mut chunk) = (Vec::new(), [0; 4096]);
        let question = loop {
            match stream.read(&mut chunk).await {
                Ok(0) | Err(_) => break None,
                Ok(count) => read.extend_from_slice(&chunk[..count]),
            }
            let text = String::from_utf8_lossy(&read);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                assert!(head.starts_with("POST /api/v1/cfssl/sign HTTP/1.1"), "{head}");
                if let Ok(question) = serde_json::from_str(body) {
                    break Some(question);
                }
            }
        };
        let Some(question) = question else { continue };
        let (status, body) = says(question);
        let head = format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n\r\n", body.len());
        // Whoever has heard enough goes.
        drop(stream.write_all(&[head.as_bytes(), &body].concat()).await);
        drop(stream.shutdown().await);
    }
}

impl Ca {
    #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
    async fn start(shows: &RootCa, says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/api/v1/cfssl/sign", listener.local_addr().unwrap());
        let serves = tokio::spawn(serve(listener, TlsAcceptor::from(tls(shows)), says));
        Self { url, serves }
    }
}

fn root() -> RootCa {
    Authority::create(now()).unwrap()
}

/// A cluster without its root's key.
fn cluster(root: &RootCa, urls: &[&str]) -> Cluster {
    let certificate = root.certificate.clone();
    let known =
        |url: &&str| ExternalCa { url: (*url).to_owned(), certificate: certificate.clone() };
    let mut cluster = Cluster {
        id: "c".into(),
        root_ca: RootCa { certificate: certificate.clone(), key: String::new() },
        ..Cluster::default()
    };
    cluster.spec.external_cas = urls.iter().map(known).collect();
    cluster
}

fn peer(node: &str, role: NodeRole) -> Peer {
    Peer { node: node.into(), role, cluster: "c".into() }
}

fn manager(root: &RootCa) -> Identity {
    let request = Identity::generate().unwrap();
    let authority = Authority::load(root).unwrap();
    let signed = authority.sign(request.csr(), &peer("m", NodeRole::Manager), DAY, now());
    request.accept(&signed.unwrap(), &root.certificate).unwrap()
}

/// Signs as it is asked to.
fn honest(root: &RootCa) -> Says {
    let root = root.clone();
    Box::new(move |question| {
        let text = |pointer: &str| question.pointer(pointer).unwrap().as_str().unwrap().to_owned();
        let role = match text("/subject/names/0/OU").as_str() {
            "swarm-manager" => NodeRole::Manager,
            _ => NodeRole::Worker,
        };
        let (node, cluster) = (text("/subject/CN"), text("/subject/names/0/O"));
        let asked = Peer { node: node.as_str().into(), role, cluster: cluster.as_str().into() };
        let authority = Authority::load(&root).unwrap();
        good(&authority.sign(&text("/certificate_request"), &asked, DAY, now()).unwrap())
    })
}

async fn asks(cluster: &Cluster, own: &Identity) -> Result<String, Error> {
    let request = Identity::generate().unwrap();
    let mut external = External::of(cluster, Some(own)).unwrap().unwrap();
    external.patience = PATIENCE;
    let worker = peer("n", NodeRole::Worker);
    let signed = external.sign(request.csr(), &worker, now()).await?;
    assert_eq!(statement(&certificates(&signed).unwrap()[0]).unwrap().peer, worker);
    let identity = request.accept(&signed, &cluster.roots()).unwrap();
    assert_eq!(identity.issuer(), crate::issuer(cluster.wanted_root()).unwrap());
    Ok(signed)
}

#[tokio::test]
async fn an_external_ca_signs_for_managers_and_those_that_are_away_are_passed_over() {
    let root = root();
    let away = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let away = format!("https://u:secret@{away}/api/v1/cfssl/sign");
    let ca = Ca::start(&root, honest(&root)).await;
    let own = manager(&root);
    asks(&cluster(&root, &[&away, &ca.url]), &own).await.unwrap();
    let refused = asks(&cluster(&root, &[&away]), &own).await.unwrap_err().to_string();
    assert!(refused.contains("unable to perform certificate signing request"), "{refused}");
    assert!(!refused.contains("secret"), "{refused}");
    // One by another root is no manager, and one that shows another root is not asked.
    let strange = self::root();
    let stranger = manager(&strange);
    let mut other = cluster(&root, &[&ca.url]);
    asks(&other, &stranger).await.unwrap_err();
    other.root_ca.certificate.clone_from(&strange.certificate);
    other.spec.external_cas[0].certificate.clone_from(&strange.certificate);
    let refused = asks(&other, &own).await.unwrap_err().to_string();
    assert!(refused.contains("invalid peer certificate"), "{refused}");
}

#[tokio::test]
async fn who_signs_is_whoever_has_the_key_of_the_root_that_is_wanted() {
    let root = root();
    let own = manager(&root);
    let mut cluster = cluster(&root, &[]);
    let request = Identity::generate().unwrap();
    let worker = peer("n", NodeRole::Worker);
    let nobody = sign(&cluster, request.csr(), &worker, Some(&own), now()).await.unwrap_err();
    assert_eq!(nobody.to_string(), "no external CA URLs");
    cluster.root_ca.key.clone_from(&root.key);
    sign(&cluster, request.csr(), &worker, Some(&own), now()).await.unwrap();
    // One of another root is not asked, one of this root is, though the key is here.
    let url = "https://127.0.0.1:1/".to_owned();
    cluster.spec.external_cas = vec![ExternalCa { url, certificate: self::root().certificate }];
    sign(&cluster, request.csr(), &worker, Some(&own), now()).await.unwrap();
    cluster.spec.external_cas[0].certificate.clone_from(&root.certificate);
    let refused = sign(&cluster, request.csr(), &worker, Some(&own), now()).await.unwrap_err();
    assert!(refused.to_string().starts_with("external CA 127.0.0.1:1: "), "{refused}");
}

/// Signs what is made of the names that it is asked for.
fn made(root: &RootCa, make: fn(&mut CertificateParams)) -> Says {
    let authority = Authority::load(root).unwrap();
    Box::new(move |question| {
        let request = question["certificate_request"].as_str().unwrap();
        let mut request = CertificateSigningRequestParams::from_pem(request).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in [
            (rcgen::DnType::CommonName, "n"),
            (rcgen::DnType::OrganizationalUnitName, "swarm-worker"),
            (rcgen::DnType::OrganizationName, "c"),
        ] {
            params.distinguished_name.push(kind, value);
        }
        (params.not_before, params.not_after) = validity(now(), DAY).unwrap();
        make(&mut params);
        request.params = params;
        good(&request.signed_by(authority.issuer()).unwrap().pem())
    })
}

fn says(status: u16, body: &str) -> Says {
    let body = body.as_bytes().to_vec();
    Box::new(move |_| (status, body.clone()))
}

/// What each of these answers is refused with.
#[tokio::test]
async fn an_answer_that_is_not_what_was_asked_for_is_refused() {
    let (root, other) = (root(), root());
    let by = |root: &RootCa, node: &'static str, role, cluster: &'static str, valid_for| -> Says {
        let authority = Authority::load(root).unwrap();
        let peer = Peer { node: node.into(), role, cluster: cluster.into() };
        Box::new(move |question| {
            let request = question["certificate_request"].as_str().unwrap();
            good(&authority.sign(request, &peer, valid_for, now()).unwrap())
        })
    };
    let another_key: Says = {
        let authority = Authority::load(&root).unwrap();
        let request = Identity::generate().unwrap();
        let peer = peer("n", NodeRole::Worker);
        Box::new(move |_| good(&authority.sign(request.csr(), &peer, DAY, now()).unwrap()))
    };
    let worker = NodeRole::Worker;
    let mut hostile: Vec<(Says, &str)> = vec![
        (by(&root, "x", worker, "c", DAY), "for another node, role or cluster"),
        (by(&root, "n", NodeRole::Manager, "c", DAY), "for another node, role or cluster"),
        (by(&root, "n", worker, "d", DAY), "for another node, role or cluster"),
        (by(&other, "n", worker, "c", DAY), "not by the root that is wanted"),
        (by(&root, "n", worker, "c", DAY * 365 * 11), "holds for more than ten years"),
        (another_key, "for another key"),
        (
            made(&root, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            "would not be",
        ),
        (
            // No manager would take it for a node's.
            made(&root, |it| it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            "would not be trusted",
        ),
        (
            says(500, "no\u{1b}[31m key"),
            "unexpected status code in CSR response: 500 - no [31m key",
        ),
        (says(302, ""), "unexpected status code in CSR response: 302"),
        (says(200, "<html>"), "unable to parse JSON response"),
        (says(200, r#"{"success":true,"result":{}}"#), "there is no certificate in the answer"),
        (says(200, r#"{"success":true,"result":{"certificate":"x"}}"#), "there is none"),
        (says(200, r#"{"success":false,"result":{}}"#), "certificate signing request failed"),
        (
            says(200, r#"{"success":false,"errors":[{"code":1,"message":"not you"}]}"#),
            "response errors: not you",
        ),
    ];
    let long = " ".repeat(BYTES_MAX + 1);
    hostile.push((says(200, &long), "the answer is too long"));
    let own = manager(&root);
    for (says, why) in hostile {
        let ca = Ca::start(&root, says).await;
        let refused = asks(&cluster(&root, &[&ca.url]), &own).await.unwrap_err().to_string();
        assert!(refused.contains(why), "{why}: {refused}");
    }
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "it ends with the test")]
async fn one_that_says_nothing_is_waited_for_no_longer_than_it_may_take() {
    let root = root();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", silent.local_addr().unwrap());
    let listens = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(stream) = silent.accept().await {
            held.push(stream);
        }
    });
    let own = manager(&root);
    let request = Identity::generate().unwrap();
    let worker = peer("n", NodeRole::Worker);
    for (urls, why) in [
        (vec![url.as_str()], "no answer in time"),
        (vec![url.as_str(); 100], "the external CAs did not answer in time"),
    ] {
        let mut external = External::of(&cluster(&root, &urls), Some(&own)).unwrap().unwrap();
        external.patience = (Duration::from_millis(50), Duration::from_millis(500));
        let refused = external.sign(request.csr(), &worker, now()).await.unwrap_err().to_string();
        assert!(refused.ends_with(why), "{refused}");
    }
    listens.abort();
}

/// To a root that somebody else has, and back from it.
#[tokio::test]
async fn whoever_trusts_either_root_of_a_rotation_knows_what_an_external_ca_signs() {
    let (old, new) = (root(), root());
    let without_key = |root: &RootCa| RootCa { key: String::new(), ..root.clone() };
    // Managers still show certificates by the old root.
    let both =
        RootCa { certificate: [&*old.certificate, &new.certificate].concat(), ..new.clone() };
    let ca = Ca::start(&both, honest(&new)).await;
    let mut to = cluster(&new, &[&ca.url]);
    to.root_ca = old.clone();
    to.root_rotation = Some(rotate(&old, without_key(&new), now()).unwrap());
    let signed = asks(&to, &manager(&old)).await.unwrap();
    let chain = certificates(&signed).unwrap();
    for root in [&old, &new] {
        Roots::parse(&root.certificate).unwrap().check(&chain, now()).unwrap();
    }

    let signs: Says = {
        let old = old.clone();
        Box::new(move |question| {
            assert_eq!((&question["profile"], &question["subject"]), (&json!("CA"), &Value::Null));
            let constraints =
                json!([{"id": "2.5.29.19", "critical": true, "value": "30060101ff020101"}]);
            assert_eq!(question["extensions"], constraints);
            let request = question["certificate_request"].as_str().unwrap();
            let mut request = CertificateSigningRequestParams::from_pem(request).unwrap();
            request.params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            let authority = Authority::load(&old).unwrap();
            good(&request.signed_by(authority.issuer()).unwrap().pem())
        })
    };
    let ca = Ca::start(&old, signs).await;
    let external = External::of(&cluster(&old, &[&ca.url]), Some(&manager(&old))).unwrap().unwrap();
    let cross_signed = external.cross_sign(&new).await.unwrap();
    let begin =
        |cross_signed: &str| rotate_signed(&without_key(&old), new.clone(), cross_signed, now());
    let RootRotation { certificate, key, .. } = begin(&cross_signed).unwrap();
    assert_eq!((&certificate, &key), (&new.certificate, &new.key));
    // One of the same name with another key, and one that no CA signed.
    let refused = begin(&root().certificate).unwrap_err().to_string();
    assert!(refused.contains("another name or another key"), "{refused}");
    begin(&new.certificate).unwrap_err();
    let own = cluster(&old, &[]);
    assert!(External::of(&own, None).unwrap().is_none());
}
