//! Who is not even heard.

use super::{DAY, Kit, identity, now, other_root};
use ca::{Identity, Peer};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use types::{Fault, NodeRole};
use wire::{BarrierRequest, managers_client};

/// Says `bytes`, and waits for the other end to close.
async fn says(address: &str, bytes: &[u8]) -> Result<(), Fault> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.map_err(closed)?;
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.map_err(closed)?;
    // An alert of TLS at most.
    if heard.len() < 16 { Err(Fault::unavailable("closed")) } else { Ok(()) }
}

#[expect(clippy::needless_pass_by_value, reason = "reads as `map_err(closed)`")]
fn closed(error: std::io::Error) -> Fault {
    Fault::unavailable(error.to_string())
}

/// Calls as a manager with this identity.
async fn calls(address: &str, identity: &Identity) -> Result<(), Fault> {
    let channel = ca::connect(address, ca::tls::client_config(identity).unwrap()).await?;
    managers_client(channel).barrier(BarrierRequest::default()).await.map_err(wire::fault_of)?;
    Ok(())
}

/// A client's chain, and what it is shown with.
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

/// Shows a chain, and listens.
async fn shows(
    address: &str,
    root: &str,
    version: &'static SupportedProtocolVersion,
    shown: Option<Shown>,
) -> Result<(), Fault> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        None => config.with_no_client_auth(),
        Some(Shown { chain, key }) => {
            let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let stream = TcpStream::connect(address).await.unwrap();
    let name = "swarm-manager".try_into().unwrap();
    let mut stream =
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(closed)?;
    let mut heard = [0; 1];
    stream.read_exact(&mut heard).await.map_err(closed)?;
    Ok(())
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// What a manager's certificate says.
fn posing(node: &str, cluster: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["swarm-manager".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, node);
    params.distinguished_name.push(DnType::OrganizationalUnitName, "swarm-manager");
    params.distinguished_name.push(DnType::OrganizationName, cluster);
    params
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_intruders_are_refused_and_counted() {
    let kit = Kit::new().await;
    let (address, root) = (kit.cluster.address(), kit.root());
    let (id, cluster) = (kit.cluster.first.node_id(), kit.id());

    kit.shuts_out("1: no TLS", says(&address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")).await;
    kit.shuts_out("2: noise", says(&address, &[0xff; 4096])).await;
    kit.shuts_out("3: silence", says(&address, b"")).await;
    let former = shows(&address, &root.certificate, &TLS12, None);
    kit.shuts_out("4: a version of TLS that can be resumed with another's key", former).await;

    let expired = kit.signed(id.as_str(), NodeRole::Manager, now().before(3 * DAY));
    kit.shuts_out("5: an expired certificate", calls(&address, &expired)).await;
    let early = kit.signed(id.as_str(), NodeRole::Manager, now().after(3 * DAY));
    kit.shuts_out("6: a certificate that does not hold yet", calls(&address, &early)).await;

    let key = KeyPair::generate().unwrap();
    let own = posing(id.as_str(), cluster.as_str()).self_signed(&key).unwrap();
    let shown = Shown { chain: vec![own.der().clone()], key };
    let posing_as = shows(&address, &root.certificate, &TLS13, Some(shown));
    kit.shuts_out("7: a manager's name on a certificate of one's own", posing_as).await;

    // Another cluster's manager, with the same names; it does not mind whom it calls.
    let foreign = other_root();
    let peer = Peer { node: id.clone(), role: NodeRole::Manager, cluster: cluster.clone() };
    let foreign_key = KeyPair::generate().unwrap();
    let issuer =
        Issuer::from_ca_cert_pem(&foreign.certificate, KeyPair::from_pem(&foreign.key).unwrap());
    let leaf =
        posing(id.as_str(), cluster.as_str()).signed_by(&foreign_key, &issuer.unwrap()).unwrap();
    let chain = vec![leaf.der().clone(), der(&foreign.certificate)];
    let shown = Shown { chain, key: foreign_key };
    let posing_as = shows(&address, &root.certificate, &TLS13, Some(shown));
    kit.shuts_out("8: another cluster's root, which is shown as well", posing_as).await;

    // The other cluster is no trap either: who calls it turns away.
    let trusting = identity(&foreign, &peer, now());
    assert!(calls(&address, &trusting).await.is_err());

    // A worker signs for a manager: it is not a certificate authority.
    let (worker_key, leaf_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let issuer = Issuer::from_ca_cert_pem(&root.certificate, KeyPair::from_pem(&root.key).unwrap());
    let mut worker = CertificateParams::new(vec!["swarm-worker".to_owned()]).unwrap();
    worker.distinguished_name.push(DnType::CommonName, "worker");
    let middle = worker.signed_by(&worker_key, &issuer.unwrap()).unwrap();
    let issuer = Issuer::from_params(&worker, &worker_key);
    let leaf = posing(id.as_str(), cluster.as_str()).signed_by(&leaf_key, &issuer).unwrap();
    let chain = vec![leaf.der().clone(), middle.der().clone()];
    let shown = Shown { chain, key: leaf_key };
    let posing_as = shows(&address, &root.certificate, &TLS13, Some(shown));
    kit.shuts_out("9: a certificate that a worker has signed", posing_as).await;

    // The cluster's own, but of nobody in particular.
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::from_ca_cert_pem(&root.certificate, KeyPair::from_pem(&root.key).unwrap());
    let mut many = posing(id.as_str(), cluster.as_str());
    many.distinguished_name.push(DnType::CommonName, "nobody");
    many.distinguished_name.push(DnType::OrganizationalUnitName, "swarm-root");
    let leaf = many.signed_by(&key, &issuer.unwrap()).unwrap();
    let shown = Shown { chain: vec![leaf.der().clone()], key };
    let posing_as = shows(&address, &root.certificate, &TLS13, Some(shown));
    kit.shuts_out("10: a role that there is not", posing_as).await;
    kit.end().await;
}
