//! What a node is: its key and its certificate, and what it trusts.

use crate::files::Files;
use crate::peer::{Statement, statement};
use crate::root::issuer_of;
use crate::roots::{Roots, provider};
use crate::text::certificates;
use crate::{Error, Peer, Secrets};
use arc_swap::ArcSwap;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use seal::UnlockKey;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;
use types::{ClusterId, Issuer, NodeId, NodeRole, Timestamp};
use zeroize::Zeroizing;

/// A key that waits for its certificate.
pub struct Request {
    key: Zeroizing<String>,
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

    /// Makes an identity of what the manager answered: the certificate with what stands between it
    /// and a root, and the roots (all PEM).
    pub fn accept(self, certificate: &str, roots: &str) -> Result<Identity, Error> {
        Identity::new(self.key, certificate, roots)
    }
}

/// What a node shows others, and whom it trusts. Clones are one and the same: what changes for one
/// does for all.
#[derive(Clone, Debug)]
pub struct Identity {
    current: Arc<ArcSwap<Current>>,
    changes: watch::Sender<u64>,
}

/// A private key in PEM.
#[derive(Clone)]
struct Secret(Zeroizing<String>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Key, certificate and roots of the moment: they belong together.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) roots: Roots,
    /// Takes clients by the roots.
    pub(crate) clients: Arc<dyn ClientCertVerifier>,
    key: Secret,
    certificate: String,
    issuer: Issuer,
    peer: Peer,
    starts_at: Timestamp,
    expires_at: Timestamp,
}

impl Identity {
    /// Makes a key and asks for a certificate.
    pub fn generate() -> Result<Request, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        // The manager decides on the names.
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&key)?.pem()?;
        Ok(Request { csr, key: Zeroizing::new(key.serialize_pem()) })
    }

    fn new(key: Zeroizing<String>, certificate: &str, roots: &str) -> Result<Self, Error> {
        let current = Current::new(Secret(key), certificate, roots)?;
        let current = Arc::new(ArcSwap::from_pointee(current));
        Ok(Self { current, changes: watch::Sender::new(0) })
    }

    /// Reads the identity and the secrets that were saved in `folder`; `None`: there is none. Where
    /// they are locked it takes the unlock key.
    pub fn load(
        folder: &Path,
        unlock: Option<&UnlockKey>,
    ) -> Result<Option<(Self, Secrets)>, Error> {
        let Some((files, secrets)) = Files::read(folder, unlock)? else {
            return Ok(None);
        };
        let Files { keys, certificate, roots } = files;
        // Where a crash came between the two there is the key before as well.
        let mut last = Error::Certificate("its key is missing".to_owned());
        for key in keys {
            match Self::new(key, &certificate, &roots) {
                Ok(identity) => return Ok(Some((identity, secrets))),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Writes it to `folder`, for the owner's eyes only, with these secrets in the place of those that
    /// are there. It blocks.
    pub fn save(&self, folder: &Path, old: &Secrets, new: &Secrets) -> Result<(), Error> {
        let now = self.current.load();
        let (certificate, roots) = (now.certificate.clone(), now.roots.text.clone());
        Files { keys: vec![now.key.0.clone()], certificate, roots }.write(folder, old, new)
    }

    /// Takes a new key with its certificate, and the roots that came with it: new connections show
    /// it. [`save`](Self::save) it then.
    pub fn renew(&self, request: Request, certificate: &str, roots: &str) -> Result<(), Error> {
        self.change(|old| {
            let new = Current::new(Secret(request.key), certificate, roots)?;
            if new.peer.node != old.peer.node || new.peer.cluster != old.peer.cluster {
                return Err(Error::Certificate("it is for another node".to_owned()));
            }
            Ok(Some(new))
        })
        .map(drop)
    }

    /// Trusts these roots (PEM) from here on, and no others; says whether that is new. Roots that do
    /// not cover the node's own certificate are refused: nobody who trusts them would know it.
    pub fn trust(&self, roots: &str) -> Result<bool, Error> {
        self.change(|old| {
            if old.roots.text == roots {
                return Ok(None);
            }
            Current::new(old.key.clone(), &old.certificate, roots).map(Some)
        })
    }

    /// One change after the other.
    fn change(
        &self,
        change: impl FnOnce(&Current) -> Result<Option<Current>, Error>,
    ) -> Result<bool, Error> {
        let mut done = Ok(false);
        self.changes.send_if_modified(|count| {
            done = change(&self.current.load()).map(|new| match new {
                Some(new) => {
                    self.current.store(Arc::new(new));
                    *count += 1;
                    true
                }
                None => false,
            });
            matches!(done, Ok(true))
        });
        done
    }

    /// Counts new certificates and new roots, and tells of every one.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
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

    /// PEM of the certificate, with what stands between it and a root.
    pub fn certificate(&self) -> String {
        self.current.load().certificate.clone()
    }

    /// Who signed the certificate.
    pub fn issuer(&self) -> Issuer {
        self.current.load().issuer.clone()
    }

    /// PEM of the roots that are trusted.
    pub fn roots(&self) -> String {
        self.current.load().roots.text.clone()
    }

    /// Says whether a peer that has shown these certificates is trusted at `time`.
    pub(crate) fn trusts(&self, chain: &[CertificateDer<'_>], time: Timestamp) -> bool {
        self.current.load().roots.check(chain, time).is_ok()
    }

    pub(crate) fn current(&self) -> Arc<ArcSwap<Current>> {
        Arc::clone(&self.current)
    }
}

impl Current {
    /// Checks that key, certificate and roots belong together. An expired certificate passes: it may
    /// still be renewed.
    fn new(key: Secret, certificate: &str, roots: &str) -> Result<Self, Error> {
        let (mut chain, roots) = (certificates(certificate)?, Roots::parse(roots)?);
        let Statement { peer, starts_at, expires_at } = statement(&chain[0])?;
        roots.check(&chain, Timestamp(expires_at.0.saturating_sub(1_000_000_000)))?;
        let issuer = issuer_of(&chain, &roots.certificates)?;
        // The roots go along: a joining machine knows only the digest of one.
        chain.extend(roots.certificates.iter().cloned());
        let secret = PrivateKeyDer::from_pem_slice(key.0.as_bytes())
            .map_err(|_unreadable| Error::Certificate("its key cannot be read".to_owned()))?;
        let certified = CertifiedKey::from_der(chain, secret, &provider())?;
        let store = Arc::clone(&roots.store);
        let clients = WebPkiClientVerifier::builder_with_provider(store, provider())
            .allow_unauthenticated()
            .build()
            .map_err(|error| Error::Certificate(error.to_string()))?;
        Ok(Self {
            certified: Arc::new(certified),
            roots,
            clients,
            key,
            certificate: certificate.to_owned(),
            issuer,
            peer,
            starts_at,
            expires_at,
        })
    }
}
