//! The promise that nothing is accepted and forgotten, held against Docker's API.
//!
//! `docker-api.txt` has the names of its operations, parameters, filters and fields; every one must
//! be honoured, refused, or of no effect by design. What is honoured must make a difference, and
//! `docs/api.md` shows all of it.

mod page;
mod probe;

use super::table::{Class, find, rows};
use probe::{Shape, shape};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Debug;
use types::Fault;

const DOCKER: &str = include_str!("docker-api.txt");

/// An operation that Skep has: what its handler reads.
pub(crate) struct Served {
    name: &'static str,
    query: Option<Shape>,
    body: Option<Body>,
}

/// A body: what is read of it, documents that have every field, and what is made of one.
struct Body {
    shape: Shape,
    full: Vec<Value>,
    make: Make,
}

/// What is made of a body.
type Make = Box<dyn Fn(&str) -> Result<String, Fault>>;

impl Served {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, query: None, body: None }
    }

    pub(crate) fn query<T: DeserializeOwned>(mut self) -> Self {
        self.query = Some(shape::<T>());
        self
    }

    /// `make` says what becomes of what was read; `full` has every field, in one document or a list
    /// of them.
    pub(crate) fn body<T, U>(
        mut self,
        full: &'static str,
        make: impl Fn(T) -> Result<U, Fault> + 'static,
    ) -> Self
    where
        T: DeserializeOwned + Default,
        U: Debug,
    {
        let make = move |text: &str| {
            make(super::read::<T>(text.as_bytes())?.value).map(|made| format!("{made:#?}"))
        };
        let full = match serde_json::from_str(full).expect("a document") {
            Value::Array(documents) => documents,
            document => vec![document],
        };
        self.body = Some(Body { shape: shape::<T>(), full, make: Box::new(make) });
        self
    }
}

/// Every operation that Skep has, as the handlers' modules tell it.
fn served() -> Vec<Served> {
    let mut all = crate::cluster::served();
    all.extend(crate::local::served());
    all.extend(crate::events::served());
    all.extend(["GET /_ping", "HEAD /_ping", "GET /version", "GET /info"].map(Served::new));
    all.sort_by_key(|it| it.name.split_once(' ').map(|(method, path)| (path, method)));
    all
}

/// What one name of Docker's is to Skep.
#[derive(Clone, Copy, Debug)]
enum Standing {
    Honoured,
    Row(&'static super::table::Row),
}

/// The names of one operation, by kind: `query`, `filter`, `body`.
struct Names {
    operation: &'static str,
    names: Vec<(&'static str, &'static str)>,
}

fn docker() -> Vec<Names> {
    let mut all: Vec<Names> = Vec::new();
    for line in DOCKER.lines().filter(|line| !line.starts_with('#')) {
        match (line.strip_prefix("  "), all.last_mut()) {
            (Some(name), Some(last)) => {
                last.names.push(name.split_once(' ').expect("a kind and a name"));
            }
            _ => all.push(Names { operation: line, names: Vec::new() }),
        }
    }
    all
}

/// Where a name leads in what is read; `None` where nobody has thought of it.
fn standing(shape: &Shape, path: &str) -> Option<Standing> {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let plain = first.trim_end_matches(['[', ']', '{', '}']);
    let Shape::Object(owner, fields) = shape else {
        return matches!(shape, Shape::Leaf("any")).then_some(Standing::Honoured);
    };
    let Some((_, field)) = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(plain)) else {
        return find(owner, plain).map(Standing::Row);
    };
    let mut inner = field;
    while let Shape::List(item) | Shape::Map(item) = inner {
        inner = item;
    }
    if rest.is_empty() { Some(Standing::Honoured) } else { standing(inner, rest) }
}

/// Where one name of an operation stands.
fn stands(served: &Served, kind: &str, name: &str) -> Option<Standing> {
    match kind {
        "query" => standing(served.query.as_ref()?, name),
        "body" => standing(&served.body.as_ref()?.shape, name),
        _ => None,
    }
}

