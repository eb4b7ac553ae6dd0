//! The root of trust: makes itself and signs nodes' certificates.

use crate::{Error, Peer};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use std::time::Duration;
use time::OffsetDateTime;
use types::{Cluster, NodeRole, RootCa, RootRotation, Timestamp};

/// Certificates hold from a little before they are made: nodes' clocks differ.
const BACKDATED: Duration = Duration::from_hours(1);
pub(crate) const ROOT_VALIDITY: Duration = Duration::from_hours(20 * 365 * 24);
const ROOT_NAME: &str = "swarm-ca";

/// Signs nodes' certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// PEM of what stands between its certificates and the cluster's root.
    between: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(…)")
    }
}

impl Authority {
    /// Makes the root of a new cluster.
    pub fn create(now: Timestamp) -> Result<RootCa, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // As Go writes a name: an external CA that signs this root must come to the same bytes.
        let name = DnValue::PrintableString(ROOT_NAME.try_into()?);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = validity(now, ROOT_VALIDITY)?;
        let certificate = params.self_signed(&key)?;
        Ok(RootCa { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// The cluster's: that of the next root, where there is one.
    pub fn of(cluster: &Cluster) -> Result<Self, Error> {
        cluster.root_rotation.as_ref().map_or_else(|| Self::load(&cluster.root_ca), Self::next)
    }

    pub fn load(root: &RootCa) -> Result<Self, Error> {
        Self::new(&root.certificate, &root.key, String::new())
    }

    pub(crate) fn next(root: &RootRotation) -> Result<Self, Error> {
        Self::new(&root.certificate, &root.key, root.cross_signed.clone())
    }

    fn new(certificate: &str, key: &str, between: String) -> Result<Self, Error> {
        let issuer = Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(key)?)?;
        Ok(Self { issuer, between })
    }

    pub(crate) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// Signs a node's request (PEM in and out). Whatever name the request bears, the certificate
    /// says what is given here. What stands between it and a root follows it.
    pub fn sign(
        &self,
        request: &str,
        peer: &Peer,
        valid_for: Duration,
        now: Timestamp,
    ) -> Result<String, Error> {
        let mut request = checked(request)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, peer.node.as_str());
        params.distinguished_name.push(DnType::OrganizationalUnitName, unit_of(peer.role));
        params.distinguished_name.push(DnType::OrganizationName, peer.cluster.as_str());
        params.subject_alt_names = vec![
            SanType::DnsName(unit_of(peer.role).try_into()?),
            SanType::DnsName(peer.node.as_str().try_into()?),
        ];
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = validity(now, valid_for)?;
        request.params = params;
        Ok([request.signed_by(&self.issuer)?.pem(), self.between.clone()].concat())
    }
}

/// Reads a node's request (PEM), which proves that it has the key.
pub(crate) fn checked(request: &str) -> Result<CertificateSigningRequestParams, Error> {
    let request = CertificateSigningRequestParams::from_pem(request)
        .map_err(|error| Error::Request(error.to_string()))?;
    if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
        return Err(Error::Request("its key is not ECDSA P-256".to_owned()));
    }
    Ok(request)
}

/// The word for a role in certificates.
pub(crate) fn unit_of(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Worker => "swarm-worker",
        NodeRole::Manager => "swarm-manager",
    }
}

pub(crate) fn validity(
    now: Timestamp,
    valid_for: Duration,
) -> Result<(OffsetDateTime, OffsetDateTime), Error> {
    let time = |at: Timestamp| {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0))
            .map_err(|error| Error::Certificate(error.to_string()))
    };
    let backdated = i64::try_from(BACKDATED.as_nanos()).unwrap_or_default();
    Ok((time(Timestamp(now.0.saturating_sub(backdated)))?, time(now.after(valid_for))?))
}
