//! `inspect`: objects as JSON, through a template, or for people.

use super::{print, template};
use anyhow::Result;
use clap::Args;
use serde_json::Value;

#[derive(Args, Debug)]
pub(crate) struct Show {
    /// Write objects by a template, or as `json`
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Write objects for people
    #[arg(long, conflicts_with = "format")]
    pretty: bool,
}

impl Show {
    /// Whether objects are written for people.
    pub(crate) fn is_pretty(&self) -> bool {
        self.pretty || self.format.as_deref() == Some("pretty")
    }

    /// Writes objects as the user wants them.
    pub(crate) fn print(&self, objects: &[Value], pretty: fn(&Value) -> String) -> Result<()> {
        if self.is_pretty() {
            print(&objects.iter().map(pretty).collect::<Vec<_>>().join("\n"));
            return Ok(());
        }
        write(objects, self.format.as_deref())
    }
}

/// Writes objects as one JSON list, or each by a template.
pub(crate) fn write(objects: &[Value], format: Option<&str>) -> Result<()> {
    match format {
        None | Some("") => {
            let mut text = Vec::new();
            let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            let mut writer = serde_json::Serializer::with_formatter(&mut text, indent);
            serde::Serialize::serialize(objects, &mut writer)?;
            print(&format!("{}\n", String::from_utf8_lossy(&text)));
        }
        Some(format) => {
            for object in objects {
                let text = match format {
                    "json" => object.to_string(),
                    format => template::render(format, object)?,
                };
                print(&format!("{text}\n"));
            }
        }
    }
    Ok(())
}

/// Text for people: names, values, and values below a head.
#[derive(Default)]
pub(crate) struct Pretty(String);

impl Pretty {
    pub(crate) fn line(&mut self, name: &str, value: &str) {
        self.0.push_str(&[name, ":\t", value, "\n"].concat());
    }

    /// A line, where there is a value.
    pub(crate) fn some(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.line(name, value);
        }
    }

    pub(crate) fn head(&mut self, name: &str) {
        self.0.push_str(&[name, ":\n"].concat());
    }

    pub(crate) fn inner(&mut self, name: &str, value: &str) {
        self.0.push_str(&[" ", name, ":\t", value, "\n"].concat());
    }

    pub(crate) fn inner_some(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.inner(name, value);
        }
    }

    pub(crate) fn labels(&mut self, name: &str, labels: Option<&Value>) {
        let Some(labels) = labels.and_then(Value::as_object).filter(|labels| !labels.is_empty())
        else {
            return;
        };
        self.head(name);
        for (key, value) in labels {
            let value = value.as_str().unwrap_or_default();
            self.0.push_str(&[" - ", key, "=", value, "\n"].concat());
        }
    }

    /// The text, its values below each other.
    pub(crate) fn finish(self) -> String {
        let width = self
            .0
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .map(|(name, _)| name.chars().count() + 1)
            .max()
            .unwrap_or(0);
        let mut text = String::new();
        for line in self.0.lines() {
            match line.split_once('\t') {
                Some((name, value)) => {
                    let blanks = " ".repeat(width - name.chars().count());
                    text.push_str(&[name, &blanks, value].concat());
                }
                None => text.push_str(line),
            }
            text.push('\n');
        }
        text
    }
}
