//! Parameters of queries.

use super::{Row, idle, refused};

const ONE_MANIFEST: &str = "an image is of one platform, as it is by its configuration";

pub(super) const ROWS: &[Row] = &[
    refused("GET /containers/{id}/top", "ps_args", "it answers what 'ps -ef' does").but(&["-ef"]),
    idle("POST /containers/{id}/start", "detachKeys", "attaching is a request of its own"),
    refused("POST /containers/{id}/start", "checkpoint", ""),
    refused("POST /containers/{id}/start", "checkpoint-dir", ""),
    refused("DELETE /containers/{id}", "link", "there are no links"),
    idle("GET /images/json", "all", "there are no images but those that are listed"),
    idle("GET /images/json", "digests", "they are always in the answer"),
    refused("GET /images/json", "shared-size", ""),
    idle("GET /images/json", "manifests", ONE_MANIFEST),
    refused("GET /images/json", "identity", ""),
    idle("GET /images/{name}/json", "manifests", ONE_MANIFEST),
    idle("DELETE /images/{name}", "noprune", "an image has no parents that could be removed"),
    refused("DELETE /images/{name}", "platforms", "remove the whole image"),
    idle("POST /images/load", "quiet", "there are no lines of progress"),
    idle("GET /services/{id}", "insertDefaults", "defaults are always in the answer"),
];
