//! What a log says of the container that it is of: its tag, and the labels and variables asked for.

use gotmpl::{MissingKey, Template, ToValue, Value, tmap};
use regex::Regex;
use std::collections::BTreeMap;
use std::sync::Arc;
use types::{Fault, Labels, Timestamp};

/// Of all attributes of a line together.
const ATTRIBUTES_MAX: usize = 16 << 10;
/// What remote drivers have for a tag where none is said.
const USUAL_TAG: &str = "{{.ID}}";

/// The container, as templates and drivers know it.
#[derive(Clone, Copy, Default)]
pub(crate) struct LoggedContainer<'a> {
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) image: &'a str,
    pub(crate) image_id: &'a str,
    pub(crate) created: Timestamp,
    /// With its arguments.
    pub(crate) command: &'a [String],
    pub(crate) labels: Option<&'a Labels>,
    /// `NAME=value`.
    pub(crate) env: &'a [String],
}

/// Which labels and variables go with each line, and the template of its tag.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    labels: Vec<String>,
    labels_regex: Option<Regex>,
    env: Vec<String>,
    env_regex: Option<Regex>,
    /// Empty where none is said.
    tag: String,
}

/// What goes with each line of a remote driver.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) image_id: String,
    pub(crate) created: String,
    pub(crate) command: String,
    pub(crate) tag: String,
    /// The machine.
    pub(crate) host: String,
    /// Labels and variables.
    pub(crate) attributes: Labels,
}

impl Selection {
    /// Takes an option that is about this; says whether it is.
    pub(crate) fn take(&mut self, name: &str, value: &str) -> Result<bool, Fault> {
        let list = || {
            let words = value.split(',').map(str::trim).filter(|word| !word.is_empty());
            words.map(str::to_owned).collect()
        };
        let regex = || {
            let wrong = |error| Fault::invalid(format!("invalid value for {name}: {error}"));
            (!value.is_empty()).then(|| Regex::new(value)).transpose().map_err(wrong)
        };
        match name {
            "labels" => self.labels = list(),
            "env" => self.env = list(),
            "labels-regex" => self.labels_regex = regex()?,
            "env-regex" => self.env_regex = regex()?,
            "tag" => value.clone_into(&mut self.tag),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Labels and variables that were asked for.
    fn chosen(&self, about: &LoggedContainer<'_>) -> Labels {
        let labels = about.labels.into_iter().flatten();
        let labels: BTreeMap<&str, &str> =
            labels.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let env = about.env.iter().filter_map(|variable| variable.split_once('=')).collect();
        let mut found = Labels::new();
        for (names, regex, known) in
            [(&self.labels, &self.labels_regex, labels), (&self.env, &self.env_regex, env)]
        {
            let matches = |name: &str| regex.as_ref().is_some_and(|regex| regex.is_match(name));
            let wanted = known
                .into_iter()
                .filter(|(name, _)| names.iter().any(|word| word == name) || matches(name));
            found.extend(wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        found
    }

    /// What goes with each line of a file.
    pub(crate) fn attributes(&self, about: &LoggedContainer<'_>) -> Result<Labels, Fault> {
        let mut found = self.chosen(about);
        if !self.tag.is_empty() {
            found.insert("tag".to_owned(), fill(&self.tag, about)?);
        }
        bounded(found)
    }

    /// What goes with each line of a remote driver.
    pub(crate) fn source(&self, about: &LoggedContainer<'_>) -> Result<Source, Fault> {
        let tag = if self.tag.is_empty() { USUAL_TAG } else { &self.tag };
        Ok(Source {
            id: about.id.to_owned(),
            name: about.name.to_owned(),
            image: about.image.to_owned(),
            image_id: about.image_id.to_owned(),
            created: about.created.rfc3339(),
            command: about.command.join(" "),
            tag: fill(tag, about)?,
            host: host(),
            attributes: bounded(self.chosen(about))?,
        })
    }
}

fn bounded(attributes: Labels) -> Result<Labels, Fault> {
    if ATTRIBUTES_MAX < attributes.iter().map(|(name, value)| name.len() + value.len()).sum() {
        let reason = format!("a line's attributes are larger than {ATTRIBUTES_MAX} bytes");
        return Err(Fault::invalid(reason));
    }
    Ok(attributes)
}

fn host() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| "localhost".to_owned())
}

fn fill(tag: &str, about: &LoggedContainer<'_>) -> Result<String, Fault> {
    let short = |id: &str| id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
    let labels = about.labels.into_iter().flatten();
    let labels = labels.map(|(name, value)| (name.as_str().into(), value.to_value()));
    let data: Value = tmap! {
        "ID" => short(about.id),
        "FullID" => about.id,
        "ContainerID" => about.id,
        "Name" => about.name,
        "ContainerName" => format!("/{}", about.name),
        "ImageID" => short(about.image_id),
        "ImageFullID" => about.image_id,
        "ContainerImageID" => about.image_id,
        "ImageName" => about.image,
        "ContainerImageName" => about.image,
        "ContainerLabels" => Value::Map(Arc::new(labels.collect())),
        "Command" => about.command.join(" "),
        "Hostname" => host(),
        "DaemonName" => "docker",
    };
    let template = Template::new("log-tag").missing_key(MissingKey::Error).max_range_iters(1000);
    let filled = template.parse(tag).and_then(|template| template.execute_to_string(&data));
    filled.map_err(|error| Fault::invalid(format!("invalid value for tag: {tag}: {error}")))
}
