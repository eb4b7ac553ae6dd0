//! Secrets and configs: what users give containers as files.
//!
//! Both have one shape. They differ in who may see them: a secret's bytes are shown to nobody but
//! the containers that it is for.

use crate::{ConfigId, ContainerSpec, IdSource, Labels, Meta, Payload, SecretId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Component, Path, PathBuf};

/// A secret: its bytes are for the containers alone that refer to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Secret {
    pub id: SecretId,
    pub meta: Meta,
    pub spec: FileSpec,
}

/// A config: as a secret, but users may read it again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    pub id: ConfigId,
    pub meta: Meta,
    pub spec: FileSpec,
}

/// What a user gives of a secret or a config.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileSpec {
    pub name: String,
    pub labels: Labels,
    pub content: FileContent,
    /// Which one of its name it is, from 0; of a change: which one it is to be.
    #[serde(skip_serializing_if = "is_first")]
    pub revision: u64,
    /// A later one has its name. It is there as long as somebody may need it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub former: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's way")]
fn is_first(revision: &u64) -> bool {
    *revision == 0
}

/// What is in a file, before its templates are filled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileContent {
    pub data: Payload,
    /// `None`: the bytes are taken as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub templating: Option<Templating>,
}

/// Whose templates are in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Templating {
    /// Go's `text/template`.
    Golang,
}

/// A service's wish for a secret or a config: which one, and as which file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileReference<I> {
    pub id: I,
    /// The object's name, as the user knows it.
    pub name: String,
    pub target: FileTarget,
}

/// Where a file is in a container, and whose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileTarget {
    /// A path, or a name in the place that such files have.
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

/// Everybody in the container may read it.
pub const FILE_MODE: u32 = 0o444;

impl Default for FileTarget {
    fn default() -> Self {
        Self { name: String::new(), uid: 0, gid: 0, mode: FILE_MODE }
    }
}

/// What secrets and configs have in common.
pub trait GivenFile {
    type Id: Clone + Ord + fmt::Display + Send + Sync + 'static;
    /// What users call one.
    const WORD: &'static str;
    /// It has fewer bytes than this.
    const LIMIT: usize;
    /// Where a target lies that is no whole path.
    const PLACE: &'static str;

    fn id(&self) -> &Self::Id;
    fn meta(&self) -> &Meta;
    fn spec(&self) -> &FileSpec;
    fn spec_mut(&mut self) -> &mut FileSpec;
    /// A new one, which nobody has stored yet.
    fn new(id: Self::Id, spec: FileSpec) -> Self;
    fn draw_id(ids: &mut dyn IdSource) -> Self::Id;
    /// Those that a container gets.
    fn references(container: &ContainerSpec) -> &[FileReference<Self::Id>];
    fn references_mut(container: &mut ContainerSpec) -> &mut [FileReference<Self::Id>];

    /// Where its file is in a container, without `.`, `..` and links; `None`: that is no file.
    fn path(target: &FileTarget) -> Option<PathBuf> {
        let mut path = PathBuf::from("/");
        for part in Path::new(Self::PLACE).join(&target.name).components() {
            match part {
                Component::Normal(name) => path.push(name),
                Component::ParentDir => drop(path.pop()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        let is_file = path.parent().is_some() && !target.name.is_empty();
        (is_file && !target.name.contains('\0')).then_some(path)
    }
}

macro_rules! given_file {
    ($kind:ident($id:ident) in $field:ident, $word:literal, $limit:expr, $place:literal) => {
        impl GivenFile for $kind {
            type Id = $id;
            const WORD: &'static str = $word;
            const LIMIT: usize = $limit;
            const PLACE: &'static str = $place;

            fn id(&self) -> &$id {
                &self.id
            }

            fn meta(&self) -> &Meta {
                &self.meta
            }

            fn spec(&self) -> &FileSpec {
                &self.spec
            }

            fn spec_mut(&mut self) -> &mut FileSpec {
                &mut self.spec
            }

            fn new(id: $id, spec: FileSpec) -> Self {
                Self { id, spec, meta: Meta::default() }
            }

            fn draw_id(ids: &mut dyn IdSource) -> $id {
                $id::draw(ids)
            }

            fn references(container: &ContainerSpec) -> &[FileReference<$id>] {
                &container.$field
            }

            fn references_mut(container: &mut ContainerSpec) -> &mut [FileReference<$id>] {
                &mut container.$field
            }
        }
    };
}

given_file!(Secret(SecretId) in secrets, "secret", 500 << 10, "/run/secrets");
given_file!(Config(ConfigId) in configs, "config", 1000 << 10, "/");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_path_or_a_name_where_such_files_are() {
        fn path<T: GivenFile>(name: &str) -> Option<String> {
            let target = FileTarget { name: name.to_owned(), ..FileTarget::default() };
            Some(T::path(&target)?.to_str()?.to_owned())
        }
        assert_eq!(path::<Secret>("key").as_deref(), Some("/run/secrets/key"));
        assert_eq!(path::<Secret>("tls/key").as_deref(), Some("/run/secrets/tls/key"));
        assert_eq!(path::<Secret>("/etc/./key").as_deref(), Some("/etc/key"));
        assert_eq!(path::<Secret>("../../../etc/key").as_deref(), Some("/etc/key"));
        assert_eq!(path::<Config>("app.conf").as_deref(), Some("/app.conf"));
        assert_eq!(path::<Config>("/etc/app.conf").as_deref(), Some("/etc/app.conf"));
        for name in ["", "/", "..", "a\0b"] {
            assert_eq!(path::<Config>(name), None, "{name:?}");
        }
    }

    #[test]
    fn nothing_of_a_secret_is_shown_in_passing() {
        let content = FileContent { data: b"password".to_vec().into(), templating: None };
        let spec = FileSpec { name: "key".into(), content, ..FileSpec::default() };
        let shown = format!("{:?}", Secret { id: "s".into(), spec, ..Secret::default() });
        assert!(!shown.contains("password") && shown.contains("Payload(8 bytes)"), "{shown}");
    }
}
