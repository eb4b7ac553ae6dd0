//! Docker's operations that Skep does not have, and what they are called in the refusal.

/// A method, a path with `{name}` for what varies, and the feature.
pub(crate) const REFUSED: &[(&str, &str, &str)] = &[
    ("POST", "/auth", "docker login"),
    ("POST", "/build", "building images"),
    ("POST", "/build/prune", "building images"),
    ("POST", "/commit", "docker commit"),
    ("POST", "/session", "a BuildKit session"),
    ("POST", "/grpc", "a BuildKit session"),
    ("GET", "/system/df", "docker system df"),
    ("POST", "/containers/{id}/pause", "pausing a container"),
    ("POST", "/containers/{id}/unpause", "pausing a container"),
    ("POST", "/containers/{id}/update", "docker update"),
    ("POST", "/containers/{id}/rename", "renaming a container"),
    ("HEAD", "/containers/{id}/archive", "docker cp"),
    ("GET", "/containers/{id}/archive", "docker cp"),
    ("PUT", "/containers/{id}/archive", "docker cp"),
    ("GET", "/containers/{id}/export", "docker export"),
    ("GET", "/containers/{id}/changes", "docker diff"),
    ("GET", "/containers/{id}/attach/ws", "attaching by a web socket"),
    ("GET", "/containers/{id}/checkpoints", "checkpoints"),
    ("POST", "/containers/{id}/checkpoints", "checkpoints"),
    ("DELETE", "/containers/{id}/checkpoints/{checkpoint}", "checkpoints"),
    ("GET", "/images/get", "docker save"),
    ("GET", "/images/search", "docker search"),
    ("POST", "/images/prune", "pruning images"),
    ("GET", "/images/{name}/attestations", "attestations of images"),
    ("GET", "/images/{name}/get", "docker save"),
    ("GET", "/images/{name}/history", "docker history"),
    ("POST", "/images/{name}/push", "docker push"),
    ("POST", "/networks/prune", "pruning networks"),
    ("POST", "/networks/{id}/connect", "connecting a container to a network after it was made"),
    ("POST", "/networks/{id}/disconnect", "disconnecting a container from a network"),
    ("POST", "/volumes/prune", "pruning volumes"),
    ("PUT", "/volumes/{name}", "cluster volumes"),
    ("GET", "/plugins/privileges", "plugins"),
    ("POST", "/plugins/pull", "plugins"),
    ("POST", "/plugins/create", "plugins"),
    ("GET", "/plugins/{name}/json", "plugins"),
    ("DELETE", "/plugins/{name}", "plugins"),
    ("POST", "/plugins/{name}/enable", "plugins"),
    ("POST", "/plugins/{name}/disable", "plugins"),
    ("POST", "/plugins/{name}/upgrade", "plugins"),
    ("POST", "/plugins/{name}/push", "plugins"),
    ("POST", "/plugins/{name}/set", "plugins"),
];

/// The feature behind a method and a path that Skep does not have; `None` where Docker does not
/// have them either.
pub(crate) fn refused(method: &str, path: &str) -> Option<&'static str> {
    let fits =
        |(wanted, pattern, _): &&(&str, &str, &str)| *wanted == method && matches(pattern, path);
    // What has no `{name}` comes first: `/images/get` is no image's name.
    let exact = REFUSED.iter().find(|row| row.0 == method && row.1 == path);
    exact.or_else(|| REFUSED.iter().find(fits)).map(|(_, _, feature)| *feature)
}

/// Says whether a path is of a pattern. A name of an image has slashes in it.
fn matches(pattern: &str, path: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('{') else { return pattern == path };
    let (name, tail) = rest.split_once('}').unwrap_or((rest, ""));
    let Some(varies) = path.strip_prefix(head) else { return false };
    if let Some((tail, _)) = tail.split_once('{') {
        return varies.contains(tail);
    }
    let Some(varies) = varies.strip_suffix(tail) else { return false };
    !varies.is_empty() && (name == "name" || !varies.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_found_by_its_pattern() {
        for (method, path, feature) in [
            ("POST", "/containers/a/pause", Some("pausing a container")),
            ("GET", "/images/get", Some("docker save")),
            ("GET", "/images/a/b/history", Some("docker history")),
            ("DELETE", "/containers/a/checkpoints/b", Some("checkpoints")),
            ("POST", "/images/reg:5000/a/b/push", Some("docker push")),
            ("GET", "/containers//pause", None),
            ("POST", "/containers/a/b/pause", None),
            ("GET", "/nothing", None),
        ] {
            assert_eq!(refused(method, path), feature, "{method} {path}");
        }
    }
}
