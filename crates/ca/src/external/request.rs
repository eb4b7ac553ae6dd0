//! What an external CA is asked: a signing request in JSON, as CFSSL reads it.

use crate::authority::unit_of;
use crate::root::{name, one, parse};
use crate::{Error, Peer};
use rcgen::{CertificateParams, KeyPair};
use serde::Serialize;
use std::fmt::Write as _;
use types::{NodeRole, RootCa};

/// The policy by which it is to sign a root, as with swarmkit.
const ROOT_PROFILE: &str = "CA";
/// A name that certificates of managers have besides, as swarmkit's do.
const CA_NAME: &str = "swarm-ca";
const BASIC_CONSTRAINTS: &str = "2.5.29.19";

#[derive(Serialize)]
struct SignRequest<'a> {
    hosts: Vec<&'a str>,
    certificate_request: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Subject<'a>>,
    profile: &'a str,
    crl_override: &'a str,
    label: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    extensions: Vec<Extension>,
}

#[derive(Serialize)]
struct Subject<'a> {
    #[serde(rename = "CN")]
    common_name: &'a str,
    names: [Name<'a>; 1],
}

#[derive(Serialize)]
struct Name<'a> {
    #[serde(rename = "O")]
    organization: &'a str,
    #[serde(rename = "OU")]
    unit: &'a str,
}

#[derive(Serialize)]
struct Extension {
    id: &'static str,
    critical: bool,
    /// In hexadecimal digits.
    value: String,
}

/// Asks for a node's certificate: by its request (PEM), for what the manager says that it is.
pub(super) fn for_node(request: &str, peer: &Peer) -> String {
    let (node, unit) = (peer.node.as_str(), unit_of(peer.role));
    let mut hosts = vec![unit, node];
    if peer.role == NodeRole::Manager {
        hosts.push(CA_NAME);
    }
    render(&SignRequest {
        hosts,
        certificate_request: request,
        subject: Some(Subject {
            common_name: node,
            names: [Name { organization: peer.cluster.as_str(), unit }],
        }),
        profile: "",
        crl_override: "",
        label: "",
        extensions: Vec::new(),
    })
}

/// Asks for a root's name and key in a certificate by the external CA's own root.
pub(super) fn for_root(root: &RootCa) -> Result<String, Error> {
    let certificate = one(&root.certificate)?;
    let parsed = parse(&certificate)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = name(parsed.subject())?;
    let request = params.serialize_request(&KeyPair::from_pem(&root.key)?)?.pem()?;
    // Of what a request asks for CFSSL reads names alone.
    let constraints =
        parsed.extensions().iter().filter(|it| it.oid.to_id_string() == BASIC_CONSTRAINTS);
    let extensions = constraints.map(|it| Extension {
        id: BASIC_CONSTRAINTS,
        critical: it.critical,
        value: hexadecimal(it.value),
    });
    Ok(render(&SignRequest {
        hosts: Vec::new(),
        certificate_request: &request,
        subject: None,
        profile: ROOT_PROFILE,
        crl_override: "",
        label: "",
        extensions: extensions.collect(),
    }))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A text takes whatever is written to it.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

fn render(request: &SignRequest<'_>) -> String {
    serde_json::to_string(request).unwrap_or_default()
}
