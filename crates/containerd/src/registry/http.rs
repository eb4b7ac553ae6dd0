//! What registries are asked over HTTP, and how much of their answers is read.
//!
//! Whoever runs a registry may not mean well, and anybody can name one: what comes is read up to a
//! limit, whatever was said of its length. Credentials and tokens go to the registry itself alone, and
//! to the service for tokens that it names.

use super::challenge::{Challenge, challenge};
use futures_util::stream::{Stream, TryStreamExt};
use oci_client::Reference;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RANGE, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;
use types::chain;

/// Bytes of a token's answer, and of what explains a refusal.
const TOKEN_MAX: usize = 64 << 10;

/// Who asks.
#[derive(Clone)]
pub(crate) enum Login {
    Password {
        username: String,
        password: String,
    },
    /// What `docker login` was given by the registry in the place of a password.
    IdentityToken(String),
}

/// How requests to one repository are authorised.
#[derive(Clone)]
enum Authorization {
    Nothing,
    Password(String, String),
    Token(String),
}

/// Why a registry has not answered as it should.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It refuses: the status, and the first of the errors that it names, if it names any.
    Status(u16, Option<Named>),
    /// It gives no token.
    Token,
    /// It is not reached, or breaks off.
    Broken(String),
    /// It answers with more than there can be.
    Long(&'static str),
}

/// An error as the specification of registries has it.
#[derive(Debug, Deserialize)]
pub(crate) struct Named {
    #[serde(default)]
    pub(crate) code: String,
    #[serde(default)]
    pub(crate) message: String,
}

/// The way to one repository of a registry.
pub(crate) struct Http {
    client: Client,
    scheme: &'static str,
    login: Option<Login>,
    authorization: Mutex<Option<Authorization>>,
}

impl From<reqwest::Error> for Refusal {
    fn from(error: reqwest::Error) -> Self {
        // The address says nothing new, and may hold a token.
        let error = error.without_url();
        let cause = types::causes(&error).last().map(ToString::to_string);
        Self::Broken(cause.unwrap_or_else(|| chain(&error)))
    }
}

impl Http {
    pub(crate) fn new(client: Client, scheme: &'static str) -> Self {
        Self { client, scheme, login: None, authorization: Mutex::default() }
    }

    pub(crate) fn log_in(&mut self, login: Login) {
        self.login = Some(login);
    }

    /// A manifest, in one of the forms that are accepted.
    pub(crate) async fn manifest(
        &self,
        reference: &Reference,
        (accepted, most): (&[&str], usize),
    ) -> Result<Vec<u8>, Refusal> {
        let name = reference.digest().or(reference.tag()).unwrap_or("latest");
        let url = self.url(reference, &format!("manifests/{name}"));
        let ask = || self.client.get(&url).header(ACCEPT, accepted.join(", "));
        let answer = succeeded(self.send(reference, ask).await?).await?;
        read(answer, most, "its manifest is too large").await
    }

    /// A small blob, whole.
    pub(crate) async fn document(
        &self,
        reference: &Reference,
        (digest, size): (&str, usize),
    ) -> Result<Vec<u8>, Refusal> {
        let url = self.url(reference, &format!("blobs/{digest}"));
        let answer = succeeded(self.send(reference, || self.client.get(&url)).await?).await?;
        read(answer, size, "its configuration is larger than its manifest says").await
    }

    /// A blob from `offset` on, or whole where the registry knows no ranges; says how many of its bytes
    /// are left out. How much comes is for the caller to look at.
    pub(crate) async fn blob(
        &self,
        reference: &Reference,
        (digest, offset): (&str, u64),
    ) -> Result<(u64, impl Stream<Item = Result<bytes::Bytes, Refusal>> + use<>), Refusal> {
        let url = self.url(reference, &format!("blobs/{digest}"));
        let ask = || {
            let range = (0 < offset).then(|| format!("bytes={offset}-"));
            range.into_iter().fold(self.client.get(&url), |ask, range| ask.header(RANGE, range))
        };
        let answer = succeeded(self.send(reference, ask).await?).await?;
        let begins_at = if answer.status() == StatusCode::PARTIAL_CONTENT { offset } else { 0 };
        Ok((begins_at, answer.bytes_stream().map_err(Refusal::from)))
    }

