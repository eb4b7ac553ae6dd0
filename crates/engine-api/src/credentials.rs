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
}

/// Reads `X-Registry-Auth`: base64 of JSON. Nothing of substance is none.
pub(crate) fn credentials(headers: &HeaderMap) -> Result<Option<PullCredentials>, Fault> {
    let Some(text) = headers.get("X-Registry-Auth").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let wrong = || Fault::invalid("invalid X-Registry-Auth header: use base64 of JSON");
    let bytes = base64::engine::general_purpose::URL_SAFE
        .decode(text)
        .or_else(|_other_alphabet| base64::engine::general_purpose::STANDARD.decode(text))
        .map_err(|_neither| wrong())?;
    let auth: AuthJson = crate::request::read(&bytes).map_err(|_syntax| wrong())?.value;
    let AuthJson { username, password, identitytoken: identity_token } = auth;
    let is_some = !username.is_empty() || !identity_token.is_empty();
    Ok(is_some.then_some(PullCredentials { username, password, identity_token }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_come_in_both_alphabets_and_may_be_empty() {
        let text = r#"{"username":"u","password":"p?>"}"#;
        for coded in [
            base64::engine::general_purpose::URL_SAFE.encode(text),
            base64::engine::general_purpose::STANDARD.encode(text),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("X-Registry-Auth", coded.parse().unwrap());
            assert_eq!(credentials(&headers).unwrap().unwrap().password, "p?>");
        }
        let mut headers = HeaderMap::new();
        headers.insert("X-Registry-Auth", "e30=".parse().unwrap());
        assert_eq!(credentials(&headers).unwrap(), None);
        headers.insert("X-Registry-Auth", "%%".parse().unwrap());
        assert!(credentials(&headers).is_err());
        let token = base64::engine::general_purpose::URL_SAFE.encode(r#"{"identitytoken":"t"}"#);
        headers.insert("X-Registry-Auth", token.parse().unwrap());
        assert_eq!(credentials(&headers).unwrap().unwrap().identity_token, "t");
    }
}
