//! Where images come from: registries and their mirrors, and how to speak to each.

mod challenge;
mod http;

pub(crate) use http::{Http, Refusal};

use crate::error::Error;
use engine::Credentials;
use http::{Login, Named};
use oci_client::Reference;
use reqwest::{Client, NoProxy, Proxy};
use std::net::IpAddr;
use std::time::Duration;
use types::{Fault, Retry, causes};

const CONNECT_MAX: Duration = Duration::from_secs(15);
/// Without a byte for this long a transfer is taken for broken, and tried again.
const SILENCE_MAX: Duration = Duration::from_mins(1);
/// Docker asks loopback registries over plain HTTP.
const NEVER_PROXIED: &str = "localhost,127.0.0.0/8,::1";

/// One place to ask for an image.
pub(crate) struct Source {
    pub(crate) http: Http,
    pub(crate) reference: Reference,
    /// With scheme, for messages.
    pub(crate) address: String,
    pub(crate) is_mirror: bool,
}

impl Source {
    /// The image's name, whoever is asked for it.
    pub(crate) fn image(&self) -> engine::Reference {
        self.reference.clone().into()
    }

    /// It has not answered in time.
    pub(crate) fn silent(&self, limit: Duration) -> Error {
        let message = format!("{} does not answer within {} s", self.address, limit.as_secs());
        Error::Registry { message, retry: Retry::Transient }
    }

    /// Shows it these credentials. They are for the registry itself, not for whoever mirrors it.
    pub(crate) fn log_in(&mut self, credentials: Option<&Credentials>) {
        let Some(credentials) = credentials.filter(|_| !self.is_mirror) else { return };
        let Credentials { username, password, identity_token } = credentials.clone();
        if !identity_token.is_empty() {
            self.http.log_in(Login::IdentityToken(identity_token));
        } else if !username.is_empty() {
            self.http.log_in(Login::Password { username, password });
        }
    }
}

/// A mirror of docker.io.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    host: String,
    plain: bool,
}

impl Mirror {
    /// Parses the URL of a mirror, in Docker's rules: no path. Plain HTTP is for loopback only.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let refuse =
            |reason: &str| Err(Fault::invalid(format!("invalid mirror {url:?}: {reason}")).into());
        let trimmed = url.trim_end_matches('/');
        let (plain, host) =
            match (trimmed.strip_prefix("http://"), trimmed.strip_prefix("https://")) {
                (Some(host), _) => (true, host),
                (_, Some(host)) => (false, host),
                (None, None) => return refuse("it begins with neither http:// nor https://"),
            };
        if host.is_empty() || host.contains(['/', '?', '#', '@']) {
            return refuse("only a host and a port may follow the scheme");
        }
        if plain && !is_loopback(host) {
            return refuse("plain HTTP is for registries on this machine only; use https://");
        }
        Ok(Self { host: host.to_owned(), plain })
    }
}

/// The places to ask for an image, in order.
pub(crate) fn sources(image: &Reference, mirrors: &[Mirror]) -> Result<Vec<Source>, Error> {
    let mut sources = Vec::new();
    if image.registry() == "docker.io" {
        for mirror in mirrors {
            let mut reference = image.clone();
            reference.set_mirror_registry(mirror.host.clone());
            sources.push(Source { is_mirror: true, ..source(reference, mirror.plain)? });
        }
    }
    let plain = is_loopback(image.registry());
    sources.push(source(image.clone(), plain)?);
    Ok(sources)
}

fn source(reference: Reference, plain: bool) -> Result<Source, Error> {
    let scheme = if plain { "http" } else { "https" };
    let address = format!("{scheme}://{}", reference.resolve_registry());
    let http = Http::new(client(plain)?, scheme);
    Ok(Source { http, reference, address, is_mirror: false })
}

fn client(plain: bool) -> Result<Client, Error> {
    // Whoever came first has installed the same one.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    match build(false) {
        Ok(client) => Ok(client),
        // A machine without any root certificates can still ask its own registry in plain HTTP.
        Err(_) if plain => build(true).map_err(|error| unusable(&error)),
        Err(error) => Err(unusable(&error)),
    }
}

