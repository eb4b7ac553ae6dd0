//! From files to one tree: what is read with what, and what goes over what.
//!
//! A file that is included or extended stands in a folder of its own: its relative paths are made
//! absolute before anything of it is used elsewhere.

use crate::remark::Log;
use crate::tree::{Entry, Node, Value};
use crate::{Around, interpolate, merge, paths, project, tree};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Files that are read besides those that the user names.
const FILES_MAX: usize = 100;

/// Where a file stands, and what it is read with.
#[derive(Clone)]
pub(crate) struct Place<'a> {
    pub(crate) folder: PathBuf,
    pub(crate) env: Cow<'a, BTreeMap<String, String>>,
    /// The files that led here by their inclusions.
    pub(crate) chain: Vec<PathBuf>,
}

/// Reads files into one tree; later ones go over earlier ones.
pub(crate) fn whole(
    files: &[(String, String)],
    around: &Around<'_>,
    log: &mut Log,
) -> Option<Node> {
    let env = Cow::Borrowed(around.env);
    let place = Place { folder: around.folder.to_owned(), env, chain: Vec::new() };
    let mut assembly = Assembly { around, log, files: 0 };
    let mut whole = None;
    for (name, text) in files {
        whole = assembly.over(whole, (name, text), &place);
    }
    whole
}

/// What reads all files of a stack.
pub(crate) struct Assembly<'a> {
    pub(crate) around: &'a Around<'a>,
    pub(crate) log: &'a mut Log,
    files: usize,
}

impl Assembly<'_> {
    /// Puts a file over what earlier ones have; leaves that as it is where the file cannot be read.
    pub(crate) fn over(
        &mut self,
        before: Option<Node>,
        (name, text): (&str, &str),
        place: &Place<'_>,
    ) -> Option<Node> {
        let Some(mut root) = self.parse(name, text, place) else { return before };
        project::check_version(&root, self.log);
        self.include(&mut root, place);
        self.extend(&mut root, before.as_ref(), place);
        Some(match before {
            None => merge::settled(root),
            Some(before) => merge::merge(before, root),
        })
    }

    /// One file by itself, with its variables and paths replaced.
    pub(crate) fn parse(&mut self, name: &str, text: &str, place: &Place<'_>) -> Option<Node> {
        let mut root = tree::parse(name, text, self.log)?;
        if root.value == Value::Null {
            self.log.error(&root, "the file is empty");
            return None;
        }
        interpolate::file(&mut root, &place.env, self.log);
        if place.folder != self.around.folder {
            paths::settle(&mut root, &place.folder);
        }
        if let Cow::Owned(env) = &place.env {
            hand_on(&mut root, env);
        }
        Some(root)
    }

    /// Reads a file that another one names at `node`: its name for messages, and its text.
    pub(crate) fn read(&mut self, node: &Node, path: &Path) -> Option<(String, String)> {
        self.files += 1;
        if self.files > FILES_MAX {
            self.log.error(node, format!("more than {FILES_MAX} files are named by others"));
            return None;
        }
        let name = path.strip_prefix(self.around.folder).unwrap_or(path).display().to_string();
        let text = (self.around.read)(path)
            .and_then(|bytes| String::from_utf8(bytes).map_err(|error| error.to_string()));
        text.map(|text| (name, text))
            .map_err(|why| self.log.error(node, format!("cannot read {}: {why}", path.display())))
            .ok()
    }
}

/// Gives what names a variable alone (in `environment`, or as what is in a secret or config) its
/// value in the file's own environment.
fn hand_on(root: &mut Node, env: &BTreeMap<String, String>) {
    paths::each_file(root, |entry| {
        if entry.key == "environment"
            && let Value::Text(name) = &entry.node.value
            && let Some(value) = env.get(name)
        {
            "content".clone_into(&mut entry.key);
            entry.node.value = Value::Text(value.clone());
        }
    });
    paths::each_field(root, |key, node| match &mut node.value {
        Value::List(items) if key == "environment" => {
            for item in items {
                if let Value::Text(name) = &mut item.value
                    && let Some(value) = env.get(name)
                {
                    *name = format!("{name}={value}");
                }
            }
        }
        Value::Map(entries) if key == "environment" => {
            for Entry { key, node, .. } in entries {
                if node.value == Value::Null
                    && let Some(value) = env.get(key)
                {
                    node.value = Value::Text(value.clone());
                }
            }
        }
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::List(_)
        | Value::Map(_) => {}
    });
}
