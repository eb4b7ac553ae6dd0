//! Options of the log driver: what is honoured, and the rest refused by name.

use super::Limits;
use crate::config::LogConfig;
use gotmpl::{MissingKey, Template, Value, tmap};
use std::collections::BTreeMap;
use types::{Fault, Labels, parse_size};

const MIB: u64 = 1 << 20;
/// Nobody wants more files for one container.
const FILES_LIMIT: u32 = 1000;
/// Of all attributes of a line together.
const ATTRIBUTES_MAX: usize = 16 << 10;

/// Docker's other drivers.
const DOCKERS: [&str; 8] =
    ["awslogs", "etwlogs", "fluentd", "gcplogs", "gelf", "journald", "splunk", "syslog"];

/// Options, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) limits: Limits,
    /// Labels and variables whose values go with each line.
    labels: Vec<String>,
    env: Vec<String>,
    /// A template; goes with each line where not empty.
    tag: String,
}

/// What attributes are made from.
pub(crate) struct LoggedContainer<'a> {
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) image: &'a str,
    pub(crate) image_id: &'a str,
    pub(crate) labels: &'a Labels,
    /// `NAME=value`.
    pub(crate) env: &'a [String],
}

impl LogConfig {
    /// Refuses a driver that is not there, and options that have no effect here.
    pub fn check(&self) -> Result<(), Fault> {
        match self.driver.as_str() {
            "" | "json-file" | "local" => {
                let options = Options::parse(self)?;
                let (labels, env) = (Labels::new(), Vec::new());
                let about = LoggedContainer {
                    id: "",
                    name: "",
                    image: "",
                    image_id: "",
                    labels: &labels,
                    env: &env,
                };
                options.attributes(&about).map(|_| ())
            }
            // As with Docker, "none" takes whatever is said of a log that there is not.
            "none" => Ok(()),
            other if DOCKERS.contains(&other) => {
                let feature = format!("the log driver {other:?} (use json-file, local or none)");
                Err(Fault::not_implemented(&feature))
            }
            other => Err(Fault::invalid(format!(
                "logger: no log driver named '{other}' is registered: use json-file, local or none"
            ))),
        }
    }
}

impl Options {
    /// Reads options of json-file and local. Docker's own json-file has no limit; here there is one.
    pub(crate) fn parse(log: &LogConfig) -> Result<Self, Fault> {
        let local = log.driver == "local";
        let driver = if local { "local" } else { "json-file" };
        let limits = if local {
            Limits { size: 20 * MIB, files: 5 }
        } else {
            Limits { size: 10 * MIB, files: 3 }
        };
        let (labels, env, tag) = (Vec::new(), Vec::new(), String::new());
        let mut options = Self { limits, labels, env, tag };
        for (name, value) in &log.options {
            let invalid = || Fault::invalid(format!("invalid value for {name}: {value}"));
            let list = || value.split(',').map(str::trim).filter(|word| !word.is_empty());
            match name.as_str() {
                "max-size" if value == "-1" => {}
                "max-size" => options.limits.size = size(value).ok_or_else(invalid)?,
                "max-file" => {
                    let files = value.parse().ok().filter(|n| (1..=FILES_LIMIT).contains(n));
                    options.limits.files = files.ok_or_else(invalid)?;
                }
                // Output never waits for the log: a full disk loses lines in either mode.
                "mode" if matches!(value.as_str(), "blocking" | "non-blocking") => {}
                "max-buffer-size" => drop(size(value).ok_or_else(invalid)?),
                "compress" if value == "false" => {}
                "compress" if value == "true" => {
                    let feature = format!("compressing old files of the {driver} log driver");
                    return Err(Fault::not_implemented(&feature));
                }
                "mode" | "compress" => return Err(invalid()),
                "labels" if !local => options.labels = list().map(str::to_owned).collect(),
                "env" if !local => options.env = list().map(str::to_owned).collect(),
                "tag" if !local => options.tag.clone_from(value),
                "labels-regex" | "env-regex" if !local => {
                    let feature = format!("the log option '{name}' (use labels, env)");
                    return Err(Fault::not_implemented(&feature));
                }
                _ => {
                    let reason = format!("unknown log opt '{name}' for {driver} log driver");
                    return Err(Fault::invalid(reason));
                }
            }
        }
        Ok(options)
    }

