//! Relative paths: which values of a file are one, and what they start from.

use crate::tree::{Entry, Node, Value};
use std::path::{Component, Path, PathBuf};

/// A path from a folder, with its dots taken out.
pub(crate) fn absolute(folder: &Path, path: &str) -> PathBuf {
    let mut absolute = PathBuf::from("/");
    for component in folder.join(path).components() {
        match component {
            Component::Normal(part) => absolute.push(part),
            Component::ParentDir => {
                absolute.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    absolute
}

/// Makes the relative paths of a file absolute.
pub(crate) fn settle(root: &mut Node, folder: &Path) {
    each_field(root, |key, node| match key {
        "env_file" => env_file(node, folder),
        "volumes" => {
            let Value::List(items) = &mut node.value else { return };
            for item in items {
                mount(item, folder);
            }
        }
        _ => {}
    });
    each_file(root, |entry| {
        if entry.key == "file" {
            path(&mut entry.node, folder);
        }
    });
}

/// Hands over every field of every secret and config.
pub(crate) fn each_file(root: &mut Node, mut with: impl FnMut(&mut Entry)) {
    for section in ["secrets", "configs"] {
        let Some(section) = child(root, section) else { continue };
        let Value::Map(files) = &mut section.value else { continue };
        for file in files {
            let Value::Map(fields) = &mut file.node.value else { continue };
            fields.iter_mut().for_each(&mut with);
        }
    }
}

/// Hands over every field of every service: its key and its value.
pub(crate) fn each_field(root: &mut Node, mut with: impl FnMut(&str, &mut Node)) {
    let Some(services) = child(root, "services") else { return };
    let Value::Map(services) = &mut services.value else { return };
    for service in services {
        let Value::Map(fields) = &mut service.node.value else { continue };
        for field in fields {
            with(&field.key, &mut field.node);
        }
    }
}

fn child<'a>(node: &'a mut Node, key: &str) -> Option<&'a mut Node> {
    let Value::Map(entries) = &mut node.value else { return None };
    entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.node)
}

fn path(node: &mut Node, folder: &Path) {
    if let Value::Text(text) = &mut node.value {
        *text = absolute(folder, text).display().to_string();
    }
}

/// A path, a list of them, or mappings that hold one each.
fn env_file(node: &mut Node, folder: &Path) {
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| env_file(item, folder)),
        Value::Map(_) => {
            if let Some(file) = child(node, "path") {
                path(file, folder);
            }
        }
        _ => path(node, folder),
    }
}

/// What is bound from the node, in the short form or the long one.
fn mount(node: &mut Node, folder: &Path) {
    match &mut node.value {
        Value::Text(text) if text.starts_with('.') => {
            let Some((source, rest)) = text.split_once(':') else { return };
            *text = format!("{}:{rest}", absolute(folder, source).display());
        }
        Value::Map(_) => {
            let bind = Value::Text("bind".to_owned());
            if child(node, "type").is_some_and(|kind| kind.value == bind)
                && let Some(source) = child(node, "source")
                && let Value::Text(text) = &source.value
                && !text.starts_with('~')
            {
                path(source, folder);
            }
        }
        _ => {}
    }
}
