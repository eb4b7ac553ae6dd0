//! Names of images: complete, as they are stored, and short, as Docker's users see them.

use types::Fault;

/// The name of an image, complete: registry, repository, and a tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    complete: String,
}

impl Reference {
    /// Parses a name. `nginx` is `docker.io/library/nginx:latest`; next to a digest, a tag is
    /// dropped.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let reference = oci_client::Reference::try_from(text).map_err(|_invalid| {
            let name = text.split('@').next().unwrap_or_default();
            if oci_client::Reference::try_from(name.to_lowercase().as_str()).is_ok() {
                return Fault::invalid(format!(
                    "invalid reference format: repository name ({name}) must be lowercase"
                ));
            }
            Fault::invalid("invalid reference format")
        })?;
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        let complete = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => format!("{repository}@{digest}"),
            (None, Some(tag)) => format!("{repository}:{tag}"),
            (None, None) => format!("{repository}:latest"),
        };
        Ok(Self { complete })
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
        self.complete.split('/').next().unwrap_or_default()
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
        ] {
            let reference = Reference::parse(given).unwrap();
            assert_eq!((reference.complete(), reference.familiar()), (complete, short));
        }
        let digest = format!("sha256:{}", "0".repeat(64));
        let pinned = Reference::parse(&format!("nginx:1@{digest}")).unwrap();
        assert_eq!(pinned.familiar(), format!("nginx@{digest}"));
        assert_eq!((pinned.repository(), pinned.is_pinned()), ("docker.io/library/nginx", true));
        let own = Reference::parse("localhost:5000/a/b").unwrap();
        assert_eq!((own.repository(), own.registry()), ("localhost:5000/a/b", "localhost:5000"));
    }

    #[test]
    fn a_malformed_name_is_refused() {
        let upper = Reference::parse("Nginx").unwrap_err().message;
        assert!(upper.ends_with("repository name (Nginx) must be lowercase"), "{upper}");
        assert!(Reference::parse("a b").is_err());
    }
}
