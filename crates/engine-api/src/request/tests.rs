use super::{bytes_of, read};
use axum::body::{Body, Bytes};
use futures_util::StreamExt;
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename = "Outer", rename_all = "PascalCase", default)]
struct Outer {
    name: String,
    count: u64,
    port: u16,
    delta: i64,
    ratio: f32,
    on: bool,
    maybe: Option<u64>,
    words: Vec<String>,
    labels: BTreeMap<String, String>,
    inner: Inner,
    pointer: Option<Inner>,
    list: Vec<Inner>,
    any: Option<Value>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename = "Inner", rename_all = "PascalCase", default)]
struct Inner {
    a: i64,
    b: String,
}

fn outer(text: &str) -> Outer {
    read(text.as_bytes()).unwrap_or_else(|fault| panic!("{text}: {fault}")).value
}

fn fault(text: &str) -> String {
    read::<Outer>(text.as_bytes()).expect_err(text).message
}

#[tokio::test]
async fn a_client_that_never_ends_its_request_is_not_waited_for() {
    let begun = stream::iter([Ok::<_, Infallible>(Bytes::from("{"))]).chain(stream::pending());
    let late = bytes_of(Body::from_stream(begun), Duration::from_millis(20)).await.unwrap_err();
    assert!(late.message.contains("did not come in time"), "{late}");
    let whole = bytes_of(Body::from("{}"), Duration::from_mins(1)).await.unwrap();
    assert_eq!(whole, "{}");
}

#[test]
fn names_of_fields_match_without_regard_to_case_and_keys_of_maps_do_not() {
    let read =
        outer(r#"{"name":"x","COUNT":3,"inner":{"A":1,"b":"y"},"labels":{"k":"1","K":"2"}}"#);
    assert_eq!((read.name.as_str(), read.count), ("x", 3));
    assert_eq!(read.inner, Inner { a: 1, b: "y".into() });
    assert_eq!(read.labels.len(), 2);
}

#[test]
fn null_is_not_given_at_every_depth() {
    let all = r#"{"Name":null,"Count":null,"Port":null,"Delta":null,"Ratio":null,"On":null,
        "Maybe":null,"Words":null,"Labels":null,"Inner":null,"Pointer":null,"List":null,"Any":null}"#;
    assert_eq!(outer(all), Outer::default());
    assert_eq!(outer("null"), Outer::default());
    let inside = outer(
        r#"{"Words":["a",null],"Labels":{"k":null},"Inner":{"A":null,"B":null},
            "Pointer":{"A":null},"List":[null,{"B":null}]}"#,
    );
    assert_eq!(inside.words, ["a", ""]);
    assert_eq!(inside.labels["k"], "");
    assert_eq!(inside.pointer, Some(Inner::default()));
    assert_eq!(inside.list, [Inner::default(), Inner::default()]);
}

#[test]
fn the_last_of_equal_names_counts_and_objects_are_merged() {
    let read = outer(r#"{"Name":"a","name":"b","NAME":"c","Words":["x","y"],"words":["z"]}"#);
    assert_eq!((read.name.as_str(), &read.words[..]), ("c", &["z".to_owned()][..]));
    let read = outer(
        r#"{"Inner":{"A":1,"B":"x"},"inner":{"a":2},"Labels":{"p":"1","q":"1"},"labels":{"q":"2"}}"#,
    );
    assert_eq!(read.inner, Inner { a: 2, b: "x".into() });
    assert_eq!((read.labels["p"].as_str(), read.labels["q"].as_str()), ("1", "2"));
    // A null clears what may be nil in Go, and leaves the rest.
    let read = outer(
        r#"{"Name":"a","name":null,"Maybe":1,"maybe":null,"Words":["x"],"words":null,
            "Pointer":{"A":1,"B":"x"},"pointer":null,"POINTER":{"A":2}}"#,
    );
    assert_eq!((read.name.as_str(), read.maybe, read.words.len()), ("a", None, 0));
    assert_eq!(read.pointer, Some(Inner { a: 2, b: String::new() }));
}

