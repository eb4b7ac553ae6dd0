//! Secrets and configs: the stack's own, and how services refer to them.

use crate::Around;
use crate::fields::{Fields, entries, items};
use crate::paths::absolute;
use crate::project::{StackPart, stack_labels};
use crate::remark::Log;
use crate::scalar::{integer, labels, text, word};
use crate::tree::{Entry, Node, Value};
use std::collections::BTreeMap;
use types::{FileContent, FileReference, FileSpec, FileTarget, GivenFile, Templating};

/// A secret or a config that the file names.
#[derive(Clone, Debug, PartialEq)]
pub struct StackFile {
    pub spec: FileSpec,
    /// It is there already, and not the stack's to create or remove.
    pub external: bool,
}

/// Those of one kind by their names in the file.
pub(crate) type Files = BTreeMap<String, StackFile>;

/// Reads the top-level `secrets` or `configs`.
pub(crate) fn files<T: GivenFile>(node: &Node, around: &Around<'_>, log: &mut Log) -> Files {
    let all = entries(node, log).iter();
    all.map(|entry| (entry.key.clone(), file::<T>(entry, around, log))).collect()
}

fn file<T: GivenFile>(entry: &Entry, around: &Around<'_>, log: &mut Log) -> StackFile {
    let mut fields = Fields::of(&entry.node, log);
    let part = StackPart::read(&entry.key, &mut fields, around, log);
    let mut spec = FileSpec { name: part.name, ..FileSpec::default() };
    if let Some(node) = fields.take("labels") {
        spec.labels = labels(node, log);
    }
    fields.refuse(
        &[
            ("driver", "drivers of secrets are not supported by skep yet"),
            ("driver_opts", "drivers of secrets are not supported by skep yet"),
        ],
        log,
    );
    let templating = fields.take("template_driver");
    let templating =
        templating.map(|node| word(node, &[("golang", Golang(Templating::Golang))], log).0);
    let data = content(&mut fields, around, log);
    fields.finish(log);
    if part.external {
        if data.is_some() {
            log.error_at(&entry.at, &entry.node.path, "what is external has no content here");
        }
        return StackFile { spec, external: true };
    }
    let Some(data) = data else {
        let why =
            format!("a {} needs a file, an environment, a content or to be external", T::WORD);
        log.error_at(&entry.at, &entry.node.path, why);
        return StackFile { spec, external: false };
    };
    spec.content = FileContent { data: data.into(), templating };
    spec.labels = stack_labels(spec.labels, around);
    StackFile { spec, external: false }
}

/// A word needs a default; there is one template driver.
#[derive(Clone, Copy)]
struct Golang(Templating);

impl Default for Golang {
    fn default() -> Self {
        Self(Templating::Golang)
    }
}

/// What is in the file: there is one of three ways to say it.
fn content(fields: &mut Fields<'_>, around: &Around<'_>, log: &mut Log) -> Option<Vec<u8>> {
    let mut found: Option<Vec<u8>> = None;
    for key in ["file", "environment", "content"] {
        let Some(node) = fields.take(key) else { continue };
        let said = text(node, log);
        let data = match key {
            "file" => {
                let path = absolute(around.folder, &said);
                (around.read)(&path).map_err(|why| format!("cannot read {}: {why}", path.display()))
            }
            "environment" => match around.env.get(&said) {
                Some(value) => Ok(value.clone().into_bytes()),
                None => Err(format!("the variable {said:?} is not set")),
            },
            _ => Ok(said.into_bytes()),
        };
        if found.is_some() {
            log.error(node, "there is something else already that says what is in it");
        }
        match data {
            Ok(data) => found = Some(data),
            Err(why) => {
                log.error(node, why);
                found = Some(Vec::new());
            }
        }
    }
    found
}

/// Reads `secrets` or `configs` of a service. What refers to one by its name in the cluster has no
/// id yet.
pub(crate) fn references<T: GivenFile>(
    node: &Node,
    files: &Files,
    log: &mut Log,
) -> Vec<FileReference<T::Id>>
where
    T::Id: Default,
{
    let mut references: Vec<FileReference<T::Id>> = Vec::new();
    for item in items(node, log) {
        let (source, mut target) = if let Value::Map(_) = item.value {
            long(item, log)
        } else {
            (text(item, log), FileTarget::default())
        };
        if target.name.is_empty() {
            target.name.clone_from(&source);
        }
        let Some(file) = files.get(&source) else {
            let word = T::WORD;
            log.error(
                item,
                format!("the {word} {source:?} is not in the file's top-level {word}s"),
            );
            continue;
        };
        references.push(FileReference {
            id: T::Id::default(),
            name: file.spec.name.clone(),
            target,
        });
    }
    references.sort_by(|one, other| one.name.cmp(&other.name));
    references
}

fn long(node: &Node, log: &mut Log) -> (String, FileTarget) {
    let (mut source, mut target) = (String::new(), FileTarget::default());
    let mut fields = Fields::of(node, log);
    match fields.take("source") {
        Some(node) => source = text(node, log),
        None => log.error(node, "needs a source"),
    }
    if let Some(node) = fields.take("target") {
        target.name = text(node, log);
    }
    if let Some(node) = fields.take("uid") {
        target.uid = integer(node, log);
    }
    if let Some(node) = fields.take("gid") {
        target.gid = integer(node, log);
    }
    if let Some(node) = fields.take("mode") {
        target.mode = mode(node, log);
    }
    fields.finish(log);
    (source, target)
}

/// As a number it is what YAML makes of it; as a text it is octal in any case.
fn mode(node: &Node, log: &mut Log) -> u32 {
    let Value::Text(text) = &node.value else { return integer(node, log) };
    let digits = text.trim().trim_start_matches("0o");
    u32::from_str_radix(digits, 8).unwrap_or_else(|_not_octal| {
        log.error(node, "should be an octal number such as 0440");
        types::FILE_MODE
    })
}
