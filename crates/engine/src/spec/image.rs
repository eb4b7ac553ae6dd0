//! What an image says about containers made from it.

use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use types::{Fault, HealthCheck, Labels};

/// What a process can be given: a quarter of its stack, which has 8 MiB, setrlimit(2).
const ENV_MAX: usize = 2 << 20;
/// Volumes of an image are made without being asked for, each a folder with files in it.
const VOLUMES_MAX: usize = 100;
/// Labels are told with each event, and shown with each list of containers.
const LABELS_MAX: usize = 1 << 20;

/// The `config` object of an image's configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ImageConfig {
    pub(crate) user: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) env: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) entrypoint: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) cmd: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) volumes: BTreeMap<String, Value>,
    /// `80/tcp`, `53/udp`
    #[serde(deserialize_with = "nullable")]
    exposed_ports: BTreeMap<String, Value>,
    pub(crate) working_dir: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) labels: Labels,
    pub(crate) stop_signal: String,
    healthcheck: Option<Check>,
}

impl ImageConfig {
    /// The TCP ports that the image says it serves at.
    pub(crate) fn exposed_tcp(&self) -> impl Iterator<Item = u16> {
        let port = |text: &String| text.strip_suffix("/tcp").unwrap_or(text).parse().ok();
        self.exposed_ports.keys().filter_map(port)
    }

    /// All ports that the image says it serves at, each with its protocol.
    pub(crate) fn exposed(&self) -> impl Iterator<Item = String> {
        let whole =
            |port: &String| if port.contains('/') { port.clone() } else { format!("{port}/tcp") };
        self.exposed_ports.keys().map(whole)
    }
}

/// Docker's addition to OCI. Durations are nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Check {
    #[serde(deserialize_with = "nullable")]
    test: Vec<String>,
    interval: u64,
    timeout: u64,
    start_period: u64,
    start_interval: u64,
    retries: u32,
}

/// What a label takes in memory, about.
pub(super) fn label_size((name, value): (&String, &String)) -> usize {
    const PLACE: usize = 64;
    name.len() + value.len() + PLACE
}

/// Takes null for nothing, as images made by Go programs have it.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

impl ImageConfig {
    /// Reads an image's whole configuration. What cannot be read is taken for nothing.
    pub(crate) fn of(configuration: &Value) -> Self {
        let config = configuration.get("config").or_else(|| configuration.get("Config"));
        let Some(config) = config else { return Self::default() };
        Self::deserialize(config).unwrap_or_else(|error| {
            tracing::warn!(%error, "an image's configuration is not understood");
            Self::default()
        })
    }

    /// Refuses what no container can be made from. An image may come from anybody: what it says has
    /// the limits that a process and a node have.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        // execve(2) counts the text, the byte at its end and the pointer to it.
        let env: usize = self.env.iter().map(|variable| variable.len() + 9).sum();
        if ENV_MAX < env {
            return Err(Fault::invalid(format!(
                "the image's variables take {env} bytes: a process can be given {ENV_MAX} at most"
            )));
        }
        if VOLUMES_MAX < self.volumes.len() {
            return Err(Fault::invalid(format!(
                "the image has {} volumes: {VOLUMES_MAX} at most are made for a container",
                self.volumes.len()
            )));
        }
        let labels: usize = self.labels.iter().map(label_size).sum();
        if LABELS_MAX < labels {
            return Err(Fault::invalid(format!(
                "the image's labels take {labels} bytes: {LABELS_MAX} at most are kept"
            )));
        }
        Ok(())
    }

    /// What of an image's configuration is kept with a container: [`Self::of`] reads no more, and how
    /// the image came to be can be long.
    pub(crate) fn kept(mut configuration: Value) -> Value {
        let config = ["config", "Config"].into_iter().find_map(|name| {
            let config = configuration.get_mut(name)?;
            Some(config.take())
        });
        config.map_or(Value::Null, |config| json!({ "config": config }))
    }

    /// The image's health check.
    pub(crate) fn health(&self) -> Option<HealthCheck> {
        let check = self.healthcheck.as_ref()?;
        Some(HealthCheck {
            test: check.test.clone(),
            interval: Duration::from_nanos(check.interval),
            timeout: Duration::from_nanos(check.timeout),
            start_period: Duration::from_nanos(check.start_period),
            start_interval: Duration::from_nanos(check.start_interval),
            retries: check.retries,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_of_an_image_are_nothing() {
        let config = ImageConfig::of(&json!({
            "config": {"Cmd": ["sh"], "Entrypoint": null, "Env": null, "Volumes": {"/data": {}},
                "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 1_000_000_000_u64}}
        }));
        assert_eq!((config.cmd.len(), config.entrypoint.len()), (1, 0));
        assert!(config.volumes.contains_key("/data"));
        assert_eq!(config.health().unwrap().interval, Duration::from_secs(1));
    }

    #[test]
    fn an_image_with_more_variables_than_a_process_can_be_given_is_refused() {
        let with = |count: usize| {
            let env: Vec<String> = (0..count).map(|number| format!("{number:06x}=")).collect();
            ImageConfig::of(&json!({"config": {"Env": env}})).check()
        };
        // Sixteen bytes each.
        assert_eq!(with(ENV_MAX / 16), Ok(()));
        let refused = with(ENV_MAX / 16 + 1).unwrap_err();
        assert!(refused.message.contains("the image's variables take 2097168 bytes"), "{refused}");
    }

    #[test]
    fn an_image_with_more_volumes_or_labels_than_anybody_needs_is_refused() {
        let config = |kind: &str, count: usize| {
            let entries: serde_json::Map<String, Value> =
                (0..count).map(|number| (format!("/{number:07}"), json!({}))).collect();
            json!({"config": {kind: entries}})
        };
        let check = |config: &Value| ImageConfig::of(config).check().map_err(|it| it.message);
        assert_eq!(check(&config("Volumes", VOLUMES_MAX)), Ok(()));
        let refused = check(&config("Volumes", VOLUMES_MAX + 1)).unwrap_err();
        assert_eq!(refused, "the image has 101 volumes: 100 at most are made for a container");

        let labels = |size: usize| json!({"config": {"Labels": {"a": "x".repeat(size)}}});
        assert_eq!(check(&labels(LABELS_MAX - 65)), Ok(()));
        let refused = check(&labels(LABELS_MAX - 64)).unwrap_err();
        assert_eq!(refused, "the image's labels take 1048577 bytes: 1048576 at most are kept");
    }

    #[test]
    fn what_a_container_keeps_of_its_image_reads_as_the_whole() {
        for name in ["config", "Config"] {
            let whole = json!({name: {"Cmd": ["sh"]}, "history": [{"created_by": "long"}]});
            let kept = ImageConfig::kept(whole.clone());
            assert_eq!(ImageConfig::of(&kept), ImageConfig::of(&whole));
            assert_eq!(kept, json!({"config": {"Cmd": ["sh"]}}));
        }
        assert_eq!(ImageConfig::of(&ImageConfig::kept(json!({}))), ImageConfig::default());
    }
}
