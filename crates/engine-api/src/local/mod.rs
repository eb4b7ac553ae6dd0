//! This node's part of the API: containers, exec, images, volumes, events.

mod attach;
mod changes;
mod container_filters;
mod containers;
mod detach;
mod empty;
mod exec;
mod images;
mod stats;
mod time;
mod volumes;

pub(crate) use time::now;
#[cfg(test)]
pub(crate) use volumes::render as render_volume;

use crate::Api;
use axum::Router;
use serde::Deserialize;
use types::Fault;

/// The routes of this part.
pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .merge(containers::routes())
        .merge(exec::routes())
        .merge(stats::routes())
        .merge(images::routes())
        .merge(volumes::routes())
        .merge(empty::routes())
}

/// Refuses another platform than this node's: `OS[/ARCHITECTURE[/VARIANT]]`, or an object in JSON.
fn of_this_platform(api: &Api, wanted: Option<&str>) -> Result<(), Fault> {
    let Some(wanted) = wanted else { return Ok(()) };
    let here = crate::system::go_arch(&api.node.about().architecture);
    if is_platform(wanted, here)? {
        return Ok(());
    }
    Err(Fault::not_implemented(&format!("platform={wanted} (this node is linux/{here})")))
}

fn is_platform(wanted: &str, architecture: &str) -> Result<bool, Fault> {
    #[derive(Default, Deserialize)]
    #[serde(rename = "Platform", rename_all = "lowercase", default)]
    struct Platform {
        os: String,
        architecture: String,
    }
    let platform = if wanted.starts_with('{') {
        crate::request::read::<Platform>(wanted.as_bytes())?.value
    } else {
        let mut words = wanted.split('/').map(str::to_owned);
        let (os, architecture) = (words.next(), words.next());
        Platform { os: os.unwrap_or_default(), architecture: architecture.unwrap_or_default() }
    };
    let is = |word: &str, own: &str| word.is_empty() || word == own;
    let named = match platform.architecture.as_str() {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Ok(is(&platform.os, "linux") && is(named, architecture))
}

#[cfg(test)]
pub(crate) fn served() -> Vec<crate::request::coverage::Served> {
    let parts = [
        containers::served(),
        exec::served(),
        stats::served(),
        images::served(),
        volumes::served(),
        empty::served(),
    ];
    parts.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_this_nodes_or_another() {
        for (wanted, own) in [
            ("linux/amd64", true),
            ("linux", true),
            ("linux/x86_64", true),
            (r#"{"architecture":"amd64","os":"linux"}"#, true),
            ("linux/arm64", false),
            ("windows/amd64", false),
        ] {
            assert_eq!(is_platform(wanted, "amd64"), Ok(own), "{wanted}");
        }
    }
}
