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
    if !auth.identitytoken.is_empty() {
        let text = "an identity token of a registry (log in with a name and a password)";
        return Err(Fault::not_implemented(text));
    }
    Ok((!auth.username.is_empty()).then_some(PullCredentials {
        username: auth.username,
        password: auth.password,
        identity_token: String::new(),
    }))
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
        assert_eq!(credentials(&headers).unwrap_err().kind, types::FaultKind::NotImplemented);
    }
}
