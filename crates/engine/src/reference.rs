//! Names of images: complete, as they are stored, and short, as Docker's users see them.

mod grammar;

use types::Fault;

/// The name of an image, complete: registry, repository, and a tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    parts: oci_client::Reference,
    complete: String,
}

impl From<oci_client::Reference> for Reference {
    fn from(parts: oci_client::Reference) -> Self {
        let repository = format!("{}/{}", parts.registry(), parts.repository());
        let complete = match (parts.digest(), parts.tag()) {
            // A digest says it all.
            (Some(digest), _) => format!("{repository}@{digest}"),
            (None, Some(tag)) => format!("{repository}:{tag}"),
            (None, None) => format!("{repository}:latest"),
        };
        Self { parts, complete }
    }
}

impl Reference {
    /// Parses a name. `nginx` is `docker.io/library/nginx:latest`; next to a digest, a tag is
    /// dropped.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let reference = grammar::parts(text).ok_or_else(|| {
            let name = text.split('@').next().unwrap_or_default();
            if grammar::parts(&name.to_lowercase()).is_some() {
                return Fault::invalid(format!(
                    "invalid reference format: repository name ({name}) must be lowercase"
                ));
            }
            Fault::invalid("invalid reference format")
        })?;
        Ok(reference.into())
    }

    /// What registries are asked for.
    pub fn parts(&self) -> &oci_client::Reference {
        &self.parts
    }

    /// The complete name, e.g. `docker.io/library/nginx:latest`.
    pub fn complete(&self) -> &str {
        &self.complete
    }

    /// The complete name without tag or digest.
    pub fn repository(&self) -> &str {
        let name = self.complete.split('@').next().unwrap_or_default();
        match name.rsplit_once(':') {
            // A colon before a slash belongs to the registry's port.
            Some((repository, tag)) if !tag.contains('/') => repository,
            _ => name,
        }
    }

    /// The host that is asked for it.
    pub fn registry(&self) -> &str {
        self.parts.registry()
    }

    /// Says whether it is pinned by a digest, so that it never stands for anything else.
    pub fn is_pinned(&self) -> bool {
        self.complete.contains('@')
    }

    /// The name as Docker shows it: `nginx:latest`.
    pub fn familiar(&self) -> &str {
        Self::shorten(&self.complete)
    }

    /// The short form of a complete name.
    pub fn shorten(complete: &str) -> &str {
        match complete.strip_prefix("docker.io/") {
            Some(short) => short.strip_prefix("library/").unwrap_or(short),
            None => complete,
        }
    }
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
            let reference = Reference::parse(given).unwrap();
            assert_eq!((reference.complete(), reference.familiar()), (complete, short));
        }
        let digest = format!("sha256:{}", "0".repeat(64));
        let pinned = Reference::parse(&format!("nginx:1@{digest}")).unwrap();
        assert_eq!(pinned.complete(), format!("docker.io/library/nginx@{digest}"));
        assert_eq!(pinned.familiar(), format!("nginx@{digest}"));
        assert_eq!((pinned.repository(), pinned.is_pinned()), ("docker.io/library/nginx", true));
        for own in ["localhost:5000/a/b", "localhost:5000/a/b:1"] {
            let own = Reference::parse(own).unwrap();
            assert_eq!(
                (own.repository(), own.registry()),
                ("localhost:5000/a/b", "localhost:5000")
            );
        }
    }

    #[test]
    fn a_malformed_name_is_refused_in_dockers_words() {
        let upper = Reference::parse("Nginx").unwrap_err().message;
        assert_eq!(upper, "invalid reference format: repository name (Nginx) must be lowercase");
        for malformed in ["", "a b", "nginx:", "nginx@sha256:12", "-x"] {
            let error = Reference::parse(malformed).unwrap_err().message;
            assert!(error.starts_with("invalid reference format"), "{error}");
        }
    }
}
