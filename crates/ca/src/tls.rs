//! TLS between nodes: version 1.3, HTTP/2 inside.
//!
//! A configuration that is made from an [`Identity`] follows it: after a renewal, new connections
//! show the new certificate.

use crate::Error;
use crate::identity::{Current, Identity};
use crate::roots::{Managers, Trust, provider, store};
use arc_swap::ArcSwap;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};
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

/// For a manager: clients show a certificate of the cluster, or none.
pub fn server_config(identity: &Identity) -> Result<Arc<ServerConfig>, Error> {
    let roots = Arc::new(store(&identity.root_der()?)?);
    let clients = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| Error::Certificate(error.to_string()))?;
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
    let trust = Trust::Root(store(&identity.root_der()?)?);
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

fn finish(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // Managers are called by address.
    config.enable_sni = false;
    Arc::new(config)
}
