//! Arbitrary text never panics.

use compose::{Around, load};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

fn run(text: &str) {
    let env = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
    // Files that are included or extended are made of the same words.
    let read = |path: &Path| match path.extension() {
        Some(_) => Ok(b"A=b\n".to_vec()),
        None => Ok(text.as_bytes().to_vec()),
    };
    let folder = Path::new("/f");
    let around = Around { stack: "s", folder, env: &env, profiles: &[], read: &read };
    let file = ("f".to_owned(), text.to_owned());
    // Both must come back; what they say does not matter here.
    let alone = load(std::slice::from_ref(&file), &around);
    let twice = load(&[file.clone(), file], &around);
    assert!(alone.is_ok() || twice.is_err());
}

/// Words that stack files are made of, so that deep places are reached, too.
fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "services:",
        "\n  web:",
        "\n    image: i",
        "\n    ports:",
        "\n      - ",
        "8080:80",
        "1-2:3-4",
        "\n    deploy:",
        "\n      replicas: ",
        "-1",
        "99999999999999999999",
        "1e400",
        ".nan",
        "0o8",
        "\n    environment:",
        "\n      A: ",
        "$",
        "${A",
        "${A:-${B}}",
        "}",
        "{",
        "[",
        "]",
        ",",
        "*a",
        "&a ",
        "<<: *a",
        "null",
        "~",
        "!!str ",
        "!reset ",
        "!override ",
        "\ninclude: [b]",
        "\n    extends: {file: b, service: web}",
        "\n    depends_on: [web]",
        "\n    profiles: [a]",
        "!!binary x",
        "'",
        "\"",
        "\\",
        "|\n",
        ">\n",
        "#",
        "\n    volumes:",
        "a:b:c",
        "./x:/y",
        "\n    healthcheck:",
        "\n      test: ",
        "1m30s",
        "50M",
        "\n    networks: ",
        "\nnetworks:",
        "\n  default:",
        "\n    external: ",
        "true",
        "\nvolumes:",
        "\n    tmpfs: /x:size=",
        "\n    ulimits: ",
        "\n      nofile: ",
        "\n    command: ",
        "é",
        "\t",
        "\n    extra_hosts: ",
        "a=::1",
        "\n---\n",
        "\n...\n",
        "\u{feff}",
    ]);
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

/// What may be a list or a mapping at its place, and only there.
#[test]
fn a_fault_is_not_mended_by_saying_it_twice() {
    run("networks: [a]\n");
    run("services:\n  labels: [image=i]\n");
    run("services:\n  web: {image: i, networks: [[a]]}\n");
    run("volumes:\n  environment: [external=true]\n");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn text_never_panics(text in "\\PC{0,200}") {
        run(&text);
    }

    #[test]
    fn almost_stack_files_never_panic(text in words()) {
        run(&text);
    }

    #[test]
    fn values_never_panic(key in "[a-z_]{1,12}", text in "[ -~]{0,40}") {
        let quoted = text.replace('\'', "''");
        run(&format!("services:\n  web:\n    image: i\n    {key}: '{quoted}'\n"));
    }
}
