//! The grammar of image names, as `distribution/reference` has it:
//! `[registry[:port]/]component[/component…][:tag][@digest]`.
//!
//! The client of registries reads it, too, but by a regular expression: with what compiles and runs
//! those, it is larger than the rest of that client, and nothing else here needs one.

use oci_client::Reference;

const HUB: &str = "docker.io";
const HUB_ONCE: &str = "index.docker.io";
const REPOSITORY_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// The parts of a name, with those that it leaves out; `None` where it is none.
pub(super) fn parts(text: &str) -> Option<Reference> {
    let (name, digest) = split(text, '@');
    let (name, tag) = match name.rsplit_once(':') {
        // A colon before a slash belongs to the registry's port.
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (name, None),
    };
    let is_sound = is_name(name) && tag.is_none_or(is_tag) && digest.is_none_or(is_digest);
    if !is_sound {
        return None;
    }
    let (registry, repository) = completed(name);
    if repository.len() > REPOSITORY_MAX {
        return None;
    }
    Some(match (tag.map(str::to_owned), digest.map(str::to_owned)) {
        (None, None) => Reference::with_tag(registry, repository, "latest".to_owned()),
        (Some(tag), None) => Reference::with_tag(registry, repository, tag),
        (None, Some(digest)) => Reference::with_digest(registry, repository, digest),
        (Some(tag), Some(digest)) => {
            Reference::with_tag_and_digest(registry, repository, tag, digest)
        }
    })
}

/// The registry and the repository: a first component with a dot or a port is a registry.
fn completed(name: &str) -> (String, String) {
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => (HUB, name),
    };
    let registry = if registry == HUB_ONCE { HUB } else { registry };
    let official = if registry == HUB && !repository.contains('/') { "library/" } else { "" };
    (registry.to_owned(), format!("{official}{repository}"))
}

fn is_name(name: &str) -> bool {
    let mut components = name.split('/');
    let first = components.next().unwrap_or_default();
    let is_alone = !name.contains('/');
    (is_component(first) || !is_alone && is_registry(first)) && components.all(is_component)
}

fn is_registry(text: &str) -> bool {
    let (host, port) = split(text, ':');
    let is_label = |label: &str| {
        label.starts_with(|c: char| c.is_ascii_alphanumeric())
            && label.ends_with(|c: char| c.is_ascii_alphanumeric())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

/// Small letters and digits, with a dot, one or two underscores or any number of dashes between.
fn is_component(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator =
        |text: &str| matches!(text, "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
    text.starts_with(is_plain) && text.ends_with(is_plain) && text.split(is_plain).all(is_separator)
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let rest = |byte: u8| is_word(byte) || byte == b'.' || byte == b'-';
    text.len() <= TAG_MAX && text.bytes().next().is_some_and(is_word) && text.bytes().all(rest)
}

fn is_digest(text: &str) -> bool {
    let (algorithm, digits) = split(text, ':');
    let len = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    digits.is_some_and(|digits| {
        digits.len() == len && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

fn split(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(before, after)| (before, Some(after)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name() -> impl Strategy<Value = String> {
        let digest = prop_oneof!["sha256:[0-9a-f]{63,65}", "sha(384|512|1):[0-9a-fA-F]{96}"];
        let digest = prop::option::weighted(0.3, digest.prop_map(|digest| format!("@{digest}")));
        let components = prop::collection::vec("[a-z0-9]([._-]{0,3}[a-zA-Z0-9]){0,3}", 1..4);
        let registry =
            "((docker|quay)\\.io|index\\.docker\\.io|localhost|[a-z.-]{1,5})(:[0-9]{0,4})?/";
        let registry = prop::option::of(registry);
        let tag = prop::option::of(":[a-zA-Z0-9._-]{0,9}");
        (registry, components, tag, digest).prop_map(|(registry, components, tag, digest)| {
            let part = Option::unwrap_or_default;
            part(registry) + &components.join("/") + &part(tag) + &part(digest)
        })
    }

    fn check(text: &str) {
        assert_eq!(parts(text), Reference::try_from(text).ok(), "{text}");
    }

    proptest! {
        #[test]
        fn a_name_is_what_the_client_of_registries_takes_it_for(name in name()) {
            check(&name);
        }

        #[test]
        fn what_is_no_name_is_none_for_it_either(text in "[a-zA-Z0-9._:/@-]{0,12}") {
            check(&text);
        }
    }

    #[test]
    fn names_and_tags_have_a_length() {
        for len in [120, 127, 128, 129, 245, 247, 248, 255, 256] {
            let long = "a".repeat(len);
            for text in [long.clone(), format!("r.io/{long}"), format!("a:{long}")] {
                check(&text);
            }
        }
    }
}
