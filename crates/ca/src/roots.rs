//! Which certificates are trusted.

use crate::Error;
use crate::digest::digest;
use crate::peer::statement;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use types::NodeRole;

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(crate) fn store(root: &CertificateDer<'_>) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone().into_owned())?;
    Ok(roots)
}

/// What a client knows of the cluster it calls.
#[derive(Debug)]
pub(crate) enum Trust {
    /// Its root.
    Root(RootCertStore),
    /// The digest of its root; servers send the root itself.
    Digest(String),
}

/// Accepts managers of the cluster, at whatever address they are: nodes are known by certificates,
/// not by names of hosts.
#[derive(Debug)]
pub(crate) struct Managers {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl Managers {
    pub(crate) fn new(trust: Trust) -> Self {
        Self { trust, provider: provider() }
    }
}

fn refusal(error: Error) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

impl ServerCertVerifier for Managers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found;
        let roots = match &self.trust {
            Trust::Root(roots) => roots,
            Trust::Digest(expected) => {
                let Some(root) = chain.iter().find(|root| digest(root) == *expected) else {
                    return Err(refusal(Error::Fingerprint { expected: expected.clone() }));
                };
                found = store(root)?;
                &found
            }
        };
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, &[], now, algorithms)?;
        match statement(end_entity).map_err(refusal)?.peer.role {
            NodeRole::Manager => Ok(ServerCertVerified::assertion()),
            NodeRole::Worker => {
                Err(refusal(Error::Certificate("it is a worker's, not a manager's".to_owned())))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
