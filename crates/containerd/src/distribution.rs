//! What a registry says of a name, without fetching what it stands for.

use crate::Containerd;
use crate::error::Error;
use crate::oci::{self, Config, Index, Manifest};
use crate::pull::{config, manifest, media_type_of, parse};
use crate::registry::{self, Source};
use engine::Reference;
use engine::{Credentials, Distribution};
use std::time::Duration;
use types::{Platform, chain};

/// For one registry: whoever asks waits, and goes on without the answer where there is none.
const ANSWER_MAX: Duration = Duration::from_secs(10);

impl Containerd {
    /// Asks for the digest of a name: mirrors first, then the registry itself. Each is asked once.
    pub(crate) async fn resolve_name(
        &self,
        name: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Distribution, Error> {
        let image = Reference::parse(name)?;
        for mut source in registry::sources(image.parts(), self.mirrors())? {
            source.log_in(credentials);
            let answer = tokio::time::timeout(ANSWER_MAX, ask(&source)).await;
            let answer = answer.unwrap_or_else(|_elapsed| Err(source.silent(ANSWER_MAX)));
            match answer {
                Err(error) if source.is_mirror => {
                    let (source, error) = (source.address, chain(&error));
                    tracing::warn!(source, error, "cannot ask a mirror");
                }
                answer => return answer,
            }
        }
        Err(Error::NoImage(name.to_owned()))
    }
}

async fn ask(source: &Source) -> Result<Distribution, Error> {
    let (content, digest) = manifest(source, &source.reference).await?;
    let media_type = media_type_of(&content)?;
    let platforms = if oci::is_list(&media_type) {
        let list: Index = parse(&content)?;
        list.manifests.iter().filter_map(|entry| entry.platform.as_ref()).map(platform).collect()
    } else {
        let manifest: Manifest = parse(&content)?;
        let config: Config = parse(&config(source, &manifest.config).await?)?;
        vec![Platform { os: config.os, architecture: config.architecture }]
    };
    let size = content.len() as u64;
    Ok(Distribution { digest, media_type, size, platforms })
}

fn platform(entry: &oci::Platform) -> Platform {
    Platform { os: entry.os.clone(), architecture: entry.architecture.clone() }
}
