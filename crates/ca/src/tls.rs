//! TLS between nodes: version 1.3, HTTP/2 inside.
//!
//! A configuration that is made from an [`Identity`] follows it: after a renewal, new connections
//! show the new certificate, and whoever comes is judged by the roots of the moment.

use crate::Error;
use crate::identity::{Current, Identity};
use crate::roots::{Managers, Roots, Trust, provider};
use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::sync::Arc;

const PROTOCOL: &[u8] = b"h2";

/// Shows the certificate that is current.
#[derive(Debug)]
struct Shown(Arc<ArcSwap<Current>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.load().certified))
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.load().certified))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Takes clients by the roots that are current.
#[derive(Debug)]
struct Clients(Arc<ArcSwap<Current>>);

impl ClientCertVerifier for Clients {
    /// Machines that join show none.
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// Nodes have one certificate each: they need no hint which one to show.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0.load().clients.verify_client_cert(end_entity, between, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.load().clients.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.load().clients.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.load().clients.supported_verify_schemes()
    }
}

/// For a manager: clients show a certificate of the cluster, or none.
pub fn server_config(identity: &Identity) -> Result<Arc<ServerConfig>, Error> {
    let clients = Arc::new(Clients(identity.current()));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(Shown(identity.current())));
    // A resumed session would keep the certificate, and with it the role, of the first.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}

/// For a node that calls a manager of its cluster.
pub fn client_config(identity: &Identity) -> Result<Arc<ClientConfig>, Error> {
    let trust = Trust::Own(identity.current());
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Managers::new(trust)))
        .with_client_cert_resolver(Arc::new(Shown(identity.current())));
    Ok(finish(config))
}

/// For a machine that has no certificate yet: it calls a manager of the cluster whose root has this
/// digest.
pub fn bootstrap_client_config(digest: &str) -> Result<Arc<ClientConfig>, Error> {
    let trust = Trust::Digest(digest.to_owned());
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Managers::new(trust)))
        .with_no_client_auth();
    Ok(finish(config))
}

/// For whoever asks an external CA that shows a certificate by one of these roots: this node shows its
/// own, where it has one.
pub(crate) fn external_client_config(
    roots: &Roots,
    identity: Option<&Identity>,
) -> Result<ClientConfig, Error> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_root_certificates(Arc::clone(&roots.store));
    Ok(match identity {
        Some(own) => config.with_client_cert_resolver(Arc::new(Shown(own.current()))),
        None => config.with_no_client_auth(),
    })
}

fn finish(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // Managers are called by address.
    config.enable_sni = false;
    Arc::new(config)
}