fn build(accept_any: bool) -> reqwest::Result<Client> {
    let proxy = |name: &str| {
        let value = std::env::var(name).or_else(|_| std::env::var(name.to_uppercase()));
        value.ok().filter(|value| !value.is_empty())
    };
    let no_proxy = proxy("no_proxy").map(|own| format!("{NEVER_PROXIED},{own}"));
    let no_proxy = no_proxy.unwrap_or_else(|| NEVER_PROXIED.to_owned());
    let no_proxy = || NoProxy::from_string(&no_proxy);
    let mut builder = Client::builder()
        .danger_accept_invalid_certs(accept_any)
        .connect_timeout(CONNECT_MAX)
        .read_timeout(SILENCE_MAX)
        .user_agent(concat!("skep/", env!("CARGO_PKG_VERSION")));
    if let Some(address) = proxy("https_proxy") {
        builder = builder.proxy(Proxy::https(address)?.no_proxy(no_proxy()));
    }
    if let Some(address) = proxy("http_proxy") {
        builder = builder.proxy(Proxy::http(address)?.no_proxy(no_proxy()));
    }
    builder.build()
}

fn unusable(error: &reqwest::Error) -> Error {
    let cause = causes(error).last().map(ToString::to_string).unwrap_or_default();
    let message = format!("cannot use HTTPS: {cause} (package ca-certificates)");
    Error::Registry { message, retry: Retry::Permanent }
}

/// 127.0.0.0/8, ::1 and localhost, with or without a port.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let whole = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    name == "localhost"
        || whole
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Puts what a registry answered into Docker's words.
pub(crate) fn refusal(source: &Source, refusal: Refusal) -> Error {
    let image = source.image();
    let name = image.familiar();
    let repository = engine::Reference::shorten(image.repository());
    let denied = || {
        Fault::not_found(format!(
            "pull access denied for {repository}, repository does not exist or may require \
             'docker login'"
        ))
        .into()
    };
    let unknown =
        || Fault::not_found(format!("manifest for {name} not found: manifest unknown")).into();
    let broken = |retry, reason: String| {
        let message = format!("cannot pull {name} from {}: {reason}", source.address);
        Error::Registry { message, retry }
    };
    match refusal {
        Refusal::Token | Refusal::Status(401, _) | Refusal::Status(403, None) => denied(),
        Refusal::Status(_, Some(Named { code, message })) => match code.as_str() {
            "UNAUTHORIZED" | "DENIED" | "NAME_UNKNOWN" => denied(),
            "MANIFEST_UNKNOWN" | "NOT_FOUND" => unknown(),
            "TOOMANYREQUESTS" => broken(Retry::Transient, format!("toomanyrequests: {message}")),
            _ => broken(Retry::Permanent, message),
        },
        Refusal::Status(404, None) => unknown(),
        Refusal::Status(code, None) => {
            let passing = code == 429 || code == 408 || 500 <= code;
            let retry = if passing { Retry::Transient } else { Retry::Permanent };
            broken(retry, format!("it answers with HTTP status {code}"))
        }
        Refusal::Broken(reason) => broken(Retry::Transient, reason),
        Refusal::Long(what) => Error::Archive(what.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_asked_in_plain_http() {
        for host in
            ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "::1", "[::1]:80"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["10.0.0.1:5000", "docker.io", "localhost.example.com", "[fd00::1]:80"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_mirror_is_a_scheme_and_a_host() {
        assert!(Mirror::parse("https://mirror.example/").is_ok());
        assert!(Mirror::parse("http://127.0.0.1:5000").is_ok());
        for url in ["mirror", "ftp://a", "https://", "https://a/b", "http://10.0.0.1"] {
            assert!(Mirror::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn docker_io_is_asked_after_its_mirrors_and_others_have_none() {
        let mirrors = [Mirror::parse("http://127.0.0.1:5000").unwrap()];
        let addresses = |name: &str| -> Vec<String> {
            let image = engine::Reference::parse(name).unwrap();
            let sources = sources(image.parts(), &mirrors).unwrap();
            sources.into_iter().map(|source| source.address).collect()
        };
        assert_eq!(addresses("nginx"), ["http://127.0.0.1:5000", "https://index.docker.io"]);
        assert_eq!(addresses("localhost:1/a"), ["http://localhost:1"]);
        assert_eq!(addresses("example.com/a"), ["https://example.com"]);
    }
}
