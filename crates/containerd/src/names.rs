//! Names of images: in full, as containerd keeps them, and short, as Docker's users see them.

use crate::error::Error;
use oci_client::Reference;

/// Parses a name. `nginx` is `docker.io/library/nginx:latest`.
pub(crate) fn parse(text: &str) -> Result<Reference, Error> {
    Reference::try_from(text).map_err(|_invalid| {
        let name = text.split('@').next().unwrap_or_default();
        if Reference::try_from(name.to_lowercase().as_str()).is_ok() {
            let reason =
                format!("invalid reference format: repository name ({name}) must be lowercase");
            return Error::Reference(reason);
        }
        Error::Reference(format!("invalid reference format: {text:?}"))
    })
}

/// The full name of an image, which containerd knows it by.
pub(crate) fn full(text: &str) -> Result<String, Error> {
    Ok(full_of(&parse(text)?))
}

pub(crate) fn full_of(reference: &Reference) -> String {
    let repository = format!("{}/{}", reference.registry(), reference.repository());
    match (reference.digest(), reference.tag()) {
        // A digest says it all; Docker drops the tag next to it, too.
        (Some(digest), _) => format!("{repository}@{digest}"),
        (None, Some(tag)) => format!("{repository}:{tag}"),
        (None, None) => format!("{repository}:latest"),
    }
}

/// The name as Docker shows it: `docker.io/library/nginx:latest` is `nginx:latest`.
pub(crate) fn familiar(full: &str) -> &str {
    let short = full.strip_prefix("docker.io/").unwrap_or(full);
    if short.len() == full.len() { full } else { short.strip_prefix("library/").unwrap_or(short) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_completed_and_shortened_as_docker_does() {
        for (given, complete, short) in [
            ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
            ("bitnami/redis:7", "docker.io/bitnami/redis:7", "bitnami/redis:7"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest", "localhost:5000/a/b:latest"),
            ("127.0.0.1:5000/a:1", "127.0.0.1:5000/a:1", "127.0.0.1:5000/a:1"),
        ] {
            assert_eq!(full(given).unwrap(), complete);
            assert_eq!(familiar(complete), short);
        }
        let digest = format!("sha256:{}", "0".repeat(64));
        let pinned = full(&format!("nginx:1@{digest}")).unwrap();
        assert_eq!(pinned, format!("docker.io/library/nginx@{digest}"));
    }

    #[test]
    fn a_malformed_name_is_refused_in_dockers_words() {
        let upper = full("Nginx").unwrap_err().to_string();
        assert_eq!(upper, "invalid reference format: repository name (Nginx) must be lowercase");
        for malformed in ["", "a b", "nginx:", "nginx@sha256:12", "-x"] {
            let error = full(malformed).unwrap_err().to_string();
            assert!(error.starts_with("invalid reference format"), "{error}");
        }
    }
}