    /// What goes with each line.
    pub(crate) fn attributes(&self, about: &LoggedContainer<'_>) -> Result<Labels, Fault> {
        let mut found = Labels::new();
        for name in &self.labels {
            if let Some(value) = about.labels.get(name) {
                found.insert(name.clone(), value.clone());
            }
        }
        let env: BTreeMap<&str, &str> =
            about.env.iter().filter_map(|variable| variable.split_once('=')).collect();
        for name in &self.env {
            if let Some(value) = env.get(name.as_str()) {
                found.insert(name.clone(), (*value).to_owned());
            }
        }
        if !self.tag.is_empty() {
            found.insert("tag".to_owned(), fill(&self.tag, about)?);
        }
        if ATTRIBUTES_MAX < found.iter().map(|(name, value)| name.len() + value.len()).sum() {
            let reason = format!("a line's attributes are larger than {ATTRIBUTES_MAX} bytes");
            return Err(Fault::invalid(reason));
        }
        Ok(found)
    }
}

fn fill(tag: &str, about: &LoggedContainer<'_>) -> Result<String, Fault> {
    let short = |id: &str| id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
    let data: Value = tmap! {
        "ID" => short(about.id),
        "FullID" => about.id,
        "Name" => about.name,
        "ImageID" => short(about.image_id),
        "ImageFullID" => about.image_id,
        "ImageName" => about.image,
        "DaemonName" => "docker",
    };
    let template = Template::new("log-tag").missing_key(MissingKey::Error).max_range_iters(1000);
    let filled = template.parse(tag).and_then(|template| template.execute_to_string(&data));
    filled.map_err(|error| Fault::invalid(format!("invalid value for tag: {tag}: {error}")))
}

/// `10m`, `1g`, `100kb`, `4096`; a log of nothing is none.
fn size(text: &str) -> Option<u64> {
    parse_size(text).and_then(|size| u64::try_from(size).ok()).filter(|size| 0 < *size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(driver: &str, options: &[(&str, &str)]) -> LogConfig {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        LogConfig { driver: driver.to_owned(), options }
    }

    #[test]
    fn options_of_the_driver_are_read_and_others_refused_by_name() {
        let limits = |driver, options: &[(&str, &str)]| {
            Options::parse(&config(driver, options)).unwrap().limits
        };
        assert_eq!(limits("", &[]), Limits { size: 10 * MIB, files: 3 });
        assert_eq!(limits("local", &[]), Limits { size: 20 * MIB, files: 5 });
        let small = [("max-size", "4k"), ("max-file", "2"), ("compress", "false")];
        assert_eq!(limits("json-file", &small), Limits { size: 4096, files: 2 });
        for (driver, name, value) in [
            ("json-file", "max-size", "much"),
            ("json-file", "max-size", "0"),
            ("json-file", "max-file", "0"),
            ("json-file", "max-fil", "1"),
            ("json-file", "compress", "true"),
            ("json-file", "labels-regex", "^a"),
            ("json-file", "mode", "fast"),
            ("json-file", "tag", "{{.Nope}}"),
            ("local", "tag", "x"),
            ("gelf", "gelf-address", "udp://1.2.3.4:12201"),
            ("syslog", "tag", "x"),
        ] {
            let fault = config(driver, &[(name, value)]).check().unwrap_err();
            let named = fault.message.contains(name) || fault.message.contains(driver);
            let compress = name == "compress" && fault.message.contains("compressing");
            assert!(named || compress, "{driver} {name}={value}: {fault}");
        }
        config("none", &[("whatever", "1")]).check().unwrap();
    }

    #[test]
    fn labels_variables_and_a_tag_go_with_each_line() {
        let options = [("labels", "tier, missing"), ("env", "ZONE"), ("tag", "{{.Name}}/{{.ID}}")];
        let options = Options::parse(&config("json-file", &options)).unwrap();
        let labels = [("tier", "front"), ("other", "x")];
        let about = LoggedContainer {
            id: "0123456789abcdef",
            name: "web",
            image: "web:1",
            image_id: "sha256:ff",
            labels: &labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            env: &["ZONE=a=b".to_owned(), "HOME=/".to_owned()],
        };
        let found = options.attributes(&about).unwrap();
        let pairs: Vec<String> = found.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(pairs, ["ZONE=a=b", "tag=web/0123456789ab", "tier=front"]);
    }
}
