//! Who is at the other end of a connection.

use crate::Error;
use crate::authority::unit_of;
use crate::incoming::Connection;
use rustls_pki_types::CertificateDer;
use std::net::SocketAddr;
use types::{ClusterId, NodeId, NodeRole, Timestamp};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// Who a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    pub node: NodeId,
    pub role: NodeRole,
    pub cluster: ClusterId,
}

/// Who calls, as its certificate says; `None`: a stranger.
pub fn peer<T>(request: &tonic::Request<T>) -> Option<Peer> {
    request.extensions().get::<Connection>()?.peer.clone()
}

/// The whole name of whom a certificate is for, e.g. `CN=alice, O=ops`.
pub fn subject(certificate: &CertificateDer<'_>) -> Result<String, Error> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| Error::Certificate(error.to_string()))?;
    Ok(parsed.subject().to_string())
}

/// The address that a call comes from.
pub fn remote<T>(request: &tonic::Request<T>) -> Option<SocketAddr> {
    Some(request.extensions().get::<Connection>()?.remote)
}

/// What a certificate says, without a look at who signed it.
pub(crate) struct Statement {
    pub(crate) peer: Peer,
    pub(crate) starts_at: Timestamp,
    pub(crate) expires_at: Timestamp,
}

pub(crate) fn statement(certificate: &CertificateDer<'_>) -> Result<Statement, Error> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| Error::Certificate(error.to_string()))?;
    let subject = parsed.subject();
    let node = only(subject, X509Name::iter_common_name, "node")?;
    let unit = only(subject, X509Name::iter_organizational_unit, "role")?;
    let cluster = only(subject, X509Name::iter_organization, "cluster")?;
    let role = [NodeRole::Worker, NodeRole::Manager]
        .into_iter()
        .find(|role| unit_of(*role) == unit)
        .ok_or_else(|| Error::Certificate(format!("it names the unknown role {unit}")))?;
    let validity = parsed.validity();
    let time = |seconds: i64| Timestamp(seconds.saturating_mul(1_000_000_000));
    Ok(Statement {
        peer: Peer { node: node.into(), role, cluster: cluster.into() },
        starts_at: time(validity.not_before.timestamp()),
        expires_at: time(validity.not_after.timestamp()),
    })
}

/// The one value of a part of a name.
fn only<'a, I>(
    name: &'a X509Name<'a>,
    part: impl Fn(&'a X509Name<'a>) -> I,
    what: &str,
) -> Result<&'a str, Error>
where
    I: Iterator<Item = &'a AttributeTypeAndValue<'a>>,
{
    let mut values = part(name);
    match (values.next(), values.next()) {
        (Some(value), None) => {
            value.as_str().map_err(|error| Error::Certificate(error.to_string()))
        }
        (Some(_), Some(_)) => Err(Error::Certificate(format!("it names more than one {what}"))),
        (None, _) => Err(Error::Certificate(format!("it names no {what}"))),
    }
}
