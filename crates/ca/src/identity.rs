//! What a node is: its key and its certificate.

use crate::files::Files;
use crate::peer::{Statement, statement};
use crate::roots::{provider, store};
use crate::{Error, Peer};
use arc_swap::ArcSwap;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use types::{ClusterId, NodeId, NodeRole, Timestamp};

/// A key that waits for its certificate.
pub struct Request {
    key: String,
    csr: String,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Request(…)")
    }
}

impl Request {
    /// PEM of the certificate signing request, for a manager.
    pub fn csr(&self) -> &str {
        &self.csr
    }

    /// Makes an identity of what the manager answered (both PEM).
    pub fn accept(self, certificate: &str, root: &str) -> Result<Identity, Error> {
        Identity::new(self.key, certificate.to_owned(), root.to_owned())
    }
}

/// What a node shows others. Clones are one and the same: what is renewed for one is for all.
#[derive(Clone, Debug)]
pub struct Identity {
    current: Arc<ArcSwap<Current>>,
    root: Arc<str>,
    key: Arc<Secret>,
    renewals: watch::Sender<u64>,
}

/// A private key in PEM.
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The certificate of the moment.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) certified: Arc<CertifiedKey>,
    certificate: String,
    peer: Peer,
    starts_at: Timestamp,
    expires_at: Timestamp,
}

impl Identity {
    /// Makes a key and asks for a certificate.
    pub fn generate() -> Result<Request, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Ok(Request { csr: csr(&key)?, key: key.serialize_pem() })
    }

    fn new(key: String, certificate: String, root: String) -> Result<Self, Error> {
        let current = current(&key, certificate, &root)?;
        Ok(Self {
            current: Arc::new(ArcSwap::from_pointee(current)),
            root: root.into(),
            key: Arc::new(Secret(key)),
            renewals: watch::Sender::new(0),
        })
    }

    /// Reads the identity that was saved in `folder`; `None`: there is none.
    pub fn load(folder: &Path) -> Result<Option<Self>, Error> {
        let Some(files) = Files::read(folder)? else {
            return Ok(None);
        };
        Self::new(files.key, files.certificate, files.root).map(Some)
    }

    /// Writes it to `folder`, for the owner's eyes only. It blocks.
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        let files = Files {
            certificate: self.certificate(),
            key: self.key.0.clone(),
            root: self.root.to_string(),
        };
        files.write(folder)
    }

    /// PEM of a request for a new certificate for the same key.
    pub fn renewal_request(&self) -> Result<String, Error> {
        csr(&KeyPair::from_pem(&self.key.0)?)
    }

    /// Takes a new certificate (PEM): new connections show it. [`save`](Self::save) it then.
    pub fn replace_certificate(&self, certificate: &str) -> Result<(), Error> {
        let new = current(&self.key.0, certificate.to_owned(), &self.root)?;
        let old = self.current.load();
        if new.peer.node != old.peer.node || new.peer.cluster != old.peer.cluster {
            return Err(Error::Certificate("it is for another node".to_owned()));
        }
        self.current.store(Arc::new(new));
        self.renewals.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Counts renewals, and tells of every one.
    pub fn renewals(&self) -> watch::Receiver<u64> {
        self.renewals.subscribe()
    }

    pub fn node_id(&self) -> NodeId {
        self.current.load().peer.node.clone()
    }

    pub fn role(&self) -> NodeRole {
        self.current.load().peer.role
    }

    pub fn cluster(&self) -> ClusterId {
        self.current.load().peer.cluster.clone()
    }

    /// From when on the certificate holds: later than now where a clock was set back since.
    pub fn starts_at(&self) -> Timestamp {
        self.current.load().starts_at
    }

    /// When the certificate ends.
    pub fn expires_at(&self) -> Timestamp {
        self.current.load().expires_at
    }

    /// PEM of the certificate.
    pub fn certificate(&self) -> String {
        self.current.load().certificate.clone()
    }

    /// PEM of the root certificate.
    pub fn root(&self) -> &str {
        &self.root
    }

    pub(crate) fn current(&self) -> Arc<ArcSwap<Current>> {
        Arc::clone(&self.current)
    }

    pub(crate) fn root_der(&self) -> Result<CertificateDer<'static>, Error> {
        der(&self.root)
    }
}

fn csr(key: &KeyPair) -> Result<String, Error> {
    let mut params = CertificateParams::default();
    // The manager decides on the names.
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.pem()?)
}

fn der(pem: &str) -> Result<CertificateDer<'static>, Error> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| Error::Certificate(format!("it cannot be read: {error:?}")))
}

/// Checks that key, certificate and root belong together. An expired certificate passes: it may
/// still be renewed.
fn current(key: &str, certificate: String, root: &str) -> Result<Current, Error> {
    let (own, root) = (der(&certificate)?, der(root)?);
    let Statement { peer, starts_at, expires_at } = statement(&own)?;
    let provider = provider();
    let before_the_end = expires_at.0.saturating_sub(1_000_000_000) / 1_000_000_000;
    let then = Duration::from_secs(u64::try_from(before_the_end).unwrap_or_default());
    verify_server_cert_signed_by_trust_anchor(
        &ParsedCertificate::try_from(&own)?,
        &store(&root)?,
        &[],
        UnixTime::since_unix_epoch(then),
        provider.signature_verification_algorithms.all,
    )?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_unreadable| Error::Certificate("its key cannot be read".to_owned()))?;
    // The root goes along: a joining machine knows only its digest.
    let certified = CertifiedKey::from_der(vec![own, root], key, &provider)?;
    Ok(Current { certified: Arc::new(certified), certificate, peer, starts_at, expires_at })
}
