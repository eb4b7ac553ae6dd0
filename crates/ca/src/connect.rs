//! Connections to a manager.

use crate::bounded::{Bounded, expired};
use crate::peer::statement;
use hyper_util::rt::TokioIo;
use rustls::{CertificateError, ClientConfig};
use rustls_pki_types::ServerName;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};
use types::{Fault, causes};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// For the machine to answer, which it does by itself, however busy its daemon is: one packet may be lost,
/// and is sent again after a second. Where several managers are lost, nodes ask one after the other.
pub const REACH_LIMIT: Duration = Duration::from_secs(2);
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const KEEP_ALIVE_LIMIT: Duration = Duration::from_secs(10);

/// Connects to the manager at `address` (`host:port`). The channel connects anew by itself when
/// the connection breaks; a call on it fails while it cannot.
///
/// A manager that does not answer is `Unavailable`; one that is not to be trusted is `Invalid`.
pub async fn connect(address: &str, config: Arc<ClientConfig>) -> Result<Channel, Fault> {
    connect_within(address, config, REACH_LIMIT).await
}

/// The same, where the machine has `reach` to answer.
pub async fn connect_within(
    address: &str,
    config: Arc<ClientConfig>,
    reach: Duration,
) -> Result<Channel, Fault> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| Fault::invalid(format!("{address} is no host:port: {error}")))?
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_LIMIT)
        .keep_alive_while_idle(true);
    let (target, tls) = (address.to_owned(), TlsConnector::from(config));
    let connector = tower::service_fn(move |_: Uri| {
        let (target, tls) = (target.clone(), tls.clone());
        async move { open(&target, tls, reach).await.map(TokioIo::new) }
    });
    endpoint.connect_with_connector(connector).await.map_err(|error| fault(address, &error))
}

/// A connection that ends with the manager's certificate.
async fn open(
    address: &str,
    tls: TlsConnector,
    reach: Duration,
) -> io::Result<Bounded<TlsStream<TcpStream>, ()>> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    let connect = async {
        let reached = tokio::time::timeout(reach, TcpStream::connect(address)).await;
        let stream = reached.map_err(late)??;
        stream.set_nodelay(true)?;
        // Certificates name nodes, not hosts: the name here is not looked at.
        let name = ServerName::try_from("swarm-manager").map_err(io::Error::other)?;
        tls.connect(name, stream).await
    };
    let stream = tokio::time::timeout(CONNECT_LIMIT, connect).await.map_err(late)??;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let shown = shown.ok_or_else(|| io::Error::other("the manager shows no certificate"))?;
    let expires_at = statement(shown).map_err(io::Error::other)?.expires_at;
    Ok(Bounded::new(stream, (), Box::pin(expired(expires_at))))
}

/// Finds what is at the bottom of tonic's "transport error".
fn fault(address: &str, error: &tonic::transport::Error) -> Fault {
    if let Some(rustls::Error::InvalidCertificate(reason)) = causes(error).find_map(within) {
        return Fault::invalid(distrust(address, reason));
    }
    let cause = causes(error).last().map(ToString::to_string).unwrap_or_default();
    Fault::unavailable(format!("cannot connect to the manager {address}: {cause}"))
}

/// Why a manager is not trusted, and what to do where it is a clock. Two attempts give the same text:
/// the library's own tells the second of each.
fn distrust(address: &str, reason: &CertificateError) -> String {
    let why = match reason {
        CertificateError::Other(own) => return own.to_string(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "by this node's clock its certificate does not hold yet: set the clock, this node's or the \
             manager's, whichever is wrong; the manager signs itself a new one within a minute then"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "by this node's clock its certificate has expired: set the clock, if it is wrong"
        }
        other => return format!("the manager {address} is not trusted: {other}"),
    };
    format!("the manager {address} is not trusted: {why}")
}

/// The TLS error that an I/O error carries.
fn within<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    error.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::UnixTime;

    #[test]
    fn a_wrong_clock_is_told_as_that_and_in_the_same_words_each_time() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let early = |seconds| {
            let (time, not_before) = (at(seconds), at(1000));
            distrust("m:2377", &CertificateError::NotValidYetContext { time, not_before })
        };
        let late = |seconds| {
            let (time, not_after) = (at(seconds), at(1000));
            distrust("m:2377", &CertificateError::ExpiredContext { time, not_after })
        };
        assert!(early(1).contains("set the clock, this node's or the manager's"), "{}", early(1));
        assert!(late(2000).contains("has expired: set the clock"), "{}", late(2000));
        assert_eq!((early(1), late(2000)), (early(2), late(2001)));
        let other = distrust("m:2377", &CertificateError::UnknownIssuer);
        assert!(other.starts_with("the manager m:2377 is not trusted: "), "{other}");
    }
}
