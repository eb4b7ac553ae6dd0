//! Which certificates are trusted.
//!
//! While the cluster's root is rotated there are two roots: a certificate by either is known. Who
//! trusts one of them alone knows what the next one signs by the certificate between, which every
//! node shows with its own.

use crate::Error;
use crate::digest::digest;
use crate::identity::Current;
use crate::peer::statement;
use crate::text::certificates;
use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use std::time::Duration;
use types::{NodeRole, Timestamp};

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The roots that a node trusts.
#[derive(Clone, Debug)]
pub(crate) struct Roots {
    /// As they were given.
    pub(crate) text: String,
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    pub(crate) store: Arc<RootCertStore>,
}

impl Roots {
    /// Reads them (PEM, one after the other).
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let certificates = certificates(text)?;
        let store = Arc::new(store(&certificates)?);
        Ok(Self { text: text.to_owned(), certificates, store })
    }

    /// Says why a certificate, with what stands between it and a root, is not trusted at `time`.
    pub(crate) fn check(
        &self,
        chain: &[CertificateDer<'_>],
        time: Timestamp,
    ) -> Result<(), rustls::Error> {
        match chain.split_first() {
            Some((own, between)) => check(&self.store, (own, between), unix(time)),
            None => Err(rustls::Error::NoCertificatesPresented),
        }
    }

    /// The same of a node that calls, not of one that is called.
    pub(crate) fn check_client(
        &self,
        chain: &[CertificateDer<'_>],
        time: Timestamp,
    ) -> Result<(), rustls::Error> {
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.store), provider());
        let clients = clients.build().map_err(|error| rustls::Error::General(error.to_string()))?;
        match chain.split_first() {
            Some((own, between)) => clients.verify_client_cert(own, between, unix(time)).map(drop),
            None => Err(rustls::Error::NoCertificatesPresented),
        }
    }
}

fn unix(time: Timestamp) -> UnixTime {
    let seconds = u64::try_from(time.0 / 1_000_000_000).unwrap_or_default();
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn store(roots: &[CertificateDer<'_>]) -> Result<RootCertStore, rustls::Error> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone().into_owned())?;
    }
    Ok(store)
}

fn check(
    roots: &RootCertStore,
    (own, between): (&CertificateDer<'_>, &[CertificateDer<'_>]),
    time: UnixTime,
) -> Result<(), rustls::Error> {
    let algorithms = provider().signature_verification_algorithms.all;
    let own = ParsedCertificate::try_from(own)?;
    verify_server_cert_signed_by_trust_anchor(&own, roots, between, time, algorithms)
}

/// What a client knows of the cluster it calls.
#[derive(Debug)]
pub(crate) enum Trust {
    /// The roots that this node trusts at the moment.
    Own(Arc<ArcSwap<Current>>),
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
        let roots = match &self.trust {
            Trust::Own(current) => Arc::clone(&current.load().roots.store),
            Trust::Digest(expected) => {
                let Some(root) = chain.iter().find(|root| digest(root) == *expected) else {
                    return Err(refusal(Error::Fingerprint { expected: expected.clone() }));
                };
                Arc::new(store(std::slice::from_ref(root))?)
            }
        };
        check(&roots, (end_entity, chain), now)?;
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