    fn url(&self, reference: &Reference, what: &str) -> String {
        let (registry, repository) = (reference.resolve_registry(), reference.repository());
        let mirrored = reference.namespace().map(|of| format!("?ns={of}")).unwrap_or_default();
        format!("{}://{registry}/v2/{repository}/{what}{mirrored}", self.scheme)
    }

    /// Sends a request, a second time where what authorised it has expired.
    async fn send(
        &self,
        reference: &Reference,
        ask: impl Fn() -> RequestBuilder,
    ) -> Result<Response, Refusal> {
        let mut authorization = self.authorization.lock().await;
        let is_new = authorization.is_none();
        let known = match authorization.clone() {
            Some(known) => known,
            None => authorization.insert(self.authorize(reference).await?).clone(),
        };
        drop(authorization);
        let answer = known.show(ask()).send().await?;
        if is_new || answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let fresh = self.authorize(reference).await?;
        *self.authorization.lock().await = Some(fresh.clone());
        Ok(fresh.show(ask()).send().await?)
    }

    /// Asks the registry by what it wants to be asked.
    async fn authorize(&self, reference: &Reference) -> Result<Authorization, Refusal> {
        let url = format!("{}://{}/v2/", self.scheme, reference.resolve_registry());
        let answer = self.client.get(url).send().await?;
        let wanted = answer.headers().get(WWW_AUTHENTICATE).and_then(|it| it.to_str().ok());
        Ok(match (wanted.map(challenge), &self.login) {
            (Some(Challenge::Token { realm, service }), login) => {
                let scope = format!("repository:{}:pull", reference.repository());
                let mut query = vec![("scope", scope)];
                query.extend(service.map(|service| ("service", service)));
                let ask = match login {
                    Some(Login::IdentityToken(own)) => {
                        exchange(self.client.post(realm), query, own)
                    }
                    Some(Login::Password { username, password }) => {
                        self.client.get(realm).query(&query).basic_auth(username, Some(password))
                    }
                    None => self.client.get(realm).query(&query),
                };
                Authorization::Token(token(ask.send().await?).await?)
            }
            (Some(Challenge::Password), Some(Login::Password { username, password })) => {
                Authorization::Password(username.clone(), password.clone())
            }
            _ => Authorization::Nothing,
        })
    }
}

impl Authorization {
    fn show(&self, ask: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Nothing => ask,
            Self::Password(username, password) => ask.basic_auth(username, Some(password)),
            Self::Token(token) => ask.header(AUTHORIZATION, format!("Bearer {token}")),
        }
    }
}

/// Asks for a token by an identity token, as the protocol of registries has it: OAuth2 (RFC 6749, section 6).
fn exchange(ask: RequestBuilder, query: Vec<(&str, String)>, identity: &str) -> RequestBuilder {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(query).append_pair("client_id", "docker");
    form.append_pair("grant_type", "refresh_token").append_pair("refresh_token", identity);
    ask.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.finish())
}

async fn token(answer: Response) -> Result<String, Refusal> {
    #[derive(Deserialize)]
    struct Given {
        token: Option<String>,
        access_token: Option<String>,
    }
    if answer.status() != StatusCode::OK {
        return Err(Refusal::Token);
    }
    let text = read(answer, TOKEN_MAX, "its token is too long").await?;
    let given: Given = serde_json::from_slice(&text).map_err(|_other| Refusal::Token)?;
    given.token.or(given.access_token).ok_or(Refusal::Token)
}

/// Reads why, where it is refused.
async fn succeeded(answer: Response) -> Result<Response, Refusal> {
    #[derive(Deserialize)]
    struct Envelope {
        errors: Vec<Named>,
    }
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let text = read(answer, TOKEN_MAX, "its refusal is too long").await.unwrap_or_default();
    let named: Option<Envelope> = serde_json::from_slice(&text).ok();
    let named = named.filter(|_| status.is_client_error());
    Err(Refusal::Status(status.as_u16(), named.and_then(|it| it.errors.into_iter().next())))
}

/// Reads an answer, and stops where it is too long.
async fn read(mut answer: Response, most: usize, long: &'static str) -> Result<Vec<u8>, Refusal> {
    let mut content = Vec::new();
    while let Some(part) = answer.chunk().await? {
        if most - content.len() < part.len() {
            return Err(Refusal::Long(long));
        }
        content.extend_from_slice(&part);
    }
    Ok(content)
}

#[cfg(test)]
mod tests;
