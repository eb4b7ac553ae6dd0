//! Roots: those that users give, and how one takes the place of another.
//!
//! The next root's name and key, signed by the old root, are a certificate that stands between nodes'
//! certificates by the next root and the old one: whoever trusts either root alone knows them.

use crate::authority::{Authority, validity};
use crate::identity::Identity;
use crate::roots::Roots;
use crate::text::{certificates, write};
use crate::{Error, Peer, authority};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, KeyUsagePurpose,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use std::time::Duration;
use types::{Issuer, NodeRole, RootCa, RootRotation, Timestamp};
use x509_parser::asn1_rs::Tag;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

/// What a root that a user gives has to hold at least.
const VALIDITY_MIN: Duration = Duration::from_hours(365 * 24);

/// Who signed nodes' certificates whose root (PEM) is this one.
pub fn issuer(root: &str) -> Result<Issuer, Error> {
    Ok(as_issuer(&parse(&one(root)?)?))
}

/// A root certificate in the one form that is stored.
pub fn canonical(root: &str) -> Result<String, Error> {
    Ok(write(&one(root)?))
}

pub(crate) fn as_issuer(certificate: &X509Certificate<'_>) -> Issuer {
    Issuer {
        subject: certificate.subject().as_raw().to_vec(),
        public_key: certificate.public_key().raw.to_vec(),
    }
}

/// Who signed the first certificate of a chain: what stands behind it, or one of the roots.
pub(crate) fn issuer_of(
    chain: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
) -> Result<Issuer, Error> {
    let own = parse(&chain[0])?;
    for candidate in chain[1..].iter().chain(roots) {
        let candidate = parse(candidate)?;
        if own.verify_signature(Some(candidate.public_key())).is_ok() {
            return Ok(as_issuer(&candidate));
        }
    }
    Err(Error::Certificate("none of the roots has signed it".to_owned()))
}

pub(crate) fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    let read = X509Certificate::from_der(certificate);
    let (_, parsed) = read.map_err(|error| Error::Certificate(error.to_string()))?;
    Ok(parsed)
}

pub(crate) fn one(text: &str) -> Result<CertificateDer<'static>, Error> {
    let unreadable = |_| Error::Root("could not parse the desired CA certificate".to_owned());
    let mut all = certificates(text).map_err(unreadable)?;
    match (all.pop(), all.is_empty()) {
        (Some(one), true) => Ok(one),
        _ => Err(Error::Root(
            "the desired CA certificate cannot contain multiple certificates".to_owned(),
        )),
    }
}

/// A root that a user gives, in PEM; without its key an external authority has it. Fails where it
/// cannot be a cluster's.
pub fn given(certificate: &str, key: &str, now: Timestamp) -> Result<RootCa, Error> {
    let der = one(certificate)?;
    let parsed = parse(&der)?;
    if !parsed.is_ca() {
        return Err(Error::Root("the desired certificate is not a CA's".to_owned()));
    }
    let ends = parsed.validity().not_after.timestamp();
    if ends.saturating_mul(1_000_000_000) < now.after(VALIDITY_MIN).0 {
        return Err(Error::Root("CA certificate expires too soon".to_owned()));
    }
    let root = RootCa { certificate: write(&der), key: key.to_owned() };
    if !key.is_empty() {
        prove(&Authority::load(&root)?, &[&root.certificate], now).map_err(|error| {
            Error::Root(format!("certificate key mismatch: {}", types::chain(&error)))
        })?;
    }
    Ok(root)
}

/// Begins to put `new` in the place of `old`, whose key is known.
pub fn rotate(old: &RootCa, new: RootCa, now: Timestamp) -> Result<RootRotation, Error> {
    let cross_signed = cross_sign(old, &new.certificate, now)?;
    rotation(old, new, cross_signed, now)
}

/// The same where `old` has signed `new` (PEM) already, as who has its key was asked to.
pub fn rotate_signed(
    old: &RootCa,
    new: RootCa,
    cross_signed: &str,
    now: Timestamp,
) -> Result<RootRotation, Error> {
    let (signed, wanted) = (one(cross_signed)?, one(&new.certificate)?);
    if as_issuer(&parse(&signed)?) != as_issuer(&parse(&wanted)?) {
        let text = "the old root has signed another name or another key than the new root's";
        return Err(Error::Root(text.to_owned()));
    }
    rotation(old, new, write(&signed), now)
}

fn rotation(
    old: &RootCa,
    new: RootCa,
    cross_signed: String,
    now: Timestamp,
) -> Result<RootRotation, Error> {
    let RootCa { certificate, key } = new;
    let next = RootRotation { certificate, key, cross_signed };
    if !next.key.is_empty() {
        let authority = Authority::next(&next)?;
        // Whoever trusts either, or both.
        let both = [old.certificate.as_str(), &next.certificate].concat();
        prove(&authority, &[&old.certificate, &next.certificate, &both], now)?;
    }
    Ok(next)
}

/// A root's name and key, signed by `old`.
fn cross_sign(old: &RootCa, new: &str, now: Timestamp) -> Result<String, Error> {
    let new = one(new)?;
    let parsed = parse(&new)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = name(parsed.subject())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = validity(now, authority::ROOT_VALIDITY)?;
    let key = SubjectPublicKeyInfo::from_der(parsed.public_key().raw)?;
    let signed = params.signed_by(&key, Authority::load(old)?.issuer())?;
    if parse(signed.der())?.subject().as_raw() != parsed.subject().as_raw() {
        let text = "the subject of the desired CA certificate is of a form that cannot be signed";
        return Err(Error::Root(text.to_owned()));
    }
    Ok(write(signed.der()))
}

/// A name of the same bytes: of the same kinds of text, too.
pub(crate) fn name(name: &X509Name<'_>) -> Result<DistinguishedName, Error> {
    let unknown = || Error::Root("the subject of the desired CA certificate is unusual".to_owned());
    let mut same = DistinguishedName::new();
    for attribute in name.iter_attributes() {
        let oid = attribute.attr_type().iter().ok_or_else(unknown)?;
        let kind = DnType::from_oid(&oid.collect::<Vec<u64>>());
        let value = attribute.attr_value();
        let text = || std::str::from_utf8(value.data).map_err(|_not_text| unknown());
        let value = match value.tag() {
            Tag::Utf8String => DnValue::Utf8String(text()?.to_owned()),
            Tag::PrintableString => DnValue::PrintableString(text()?.try_into()?),
            Tag::Ia5String => DnValue::Ia5String(text()?.try_into()?),
            Tag::T61String => DnValue::TeletexString(text()?.try_into()?),
            _ => return Err(unknown()),
        };
        same.push(kind, value);
    }
    Ok(same)
}

/// Says why nodes' certificates by an authority would not be trusted by each of these sets of roots.
fn prove(authority: &Authority, roots: &[&str], now: Timestamp) -> Result<(), Error> {
    let request = Identity::generate()?;
    let peer = Peer { node: "n".into(), role: NodeRole::Worker, cluster: "c".into() };
    let signed = authority.sign(request.csr(), &peer, Duration::from_hours(1), now)?;
    let chain = certificates(&signed)?;
    for roots in roots {
        Roots::parse(roots)?.check(&chain, now)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
