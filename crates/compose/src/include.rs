//! `include`: other files, each with a folder and variables of its own, beside this one.

use crate::assemble::{Assembly, Place};
use crate::fields::{Fields, items};
use crate::remark::Log;
use crate::scalar::{strings, text};
use crate::tree::{Node, Value};
use crate::{dotenv, paths};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The sections that hold things by name.
const NAMED: [&str; 5] = ["services", "networks", "volumes", "secrets", "configs"];

impl Assembly<'_> {
    /// Takes `include` out of a file, and puts what it names in.
    pub(crate) fn include(&mut self, root: &mut Node, place: &Place<'_>) {
        let Value::Map(all) = &mut root.value else { return };
        let Some(at) = all.iter().position(|entry| entry.key == "include") else { return };
        let named = all.remove(at).node;
        for item in items(&named, self.log) {
            if let Some(included) = self.included(item, place) {
                join(root, included, self.log);
            }
        }
    }

    /// What one item of `include` brings: a path, or a mapping of several with their surroundings.
    fn included(&mut self, item: &Node, place: &Place<'_>) -> Option<Node> {
        let (mut paths, mut folder, mut env) = (Vec::new(), None, None);
        if let Value::Map(_) = &item.value {
            let mut fields = Fields::of(item, self.log);
            if let Some(node) = fields.take("path") {
                paths = strings(node, self.log);
            }
            folder = fields.take("project_directory").map(|node| text(node, self.log));
            env = fields.take("env_file");
            fields.finish(self.log);
        } else {
            paths.push(text(item, self.log));
        }
        let paths: Vec<PathBuf> =
            paths.iter().map(|path| paths::absolute(&place.folder, path)).collect();
        let Some(beside) = paths.first().and_then(|path| path.parent()) else {
            self.log.error(item, "needs the path of a file");
            return None;
        };
        let folder = folder.map(|folder| paths::absolute(&place.folder, &folder));
        let folder = folder.unwrap_or_else(|| beside.to_owned());
        let own = self.variables(item, env, &folder, place);
        let mut inner = Place { folder, env: place.env.clone(), chain: place.chain.clone() };
        inner.chain.extend(paths.iter().cloned());
        if !own.is_empty() {
            inner.env = Cow::Owned(over(own, &place.env));
        }
        let mut whole = None;
        for path in &paths {
            if place.chain.contains(path) {
                self.log.error(item, format!("{} includes itself", path.display()));
                return None;
            }
            let (name, text) = self.read(item, path)?;
            whole = self.over(whole, (&name, &text), &inner);
        }
        whole
    }

    /// An included file's own variables: of the files that are named, or of `.env` in its folder.
    fn variables(
        &mut self,
        item: &Node,
        files: Option<&Node>,
        folder: &Path,
        place: &Place<'_>,
    ) -> BTreeMap<String, String> {
        let mut texts = Vec::new();
        if let Some(node) = files {
            for file in strings(node, self.log) {
                let path = paths::absolute(&place.folder, &file);
                texts.extend(self.read(node, &path));
            }
        } else if folder != place.folder {
            let path = folder.join(".env");
            if let Ok(bytes) = (self.around.read)(&path) {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                texts.push((path.display().to_string(), text));
            }
        }
        let mut own = BTreeMap::new();
        for (name, text) in texts {
            match dotenv::variables(&text, &place.env) {
                Ok(variables) => own.extend(variables),
                Err(why) => self.log.error(files.unwrap_or(item), format!("{name}: {why}")),
            }
        }
        own
    }
}

/// Variables with those over them that whoever includes the file has.
fn over(
    mut own: BTreeMap<String, String>,
    others: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    own.extend(others.iter().map(|(name, value)| (name.clone(), value.clone())));
    own
}

/// Puts what is included beside a file's own; nothing may be said twice in two ways.
fn join(root: &mut Node, included: Node, log: &mut Log) {
    let Value::Map(own) = &mut root.value else { return };
    let Value::Map(others) = included.value else {
        log.error(&included, format!("this is {}, and should be a mapping", included.kind()));
        return;
    };
    for other in others {
        let is_named = NAMED.contains(&other.key.as_str());
        let Some(section) = own.iter_mut().find(|entry| entry.key == other.key) else {
            if other.key != "version" && !other.key.starts_with("x-") {
                own.push(other);
            }
            continue;
        };
        let (Value::Map(mine), Value::Map(parts), true) =
            (&mut section.node.value, other.node.value, is_named)
        else {
            continue;
        };
        for part in parts {
            match mine.iter().find(|entry| entry.key == part.key) {
                None => mine.push(part),
                Some(entry) if entry.node == part.node => {}
                Some(entry) => {
                    let text = format!("{}, which is included, has another one", part.at.file);
                    log.error_at(&entry.at, &entry.node.path, text);
                }
            }
        }
    }
}
