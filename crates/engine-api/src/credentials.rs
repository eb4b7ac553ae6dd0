//! What a registry is told comes in a header, for images and services alike.

use axum::http::HeaderMap;
use base64::Engine as _;
use serde::Deserialize;
use types::{Fault, PullCredentials};

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "AuthConfig", default)]
struct AuthJson {
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// What a request says of the registry's credentials.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RegistryAuth {
    /// There is no header, or nothing in it: what was said before stands.
    NotSaid,
    /// Also that there are none: a client that has logged out says so.
    Said(Option<PullCredentials>),
}

impl RegistryAuth {
    /// Reads `X-Registry-Auth`: base64 of JSON.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, Fault> {
        let Some(text) = headers.get("X-Registry-Auth").filter(|text| !text.is_empty()) else {
            return Ok(Self::NotSaid);
        };
        let wrong = || Fault::invalid("invalid X-Registry-Auth header: use base64 of JSON");
        let bytes = base64::engine::general_purpose::URL_SAFE
            .decode(text)
            .or_else(|_other_alphabet| base64::engine::general_purpose::STANDARD.decode(text))
            .map_err(|_neither| wrong())?;
        let auth: AuthJson = crate::request::read(&bytes).map_err(|_syntax| wrong())?.value;
        if !auth.registrytoken.is_empty() {
            let text = "a bearer token of a registry (log in with a name and a password)";
            return Err(Fault::not_implemented(text));
        }
        let AuthJson { username, password, identitytoken: identity_token, .. } = auth;
        let is_some = !username.is_empty() || !identity_token.is_empty();
        let credentials = PullCredentials { username, password, identity_token };
        Ok(Self::Said(is_some.then_some(credentials)))
    }
}

/// The credentials of a request that nothing was said before.
pub(crate) fn credentials(headers: &HeaderMap) -> Result<Option<PullCredentials>, Fault> {
    Ok(match RegistryAuth::read(headers)? {
        RegistryAuth::NotSaid => None,
        RegistryAuth::Said(credentials) => credentials,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_come_in_both_alphabets() {
        let text = r#"{"username":"u","password":"p?>"}"#;
        for coded in [
            base64::engine::general_purpose::URL_SAFE.encode(text),
            base64::engine::general_purpose::STANDARD.encode(text),
        ] {
            assert_eq!(credentials(&headers(&coded)).unwrap().unwrap().password, "p?>");
        }
        assert!(RegistryAuth::read(&headers("%%")).is_err());
    }

    fn headers(coded: &str) -> HeaderMap {
        [(http::HeaderName::from_static("x-registry-auth"), coded.parse().unwrap())]
            .into_iter()
            .collect()
    }

    fn said(text: &str) -> Result<RegistryAuth, Fault> {
        RegistryAuth::read(&headers(&base64::engine::general_purpose::URL_SAFE.encode(text)))
    }

    #[test]
    fn who_says_nothing_keeps_credentials_and_who_says_that_there_are_none_takes_them_away() {
        assert_eq!(RegistryAuth::read(&HeaderMap::new()), Ok(RegistryAuth::NotSaid));
        assert_eq!(RegistryAuth::read(&headers("")), Ok(RegistryAuth::NotSaid));
        // What `docker logout` leaves.
        assert_eq!(said("{}"), Ok(RegistryAuth::Said(None)));
        assert_eq!(said(r#"{"serveraddress":"r:5000"}"#), Ok(RegistryAuth::Said(None)));
        assert_eq!(credentials(&headers("e30=")), Ok(None));
    }

    #[test]
    fn a_bearer_token_is_refused_by_name_also_beside_a_user_name() {
        for text in
            [r#"{"registrytoken":"t"}"#, r#"{"username":"u","password":"p","registrytoken":"t"}"#]
        {
            let fault = said(text).unwrap_err();
            assert_eq!(fault.kind, types::FaultKind::NotImplemented);
            let message = &fault.message;
            assert!(message.contains("a bearer token") && !message.contains("\"t\""), "{fault}");
        }
    }

    #[test]
    fn an_identity_token_is_kept() {
        let RegistryAuth::Said(Some(credentials)) = said(r#"{"identitytoken":"t"}"#).unwrap()
        else {
            panic!("it says something");
        };
        assert_eq!(credentials.identity_token, "t");
    }
}
