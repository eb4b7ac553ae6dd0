//! Certificates as text (PEM).

use crate::Error;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// The certificates of a text, one after the other; at least one.
pub(crate) fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let read = read.map_err(|error| Error::Certificate(format!("it cannot be read: {error:?}")))?;
    if read.is_empty() {
        return Err(Error::Certificate("there is none".to_owned()));
    }
    Ok(read)
}

/// A certificate as text, in the one form that this program writes.
pub(crate) fn write(certificate: &CertificateDer<'_>) -> String {
    let line_ending = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", certificate.to_vec()), line_ending)
}
