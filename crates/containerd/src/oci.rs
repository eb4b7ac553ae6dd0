//! The few parts of the OCI image format that are needed here, lenient in what they read.

use crate::counted;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Platform {
    pub(crate) architecture: String,
    pub(crate) os: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) variant: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    #[serde(deserialize_with = "counted::layers")]
    pub(crate) layers: Vec<Descriptor>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Index {
    #[serde(deserialize_with = "counted::images")]
    pub(crate) manifests: Vec<Descriptor>,
}

/// The part of an image's configuration that unpacking needs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    pub(crate) architecture: String,
    pub(crate) os: String,
    pub(crate) rootfs: RootFs,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RootFs {
    #[serde(deserialize_with = "counted::layers")]
    pub(crate) diff_ids: Vec<String>,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, content: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: sha256(content),
            size: content.len() as u64,
            ..Self::default()
        }
    }
}

impl From<&Descriptor> for containerd_client::types::Descriptor {
    fn from(descriptor: &Descriptor) -> Self {
        Self {
            media_type: descriptor.media_type.clone(),
            digest: descriptor.digest.clone(),
            size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
            ..Self::default()
        }
    }
}

pub(crate) fn sha256(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

/// Writes a digest as `sha256:…`.
pub(crate) fn hex(hash: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in hash {
        text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
    }
    text
}

/// Says whether a document of this type is a list of manifests for several machines.
pub(crate) fn is_list(media_type: &str) -> bool {
    media_type == INDEX || media_type == DOCKER_LIST
}

/// Says whether a text is a digest that may become part of a path.
pub(crate) fn is_digest(text: &str) -> bool {
    let hash = text.strip_prefix("sha256:");
    hash.is_some_and(|hash| {
        hash.len() == 64 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// The names of the snapshots that a stack of layers makes, from the lowest to the highest.
/// The rule is the image specification's: `ChainID(a|b) = Digest(ChainID(a) + " " + DiffID(b))`.
pub(crate) fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::new();
    for diff in diff_ids {
        let next = match chain.last() {
            Some(parent) => sha256(format!("{parent} {diff}").as_bytes()),
            None => diff.clone(),
        };
        chain.push(next);
    }
    chain
}

/// This machine's architecture, as images name it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// Picks the manifest for this machine. One that names no platform fits where it is the only one.
pub(crate) fn pick(manifests: &[Descriptor]) -> Option<&Descriptor> {
    let fits = |descriptor: &&Descriptor| {
        let Some(platform) = &descriptor.platform else { return manifests.len() == 1 };
        platform.os == "linux" && platform.architecture == architecture()
    };
    // The first: lists put the better variant of an architecture first.
    manifests.iter().find(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_starts_with_the_first_layer_and_depends_on_all_below() {
        let layers = ["sha256:a".to_owned(), "sha256:b".to_owned()];
        let chain = chain_ids(&layers);
        assert_eq!(chain[0], "sha256:a");
        assert_eq!(chain[1], sha256(b"sha256:a sha256:b"));
        assert_eq!(chain_ids(&[]), Vec::<String>::new());
    }

    #[test]
    fn a_digest_cannot_climb_out_of_a_directory() {
        assert!(is_digest(&sha256(b"")));
        assert!(!is_digest("sha256:../../etc/passwd"));
        assert!(!is_digest("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
    }

    #[test]
    fn attestations_are_no_image_for_this_machine() {
        let of = |os: &str, architecture: &str| Descriptor {
            digest: format!("{os}/{architecture}"),
            platform: Some(Platform {
                os: os.to_owned(),
                architecture: architecture.to_owned(),
                ..Platform::default()
            }),
            ..Descriptor::default()
        };
        let list =
            [of("unknown", "unknown"), of("windows", architecture()), of("linux", architecture())];
        assert_eq!(pick(&list).unwrap(), &list[2]);
        assert_eq!(pick(&list[..2]), None);
    }
}
