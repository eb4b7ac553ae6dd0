//! What an external CA answers, and whether that is what it was asked for.

use crate::peer::{Statement, statement};
use crate::root::{as_issuer, one, parse};
use crate::roots::Roots;
use crate::text::{certificates, write};
use crate::{Error, Peer};
use rcgen::{PublicKey, PublicKeyData};
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use types::{Cluster, EXTERNAL_VALIDITY_MAX, Issuer, Timestamp, chain};

/// How much is told of an answer that is a refusal.
const TOLD_MAX: usize = 200;

/// By whom certificates are to be, and who is to trust them.
#[derive(Debug)]
pub(super) struct Asked {
    root: CertificateDer<'static>,
    issuer: Issuer,
    /// PEM of what stands between certificates and the cluster's root.
    between: String,
    /// Each of these alone: a node may know one of them only.
    roots: Vec<Roots>,
}

impl Asked {
    pub(super) fn of(cluster: &Cluster) -> Result<Self, Error> {
        let root = one(cluster.wanted_root())?;
        let issuer = as_issuer(&parse(&root)?);
        let mut roots = vec![Roots::parse(&cluster.root_ca.certificate)?];
        let mut between = String::new();
        if let Some(next) = &cluster.root_rotation {
            roots.push(Roots::parse(&next.certificate)?);
            between.clone_from(&next.cross_signed);
        }
        Ok(Self { root, issuer, between, roots })
    }

    /// The certificate in PEM, with what stands between it and a root. Fails where it is not by that
    /// root, not for that key, not for that node, or not to be trusted by everybody.
    pub(super) fn accept(
        &self,
        certificate: &CertificateDer<'_>,
        key: &PublicKey,
        peer: &Peer,
        now: Timestamp,
    ) -> Result<String, String> {
        let wrong = |error: Error| chain(&error);
        let parsed = parse(certificate).map_err(wrong)?;
        let Statement { peer: named, expires_at, .. } = statement(certificate).map_err(wrong)?;
        if named != *peer {
            return Err("the certificate is for another node, role or cluster".to_owned());
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err("the certificate is for another key".to_owned());
        }
        let root = parse(&self.root).map_err(wrong)?;
        let is_by_root = parsed.issuer().as_raw() == self.issuer.subject
            && parsed.verify_signature(Some(root.public_key())).is_ok();
        if !is_by_root {
            return Err("the certificate is not by the root that is wanted".to_owned());
        }
        if now.after(EXTERNAL_VALIDITY_MAX) < expires_at {
            return Err("the certificate holds for more than ten years".to_owned());
        }
        let signed = [write(certificate), self.between.clone()].concat();
        let shown = certificates(&signed).map_err(wrong)?;
        for roots in &self.roots {
            let trusted = roots.check(&shown, now).and_then(|()| roots.check_client(&shown, now));
            trusted.map_err(|error| format!("the certificate would not be trusted: {error}"))?;
        }
        Ok(signed)
    }
}

/// The certificate in an answer. What may follow it is not looked at.
pub(super) fn certificate(body: &[u8]) -> Result<CertificateDer<'static>, String> {
    let answer: Value = serde_json::from_slice(body)
        .map_err(|error| format!("unable to parse JSON response: {error}"))?;
    if answer["success"] != true || answer["result"].is_null() {
        return Err(errors(&answer).unwrap_or("certificate signing request failed".to_owned()));
    }
    let text = answer["result"]["certificate"].as_str();
    let text = text.ok_or("there is no certificate in the answer")?;
    let read = certificates(text).map_err(|error| chain(&error))?;
    read.into_iter().next().ok_or_else(|| "there is no certificate in the answer".to_owned())
}

/// What an answer says that is none.
pub(super) fn refusal(body: &[u8]) -> String {
    let answer = serde_json::from_slice::<Value>(body).ok();
    let told = answer.and_then(|answer| errors(&answer));
    told.unwrap_or_else(|| short(&String::from_utf8_lossy(body)))
}

fn errors(answer: &Value) -> Option<String> {
    let errors = answer["errors"].as_array()?;
    let told = errors.iter().filter_map(|error| error["message"].as_str());
    let told = told.collect::<Vec<&str>>().join(", ");
    (!told.is_empty()).then(|| format!("response errors: {}", short(&told)))
}

/// On one line, and not for ever: it ends in logs and on terminals.
fn short(text: &str) -> String {
    let plain = text.trim().chars().map(|char| if char.is_control() { ' ' } else { char });
    plain.take(TOLD_MAX).collect()
}