#[test]
fn every_name_of_dockers_api_is_honoured_refused_or_of_no_effect() {
    let served = served();
    let mut forgotten = Vec::new();
    for Names { operation, names } in docker() {
        if page::refusal(operation).is_some() {
            assert!(served.iter().all(|it| it.name != operation), "{operation}: both");
            continue;
        }
        let Some(served) = served.iter().find(|it| it.name == operation) else {
            forgotten.push(operation.to_owned());
            continue;
        };
        for (kind, name) in names {
            let known = match kind {
                "filter" => page::filter(operation, name).is_some(),
                _ => stands(served, kind, name).is_some(),
            };
            if !known {
                forgotten.push(format!("{operation}: {kind} {name}"));
            }
        }
    }
    assert!(forgotten.is_empty(), "in none of the classes:\n{}", forgotten.join("\n"));
}

/// A row whose field a struct reads would never be asked; one that no struct leads to neither.
#[test]
fn every_row_is_of_a_type_that_is_read_and_of_a_field_that_is_not() {
    fn objects<'a>(shape: &'a Shape, all: &mut Vec<(&'a str, Vec<&'a str>)>) {
        match shape {
            Shape::Leaf(_) => {}
            Shape::List(item) | Shape::Map(item) => objects(item, all),
            Shape::Object(name, fields) => {
                all.push((name, fields.iter().map(|(name, _)| *name).collect()));
                for (_, field) in fields {
                    objects(field, all);
                }
            }
        }
    }
    let served = served();
    let mut all = Vec::new();
    for it in &served {
        it.query.iter().for_each(|query| objects(query, &mut all));
        it.body.iter().for_each(|body| objects(&body.shape, &mut all));
    }
    for row in rows() {
        let of_its_type: Vec<_> = all.iter().filter(|(name, _)| *name == row.owner).collect();
        assert!(!of_its_type.is_empty(), "no struct is named {}", row.owner);
        for (name, fields) in of_its_type {
            let read = fields.iter().any(|field| field.eq_ignore_ascii_case(row.field));
            assert!(!read, "{name}.{} is honoured: take its row away", row.field);
        }
    }
}

/// The paths of all fields that are read and hold nothing else.
fn leaves(shape: &Shape, path: &str, all: &mut Vec<String>) {
    match shape {
        Shape::Leaf(_) => all.push(path.to_owned()),
        Shape::List(item) => leaves(item, &format!("{path}[]"), all),
        Shape::Map(item) => leaves(item, &format!("{path}{{}}"), all),
        Shape::Object(_, fields) => {
            for (name, field) in fields {
                let path =
                    if path.is_empty() { (*name).to_owned() } else { format!("{path}.{name}") };
                leaves(field, &path, all);
            }
        }
    }
}

/// Takes a field out of a document, from every item of a list; says whether it was there.
fn take_out(document: &mut Value, path: &str) -> bool {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let name = first.trim_end_matches(['[', ']', '{', '}']);
    let Some(object) = document.as_object_mut() else { return false };
    if rest.is_empty() {
        return object.shift_remove(name).is_some();
    }
    let mut inner: Vec<&mut Value> = object.get_mut(name).into_iter().collect();
    for _ in 0..first[name.len()..].len() / 2 {
        inner = inner.into_iter().flat_map(items).collect();
    }
    let taken: Vec<bool> = inner.into_iter().map(|item| take_out(item, rest)).collect();
    taken.contains(&true)
}

fn items(value: &mut Value) -> Vec<&mut Value> {
    match value {
        Value::Array(list) => list.iter_mut().collect(),
        Value::Object(map) => map.values_mut().collect(),
        _ => Vec::new(),
    }
}

#[test]
fn every_field_that_is_honoured_makes_a_difference() {
    for Served { name, body, .. } in served() {
        let Some(body) = body else { continue };
        let mut paths = Vec::new();
        leaves(&body.shape, "", &mut paths);
        for path in &paths {
            let differs = |document: &Value| {
                let with = (body.make)(&document.to_string());
                let with = with.unwrap_or_else(|fault| panic!("{name}: {fault}"));
                let mut without = document.clone();
                take_out(&mut without, path) && (body.make)(&without.to_string()) != Ok(with)
            };
            let differs = body.full.iter().any(differs);
            assert!(differs, "{name}: {path} makes no difference, or no full document has it");
        }
    }
}

#[test]
fn a_value_that_asks_for_nothing_passes_everywhere() {
    for row in rows().filter(|row| matches!(row.class, Class::Refused(_))) {
        for value in row.but {
            let value = serde_json::from_str(value)
                .unwrap_or_else(|_text| super::tree::Json::Text((*value).to_owned()));
            assert!(row.passes(&value), "{row:?}");
        }
        assert!(row.passes(&super::tree::Json::Null), "{row:?}");
    }
}
