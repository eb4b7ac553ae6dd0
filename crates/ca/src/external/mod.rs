//! Roots whose key somebody else has: an external CA signs, by the protocol of CFSSL.
//!
//! A manager sends what a machine asks for, and shows its own certificate; whoever answers shows one
//! by the root. Nothing of an answer is taken for granted: who has it signed is asked, for which key and
//! for whom, and whether everybody would trust it ([`answer`]).

mod answer;
mod request;

use crate::authority::{Authority, checked};
use crate::roots::Roots;
use crate::{Error, Identity, Peer, tls};
use answer::Asked;
use reqwest::header::CONTENT_TYPE;
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};
use rustls_pki_types::CertificateDer;
use std::time::Duration;
use types::{Cluster, RootCa, Timestamp, causes};

/// For one of them to answer, as with swarmkit.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// For all of them: whoever waits for a certificate has 20 seconds.
const ALL_MAX: Duration = Duration::from_secs(9);
/// The longest answer, as with swarmkit.
const BYTES_MAX: usize = 256 * 1024;

/// Who signs by a cluster's root.
#[derive(Debug)]
pub struct External {
    urls: Vec<String>,
    client: Client,
    asked: Asked,
    patience: (Duration, Duration),
}

/// Signs a node's request (PEM) with the root that a cluster wants certificates to be by, or has it signed
/// by whoever has that root's key. Who asks shows its own certificate.
pub async fn sign(
    cluster: &Cluster,
    request: &str,
    peer: &Peer,
    own: Option<&Identity>,
    now: Timestamp,
) -> Result<String, Error> {
    match External::of(cluster, own)? {
        Some(external) => external.sign(request, peer, now).await,
        None if !wanted_key(cluster).is_empty() => {
            let validity = cluster.spec.certificate_validity;
            Authority::of(cluster)?.sign(request, peer, validity, now)
        }
        None => Err(Error::External("no external CA URLs".to_owned())),
    }
}

/// Says why nobody can be asked there. Certificates are asked for by HTTPS alone: who answers must be known.
pub fn check_url(url: &str) -> Result<(), Error> {
    let invalid = |why: &str| Error::Root(format!("invalid external CA URL {url:?}: {why}"));
    let parsed = Url::parse(url).map_err(|error| invalid(&error.to_string()))?;
    if parsed.scheme() != "https" {
        return Err(invalid("it must begin with https://"));
    }
    Ok(())
}

fn wanted_key(cluster: &Cluster) -> &str {
    let next = cluster.root_rotation.as_ref().map(|next| &next.key);
    next.unwrap_or(&cluster.root_ca.key)
}

impl External {
    /// Those that sign by the root that a cluster wants certificates to be by. `None`: there are none, as
    /// the cluster signs itself.
    pub fn of(cluster: &Cluster, own: Option<&Identity>) -> Result<Option<Self>, Error> {
        let root = cluster.wanted_root();
        let urls: Vec<String> = cluster.external_cas_of(root).map(str::to_owned).collect();
        if urls.is_empty() {
            return Ok(None);
        }
        let tls = tls::external_client_config(&Roots::parse(&cluster.roots())?, own)?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .http1_only()
            .redirect(Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(0)
            .user_agent(concat!("skep/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::External(cause(&error)))?;
        let asked = Asked::of(cluster)?;
        Ok(Some(Self { urls, client, asked, patience: (ANSWER_MAX, ALL_MAX) }))
    }

    /// Has a node's request (PEM) signed. Whatever name it bears, the certificate says what is given
    /// here. What stands between it and a root follows it.
    pub async fn sign(&self, request: &str, peer: &Peer, now: Timestamp) -> Result<String, Error> {
        let key = checked(request)?.public_key;
        let body = request::for_node(request, peer);
        let accept = |answer: CertificateDer<'static>| self.asked.accept(&answer, &key, peer, now);
        self.ask(&body, &accept).await
    }

    /// Has the name and the key of the next root signed; PEM.
    pub async fn cross_sign(&self, next: &RootCa) -> Result<String, Error> {
        let body = request::for_root(next)?;
        self.ask(&body, &|answer| Ok(crate::text::write(&answer))).await
    }

    /// Asks one after the other until one has done as it was asked to. Fails as the last one did.
    async fn ask(
        &self,
        body: &str,
        accept: &(dyn Fn(CertificateDer<'static>) -> Result<String, String> + Sync),
    ) -> Result<String, Error> {
        let (each, all) = self.patience;
        // The last one is asked in time, too, where none before it answers.
        let count = u32::try_from(self.urls.len()).unwrap_or(u32::MAX).max(1);
        let each = each.min(all / count);
        let mut last = String::new();
        let asking = async {
            for url in &self.urls {
                let answer = tokio::time::timeout(each, self.post(url, body)).await;
                let answer = answer.unwrap_or_else(|_| Err("no answer in time".to_owned()));
                match answer.and_then(|answer| accept(answer::certificate(&answer)?)) {
                    Ok(signed) => return Some(signed),
                    Err(error) => {
                        tracing::warn!(url = shown(url), error, "an external CA has not signed");
                        last = format!("external CA {}: {error}", shown(url));
                    }
                }
            }
            None
        };
        match tokio::time::timeout(all, asking).await {
            Ok(Some(signed)) => Ok(signed),
            Ok(None) => Err(Error::External(last)),
            Err(_) => Err(Error::External("the external CAs did not answer in time".to_owned())),
        }
    }

    async fn post(&self, url: &str, body: &str) -> Result<Vec<u8>, String> {
        let request = self.client.post(url).header(CONTENT_TYPE, "application/json");
        let sent = request.body(body.to_owned()).send().await;
        let response = sent.map_err(|error| {
            format!("unable to perform certificate signing request: {}", cause(&error))
        })?;
        let status = response.status();
        let body = read(response).await?;
        if status.as_u16() == 200 {
            return Ok(body);
        }
        let why = answer::refusal(&body);
        Err(format!("unexpected status code in CSR response: {} - {why}", status.as_u16()))
    }
}

async fn read(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(more)) if body.len() + more.len() <= BYTES_MAX => body.extend_from_slice(&more),
            Ok(Some(_)) => return Err("the answer is too long".to_owned()),
            Ok(None) => return Ok(body),
            Err(error) => {
                return Err(format!("unable to read CSR response body: {}", cause(&error)));
            }
        }
    }
}

/// What is at the bottom of an error.
fn cause(error: &reqwest::Error) -> String {
    causes(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}

/// An address without what may be secret in it.
fn shown(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    host.rsplit_once('@').map_or(host, |(_, host)| host)
}

#[cfg(test)]
mod tests;
