//! Keeps the house in order: directions between crates, length of files, where `unsafe` may stand.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The crates outside that those without sockets, files, clock or randomness may use.
const PURE_OUTSIDE: [&str; 14] = [
    // Without its feature `clock`.
    "chrono",
    "croner",
    "zeroize",
    "rmp-serde",
    "serde",
    "serde_json",
    "serde-saphyr",
    "sha2",
    "ipnet",
    "thiserror",
    "time",
    "gotmpl",
    "imbl",
    "tracing",
];

/// The tree is complete and ours.
const READABLE: &str = "the tree can be read";

/// Lines of a file before its tests.
const LINES_MAX: usize = 600;

/// Who implements ports, and who may name them: the program, and the benchmark.
const IMPLEMENTATIONS: [&str; 2] = ["linux", "containerd"];
const MAY_NAME_THEM: [&str; 2] = ["skep", "e2e"];

/// Words that say nothing, and may name no crate and no module.
const EMPTY_WORDS: [&str; 4] = ["util", "utils", "common", "helpers"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every crate with the names of the crates in its `[dependencies]`.
fn crates() -> BTreeMap<String, BTreeSet<String>> {
    let mut crates = BTreeMap::new();
    for entry in fs::read_dir(root().join("crates")).expect(READABLE) {
        let manifest = entry.expect(READABLE).path().join("Cargo.toml");
        let text = fs::read_to_string(&manifest).expect(READABLE);
        let table: toml::Table = text.parse().expect(READABLE);
        let name = table["package"]["name"].as_str().expect(READABLE).to_owned();
        let lints = table.get("lints").and_then(|lints| lints.get("workspace"));
        assert_eq!(
            lints.and_then(toml::Value::as_bool),
            Some(true),
            "{name}: add `[lints] workspace = true`"
        );
        let dependencies = table.get("dependencies").and_then(toml::Value::as_table);
        let names = dependencies.into_iter().flat_map(|table| table.keys().cloned()).collect();
        crates.insert(name, names);
    }
    crates
}

/// What docs/ARCHITECTURE.md says of the crates.
struct Plan {
    page: String,
    /// By crate: its line in the picture. A crate uses crates of lower lines only, or those that
    /// `arrows` has.
    layers: BTreeMap<String, u32>,
    /// Those with a ring: without sockets, files, clock and randomness.
    pure: BTreeSet<String>,
    arrows: BTreeSet<(String, String)>,
}

impl Plan {
    fn read() -> Self {
        let page = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect(READABLE);
        let (mut layers, mut pure) = (BTreeMap::new(), BTreeSet::new());
        let picture = page.split("```").nth(1).expect(READABLE);
        for line in picture.lines().filter(|line| !line.is_empty()) {
            let (layer, rest) = line.split_once(' ').expect(READABLE);
            let layer: u32 = layer.parse().expect(READABLE);
            // The line's own name comes first; what is in brackets explains.
            let mut last = String::new();
            for word in outside_brackets(rest).split_whitespace().skip(1) {
                match word {
                    "○" => drop(pure.insert(last.clone())),
                    "->" => {}
                    name => {
                        name.clone_into(&mut last);
                        layers.insert(last.clone(), layer);
                    }
                }
            }
        }
        let quoted = page.split('`').filter_map(|words| words.split_once(" -> "));
        let arrows = quoted
            .filter(|(from, to)| layers.contains_key(*from) && layers.contains_key(*to))
            .map(|(from, to)| (from.to_owned(), to.to_owned()))
            .collect();
        Self { page, layers, pure, arrows }
    }
}

fn outside_brackets(line: &str) -> String {
    let parts = line.split('(').map(|part| part.split_once(')').map_or(part, |(_, rest)| rest));
    parts.collect()
}

/// Every Rust file of ours.
fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect(READABLE) {
            let path = entry.expect(READABLE).path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

#[test]
fn arrows_between_crates_go_down() {
    let (plan, crates) = (Plan::read(), crates());
    assert_eq!(plan.layers.keys().collect::<Vec<_>>(), crates.keys().collect::<Vec<_>>());
    for (name, dependencies) in &crates {
        let row = format!("\n| `{name}` ");
        assert!(plan.page.contains(&row), "{name} has no row in the table of crates");
        for dependency in dependencies.iter().filter(|dependency| crates.contains_key(*dependency))
        {
            let drawn = plan.arrows.contains(&(name.clone(), dependency.clone()));
            let down = plan.layers[dependency] < plan.layers[name];
            assert!(down || drawn, "{name} -> {dependency} does not go down");
        }
    }
}

#[test]
fn implementations_of_ports_are_named_by_programs_alone() {
    for (name, dependencies) in crates() {
        for implementation in IMPLEMENTATIONS {
            let named = dependencies.contains(implementation);
            assert!(!named || MAY_NAME_THEM.contains(&name.as_str()), "{name} -> {implementation}");
        }
    }
}

#[test]
fn managers_and_agents_meet_only_in_wire() {
    let crates = crates();
    assert!(!crates["manager"].contains("agent"));
    assert!(!crates["agent"].contains("manager"));
    for name in ["store", "planner", "raft"] {
        assert!(!crates["agent"].contains(name), "the agent knows {name}");
    }
    for name in ["engine", "dataplane"] {
        assert!(!crates["manager"].contains(name), "the manager knows {name}");
    }
}

#[test]
fn pure_crates_use_pure_crates() {
    let (plan, crates) = (Plan::read(), crates());
    assert!(plan.pure.contains("planner"), "the picture has rings");
    for name in &plan.pure {
        for dependency in &crates[name] {
            let pure =
                plan.pure.contains(dependency) || PURE_OUTSIDE.contains(&dependency.as_str());
            assert!(pure, "{name} is pure and may not use {dependency}");
        }
    }
}

#[test]
fn no_file_is_too_long() {
    let is_test = |path: &PathBuf| {
        path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs")
    };
    for path in sources().into_iter().filter(|path| !is_test(path)) {
        let text = fs::read_to_string(&path).expect(READABLE);
        let code = text.split_once("#[cfg(test)]\nmod tests {").map_or(&*text, |(code, _)| code);
        let lines = code.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines: divide it", path.display());
    }
}

#[test]
fn only_linux_may_be_unsafe() {
    let word = ["un", "safe"].concat();
    for path in sources() {
        if path.components().any(|part| part.as_os_str() == "linux") {
            continue;
        }
        let text = fs::read_to_string(&path).expect(READABLE);
        let found = text.lines().find(|line| {
            let code = line.split("//").next().unwrap_or_default();
            [format!("{word} {{"), format!("{word} fn"), format!("{word} impl")]
                .iter()
                .any(|form| code.contains(form.as_str()))
        });
        assert_eq!(found, None, "{}", path.display());
    }
}

#[test]
fn names_say_something() {
    for path in sources() {
        let stem = path.file_stem().expect(READABLE).to_string_lossy().into_owned();
        let folder = path
            .parent()
            .expect(READABLE)
            .file_name()
            .expect(READABLE)
            .to_string_lossy()
            .into_owned();
        for word in EMPTY_WORDS {
            assert!(stem != word && folder != word, "{}", path.display());
        }
    }
}

#[test]
fn every_crate_says_what_it_is_for() {
    for name in crates().keys() {
        let folder = root().join("crates").join(name).join("src");
        let head = ["lib.rs", "main.rs"].map(|file| folder.join(file));
        let head = head.iter().find(|path| path.exists()).expect(READABLE);
        let text = fs::read_to_string(head).expect(READABLE);
        assert!(text.starts_with("//! "), "{} begins without a head", head.display());
    }
}

/// Every `crate::test` that `text` names in back-ticks.
fn tests_named(text: &str) -> BTreeSet<(String, String)> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|words| words.split_once("::"))
        .map(|(name, test)| (name.to_owned(), test.to_owned()))
        .collect()
}

#[test]
fn capabilities_name_tests_that_exist() {
    let page = fs::read_to_string(root().join("docs/capabilities.md")).expect(READABLE);
    let named = tests_named(&page);
    assert!(named.len() > 50, "the page names tests");
    let mut functions = BTreeSet::new();
    for path in sources() {
        let inside = path.strip_prefix(root().join("crates")).expect(READABLE).to_owned();
        let name = inside.iter().next().expect(READABLE).to_string_lossy().into_owned();
        for line in fs::read_to_string(&path).expect(READABLE).lines() {
            if let Some((_, rest)) = line.split_once("fn ")
                && let Some((function, _)) = rest.split_once('(')
            {
                functions.insert((name.clone(), function.to_owned()));
            }
        }
    }
    let missing: Vec<_> = named.difference(&functions).collect();
    assert!(missing.is_empty(), "docs/capabilities.md names tests that are not there: {missing:?}");
}
