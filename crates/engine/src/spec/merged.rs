//! What the image and the user say of a container, as one: its `Config` as Docker shows it.

use super::ImageConfig;
use super::image::label_size;
use crate::config::ContainerConfig;
use std::collections::BTreeSet;
use types::{HealthCheck, Labels};

/// The user's settings over the image's, by Docker's rules for each field.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merged {
    pub user: String,
    /// `80/tcp`
    pub exposed_ports: BTreeSet<String>,
    /// The user's variables, then those of the image that have other names.
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    /// Targets of volumes without a name.
    pub volumes: BTreeSet<String>,
    /// Empty where neither says one.
    pub dir: String,
    pub labels: Labels,
    pub stop_signal: String,
    pub health: Option<HealthCheck>,
}

impl Merged {
    pub(crate) fn new(config: &ContainerConfig, image: &ImageConfig) -> Self {
        let (spec, asked) = (&config.spec, &config.asked);
        let choose = |own: &str, image: &str| {
            if own.is_empty() { image.to_owned() } else { own.to_owned() }
        };
        let own = !spec.command.is_empty();
        let command = if own || !spec.args.is_empty() { &spec.args } else { &image.cmd };
        Self {
            user: choose(&spec.user, &image.user),
            exposed_ports: asked.exposed_ports.iter().cloned().chain(image.exposed()).collect(),
            env: env(&spec.env, &image.env),
            entrypoint: if own { &spec.command } else { &image.entrypoint }.clone(),
            command: command.clone(),
            volumes: asked.volumes.iter().chain(image.volumes.keys()).cloned().collect(),
            dir: choose(&spec.dir, &image.working_dir),
            labels: labels(&spec.labels, &image.labels),
            stop_signal: choose(&spec.stop_signal, &image.stop_signal),
            health: health(spec.health.as_ref(), image.health()),
        }
    }
}

/// A container's own labels over its image's.
pub(crate) fn labels(own: &Labels, image: &Labels) -> Labels {
    let mut labels = image.clone();
    labels.extend(own.clone());
    labels
}

/// The same, but only as many as `limit` bytes hold: those first that the user gave.
pub(crate) fn labels_within(own: &Labels, image: &Labels, limit: usize) -> Labels {
    let further = image.iter().filter(|(name, _)| !own.contains_key(*name));
    let mut left = limit;
    let mut labels = Labels::new();
    for label in own.iter().chain(further) {
        if let Some(rest) = left.checked_sub(label_size(label)) {
            left = rest;
            labels.insert(label.0.clone(), label.1.clone());
        }
    }
    labels
}

fn env(own: &[String], image: &[String]) -> Vec<String> {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let names: BTreeSet<String> = own.iter().map(|variable| name(variable)).collect();
    let further = image.iter().filter(|variable| !names.contains(&name(variable)));
    own.iter().chain(further).cloned().collect()
}

/// The user's check over the image's, field by field.
fn health(own: Option<&HealthCheck>, image: Option<HealthCheck>) -> Option<HealthCheck> {
    let (Some(own), Some(image)) = (own, &image) else { return own.cloned().or(image) };
    let choose = |own: std::time::Duration, image| if own.is_zero() { image } else { own };
    Some(HealthCheck {
        test: if own.test.is_empty() { image.test.clone() } else { own.test.clone() },
        interval: choose(own.interval, image.interval),
        timeout: choose(own.timeout, image.timeout),
        start_period: choose(own.start_period, image.start_period),
        start_interval: choose(own.start_interval, image.start_interval),
        retries: if own.retries == 0 { image.retries } else { own.retries },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Asked;
    use serde_json::json;
    use std::time::Duration;
    use types::ContainerSpec;

    fn image() -> ImageConfig {
        ImageConfig::of(&json!({"config": {
            "User": "web", "ExposedPorts": {"80/tcp": {}, "53/udp": {}, "90": {}},
            "Env": ["PATH=/bin", "A=image"], "Entrypoint": ["/entry"], "Cmd": ["serve"],
            "Volumes": {"/data": {}}, "WorkingDir": "/srv", "Labels": {"a": "image", "b": "image"},
            "StopSignal": "SIGQUIT",
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 2_000_000_000_u64, "Retries": 7},
        }}))
    }

    #[test]
    fn what_the_user_leaves_open_is_as_the_image_says() {
        let merged = Merged::new(&ContainerConfig::default(), &image());
        assert_eq!((merged.user.as_str(), merged.dir.as_str()), ("web", "/srv"));
        assert_eq!(
            (merged.entrypoint.len(), merged.command.as_slice()),
            (1, &["serve".into()][..])
        );
        let ports: Vec<&str> = merged.exposed_ports.iter().map(String::as_str).collect();
        assert_eq!(ports, ["53/udp", "80/tcp", "90/tcp"]);
        assert_eq!(merged.env, ["PATH=/bin", "A=image"]);
        assert!(merged.volumes.contains("/data") && merged.labels["b"] == "image");
        assert_eq!(merged.stop_signal, "SIGQUIT");
        assert_eq!(merged.health, image().health());
        assert_eq!(
            Merged::new(&ContainerConfig::default(), &ImageConfig::default()),
            Merged::default()
        );
    }

    #[test]
    fn of_many_labels_the_users_are_told_first_and_no_more_than_there_is_a_limit() {
        let labels = |all: &[(&str, &str)]| -> Labels {
            all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let (own, image) = (labels(&[("z", "own")]), labels(&[("a", "1"), ("b", "2"), ("z", "3")]));
        let names = |limit| {
            let told = labels_within(&own, &image, limit);
            told.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(1000), "a=1 b=2 z=own");
        assert_eq!(labels_within(&own, &image, 1000), super::labels(&own, &image));
        assert_eq!(names(68 + 66), "a=1 z=own");
        assert_eq!(names(68), "z=own");
        assert_eq!(names(67), "a=1");
    }

    #[test]
    fn what_the_user_says_goes_over_what_the_image_says() {
        let spec = ContainerSpec {
            args: vec!["own".into()],
            env: vec!["A=own".into(), "PATH".into()],
            labels: [("a".to_owned(), "own".to_owned())].into(),
            health: Some(HealthCheck {
                interval: Duration::from_secs(9),
                ..HealthCheck::default()
            }),
            ..ContainerSpec::default()
        };
        let asked = Asked {
            exposed_ports: ["70/tcp".to_owned()].into(),
            volumes: ["/own".to_owned()].into(),
            ..Asked::default()
        };
        let mut config = ContainerConfig { spec, asked, ..ContainerConfig::default() };
        let merged = Merged::new(&config, &image());
        assert_eq!(merged.env, ["A=own", "PATH"]);
        assert_eq!((&*merged.labels["a"], &*merged.labels["b"]), ("own", "image"));
        assert_eq!((merged.exposed_ports.len(), merged.volumes.len()), (4, 2));
        assert_eq!(
            (merged.entrypoint.as_slice(), merged.command.as_slice()),
            (&["/entry".to_owned()][..], &["own".to_owned()][..],)
        );
        let health = merged.health.unwrap();
        assert_eq!((health.interval, health.retries), (Duration::from_secs(9), 7));
        // An entrypoint of one's own drops the image's command.
        config.spec.command = vec!["/own".into()];
        config.spec.args.clear();
        let merged = Merged::new(&config, &image());
        assert_eq!((merged.entrypoint[0].as_str(), merged.command.len()), ("/own", 0));
    }
}
