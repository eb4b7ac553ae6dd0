//! Images on the way out.

use engine::{Image, Progress, Reference, Removed};
use serde_json::{Value, json};

/// Tags and digests apart, as users write them.
fn names(image: &Image) -> (Vec<String>, Vec<String>) {
    let short = |name: &String| Reference::shorten(name).to_owned();
    let (mut digests, tags): (Vec<String>, Vec<String>) =
        image.names.iter().map(short).partition(|name| name.contains('@'));
    // A tag that was loaded has the digest of its manifest, too.
    for tag in &tags {
        let repository = tag.rsplit_once(':').map_or(tag.as_str(), |(repository, _)| repository);
        let digest = format!("{repository}@{}", image.digest);
        if !digests.contains(&digest) {
            digests.push(digest);
        }
    }
    (tags, digests)
}

/// When the image was made, in seconds since 1970.
pub(crate) fn created(image: &Image) -> i64 {
    let text = image.config["created"].as_str().unwrap_or_default();
    time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339)
        .map_or(0, time::OffsetDateTime::unix_timestamp)
}

/// Renders an item of `GET /images/json`. `containers` use it.
pub(crate) fn render_item(image: &Image, containers: usize) -> Value {
    let (tags, digests) = names(image);
    json!({
        "Id": image.id,
        "ParentId": "",
        "RepoTags": tags,
        "RepoDigests": digests,
        "Created": created(image),
        "Size": image.size,
        "SharedSize": -1,
        "Labels": image.config["config"]["Labels"],
        "Containers": containers,
    })
}

/// Renders `GET /images/{name}/json`.
pub(crate) fn render(image: &Image) -> Value {
    let (tags, digests) = names(image);
    let mut object = json!({
        "Id": image.id,
        "RepoTags": tags,
        "RepoDigests": digests,
        "Parent": "",
        "Comment": image.config["comment"].as_str().unwrap_or_default(),
        "Created": image.config["created"],
        "DockerVersion": "",
        "Author": image.config["author"].as_str().unwrap_or_default(),
        "Config": image.config["config"],
        "Architecture": image.config["architecture"],
        "Os": image.config["os"],
        "Size": image.size,
        "GraphDriver": { "Name": "overlayfs", "Data": null },
        "RootFS": {
            "Type": "layers",
            "Layers": image.config["rootfs"]["diff_ids"],
        },
        "Metadata": { "LastTagTime": "0001-01-01T00:00:00Z" },
    });
    for (name, field) in [("Variant", "variant"), ("OsVersion", "os.version")] {
        if let Some(value) = image.config.get(field).filter(|value| *value != "") {
            object[name] = value.clone();
        }
    }
    object
}

/// Renders the progress of a pull.
pub(crate) fn render_progress(progress: &Progress) -> Value {
    let mut object = json!({ "status": progress.status });
    if !progress.id.is_empty() {
        object["id"] = progress.id.clone().into();
        object["progressDetail"] = if progress.total > 0 {
            json!({ "current": progress.current, "total": progress.total })
        } else {
            json!({})
        };
    }
    object
}

/// Renders what a removal did.
pub(crate) fn render_removed(removed: &Removed) -> Value {
    match removed {
        Removed::Untagged(name) => json!({ "Untagged": name }),
        Removed::Deleted(id) => json!({ "Deleted": id }),
    }
}