#[test]
fn unknown_fields_are_ignored_whatever_is_in_them() {
    assert_eq!(outer(r#"{"Colour":{"deep":[1,{"x":null}]},"Inner":{"Z":1}}"#), Outer::default());
}

#[test]
fn a_wrong_type_is_told_in_gos_words() {
    let go = "invalid JSON: json: cannot unmarshal";
    for (text, told) in [
        (r#"{"on":"yes"}"#, "string into Go struct field Outer.On of type bool"),
        (r#"{"Name":5}"#, "number 5 into Go struct field Outer.Name of type string"),
        (r#"{"Count":-1}"#, "number -1 into Go struct field Outer.Count of type uint64"),
        (r#"{"Count":"1"}"#, "string into Go struct field Outer.Count of type uint64"),
        (r#"{"Count":1.5}"#, "number 1.5 into Go struct field Outer.Count of type uint64"),
        (r#"{"Count":3.0}"#, "number 3.0 into Go struct field Outer.Count of type uint64"),
        (r#"{"Port":65536}"#, "number 65536 into Go struct field Outer.Port of type uint16"),
        (
            r#"{"Delta":9223372036854775808}"#,
            "number 9223372036854775808 into Go struct field Outer.Delta of type int64",
        ),
        (r#"{"Words":"sh"}"#, "string into Go struct field Outer.Words of type []string"),
        (r#"{"Words":[{}]}"#, "object into Go struct field Outer.Words of type string"),
        (
            r#"{"Labels":["a"]}"#,
            "array into Go struct field Outer.Labels of type map[string]string",
        ),
        (r#"{"Labels":{"a":1}}"#, "number 1 into Go struct field Outer.Labels of type string"),
        (r#"{"Inner":[]}"#, "array into Go struct field Outer.Inner of type Inner"),
        (r#"{"List":[{"A":true}]}"#, "bool into Go struct field Inner.List.A of type int64"),
        ("[]", "array into Go value of type Outer"),
    ] {
        assert_eq!(fault(text), format!("{go} {told}"), "{text}");
    }
    let huge = fault(r#"{"Count":184467440737095516160}"#);
    assert!(huge.starts_with(go) && huge.ends_with("of type uint64"), "{huge}");
}

#[test]
fn what_is_no_json_is_refused() {
    assert_eq!(fault(r#"{"Name":"#), "invalid JSON: unexpected EOF");
    assert_eq!(fault("{} {}"), "unexpected content after JSON");
    assert!(fault("{'a'}").starts_with("invalid JSON: "));
    assert!(fault(r#"{"Delta":1e400}"#).starts_with("invalid JSON: "));
    assert!(fault(&"[".repeat(100_000)).starts_with("invalid JSON: "));
    assert_eq!(outer("  "), Outer::default());
}

#[test]
fn a_body_must_be_said_to_be_json() {
    let refused = |kind: &str, empty| {
        let mut headers = http::HeaderMap::new();
        if kind != "none" {
            headers.insert("Content-Type", kind.parse().unwrap());
        }
        super::said_to_be_json(&headers, empty).err().map(|fault| fault.message)
    };
    for kind in ["application/json", "Application/JSON; charset=utf-8", "application/json;"] {
        assert_eq!(refused(kind, false), None, "{kind}");
    }
    assert_eq!(refused("none", true), None);
    for (kind, empty, shown) in [
        ("none", false, ""),
        ("", false, ""),
        ("text/plain", true, "text/plain"),
        ("application/x-www-form-urlencoded", false, "application/x-www-form-urlencoded"),
        ("application/jsonp", false, "application/jsonp"),
    ] {
        let reason =
            format!("unsupported Content-Type header ({shown}): must be 'application/json'");
        assert_eq!(refused(kind, empty), Some(reason), "{kind}");
    }
}

#[test]
fn a_field_that_is_not_honoured_is_refused_by_name_or_warned_of() {
    let spec = |text: &str| {
        let body = format!(r#"{{"TaskTemplate":{{"ContainerSpec":{text}}}}}"#);
        read::<crate::json::service::ServiceSpecJson>(body.as_bytes())
    };
    let fault = spec(r#"{"privileges":{"SELinuxContext":{"type":"t"},"Seccomp":null}}"#);
    let fault = fault.unwrap_err();
    assert_eq!(fault.kind, types::FaultKind::NotImplemented);
    let path = "TaskTemplate.ContainerSpec.Privileges.SELinuxContext.Type";
    let advice = "containers get no SELinux labels";
    assert_eq!(fault.message, format!("not supported by skep yet: {path}=t ({advice})"));
    // What says nothing is not refused.
    let zero = r#"{"Privileges":{"CredentialSpec":null,"Seccomp":{"Mode":""}}}"#;
    assert!(spec(zero).unwrap().warnings.is_empty());
    let read = spec(r#"{"Mounts":[{"Consistency":"cached"},{"Consistency":"default"}]}"#).unwrap();
    let warning = &read.warnings[0];
    assert!(warning.starts_with("TaskTemplate.ContainerSpec.Mounts.Consistency"), "{warning}");
}

/// What a client may make of a document without changing what it says.
mod properties {
    use super::*;
    use proptest::prelude::*;

    fn other_case(value: &Value, upper: bool) -> Value {
        let Value::Object(map) = value else { return value.clone() };
        let pairs = map.iter().map(|(key, value)| {
            let same = key == "Labels" || key == "Any";
            let key = if upper { key.to_uppercase() } else { key.to_lowercase() };
            (key, if same { value.clone() } else { other_case(value, upper) })
        });
        Value::Object(pairs.collect())
    }

    proptest! {
        #[test]
        fn neither_case_nor_nulls_nor_what_is_overwritten_nor_the_unknown_change_what_is_read(
            name in ".*", count: u64, delta: i64, on: bool, a: i64,
            words in prop::collection::vec(".*", 0..4),
            labels in prop::collection::btree_map(".*", ".*", 0..4),
            upper: bool,
        ) {
            let document = json!({
                "Name": name, "Count": count, "Delta": delta, "On": on, "Words": words,
                "Labels": labels, "Inner": { "A": a }, "List": [{ "B": name }],
            });
            let text = document.to_string();
            let plain = outer(&text);
            prop_assert_eq!(&plain.labels, &labels);
            prop_assert_eq!((plain.count, plain.delta, plain.inner.a), (count, delta, a));
            let cased = other_case(&document, upper).to_string();
            prop_assert_eq!(&outer(&cased), &plain);
            let dressed = format!(
                r#"{{"name":"old","COUNT":1,"On":null,"unknown":[1],"maybe":null,{}"#, &text[1..]
            );
            prop_assert_eq!(&outer(&dressed), &plain);
        }

        #[test]
        fn no_text_breaks_the_reader(text in ".*") {
            drop(read::<Outer>(text.as_bytes()));
        }
    }
}
