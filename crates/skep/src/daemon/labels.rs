//! The labels that a daemon is started with, as Docker's takes them.

use anyhow::{Result, bail};
use types::Labels;

/// What begins like this is Docker's own.
const RESERVED: [&str; 3] = ["com.docker.", "io.docker.", "org.dockerproject."];

/// Reads `KEY=VALUE`, each.
pub(crate) fn read(texts: &[String]) -> Result<Labels> {
    let mut labels = Labels::new();
    for text in texts {
        let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            bail!("bad attribute format: {text}: a label is KEY=VALUE");
        };
        let lower = format!("{}.", name.to_ascii_lowercase());
        if RESERVED.iter().any(|reserved| lower.starts_with(reserved)) {
            bail!(
                "label {text} is not allowed: the namespaces com.docker.*, io.docker.* and \
                 org.dockerproject.* are reserved for internal use"
            );
        }
        if let Some(other) = labels.insert(name.to_owned(), value.to_owned())
            && other != value
        {
            bail!("conflict labels for {name}={value} and {name}={other}");
        }
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(texts: &[&str]) -> String {
        let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
        read(&texts).map_or_else(|error| error.to_string(), |labels| format!("{labels:?}"))
    }

    #[test]
    fn labels_are_pairs_and_each_name_has_one_value() {
        for (texts, expected) in [
            (&["disk=ssd", "rack=a=b", "gpu="][..], r#"{"disk": "ssd", "gpu": "", "rack": "a=b"}"#),
            (&["disk=ssd", "disk=ssd"], r#"{"disk": "ssd"}"#),
            (&["disk=ssd", "disk=hdd"], "conflict labels for disk=hdd and disk=ssd"),
            (&["disk"], "bad attribute format: disk: a label is KEY=VALUE"),
            (&["=ssd"], "bad attribute format: =ssd: a label is KEY=VALUE"),
        ] {
            assert_eq!(said(texts), expected);
        }
        for text in ["com.docker.x=1", "IO.Docker.y=1", "org.dockerproject.z=", "com.docker=1"] {
            assert!(said(&[text]).contains("is not allowed"), "{text}");
        }
        assert!(!said(&["com.dockerish.x=1"]).contains("is not allowed"));
    }
}
