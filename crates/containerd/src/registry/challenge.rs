//! What a registry wants to see before it answers (RFC 9110, 11.6.1).

/// How a request is to be authorised.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// By a token that the service at `realm` gives.
    Token {
        realm: String,
        service: Option<String>,
    },
    /// By name and password.
    Password,
    Other,
}

/// Reads the header of a registry.
pub(super) fn challenge(header: &str) -> Challenge {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Challenge::Password;
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Challenge::Other;
    }
    let (mut realm, mut service, mut rest) = (None, None, rest);
    while let Some((name, value, after)) = parameter(rest) {
        if name.eq_ignore_ascii_case("realm") {
            realm = Some(value);
        } else if name.eq_ignore_ascii_case("service") {
            service = Some(value);
        }
        rest = after;
    }
    realm.map_or(Challenge::Other, |realm| Challenge::Token { realm, service })
}

/// `name="value"` or `name=value`, and what follows behind the comma.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let (name, text) = text.split_once('=')?;
    let Some(mut quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_once(',').unwrap_or((text, ""));
        return Some((name.trim(), value.trim().to_owned(), rest));
    };
    let mut value = String::new();
    loop {
        let (part, rest) = quoted.split_at(quoted.find(['"', '\\'])?);
        value.push_str(part);
        let mut rest = rest.chars();
        if rest.next() == Some('"') {
            let rest = rest.as_str().trim_start();
            return Some((name.trim(), value, rest.strip_prefix(',').unwrap_or(rest)));
        }
        // What stands behind a backslash is meant as it is.
        value.push(rest.next()?);
        quoted = rest.as_str();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_fetched_where_the_registry_says() {
        let token = |realm: &str, service: Option<&str>| Challenge::Token {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        };
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io""#;
        assert_eq!(
            challenge(hub),
            token("https://auth.docker.io/token", Some("registry.docker.io"))
        );
        let other = r#"bearer service=a, scope="repository:x:pull,push", Realm="https://a/\"b\"""#;
        assert_eq!(challenge(other), token(r#"https://a/"b""#, Some("a")));
        assert_eq!(challenge(r#"Bearer error="x",realm="r""#), token("r", None));
    }

    #[test]
    fn others_are_not_taken_for_it() {
        assert_eq!(challenge(r#"Basic realm="skep""#), Challenge::Password);
        for header in ["Negotiate", "Bearer", "Bearer realm", r#"Bearer realm="open"#, ""] {
            assert_eq!(challenge(header), Challenge::Other, "{header}");
        }
    }
}
