//! Secrets and configs: `SecretSpec` and `ConfigSpec` both ways, and how services refer to them.

use super::with_meta;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use types::{
    Config, ConfigId, FILE_MODE, Fault, FileContent, FileReference, FileSpec, FileTarget, Labels,
    Secret, SecretId, Templating,
};

/// `SecretSpec` and `ConfigSpec`: what Docker's have besides is in the table of fields.
#[derive(Default, Deserialize)]
#[serde(rename = "FileSpec", rename_all = "PascalCase", default)]
pub(crate) struct FileSpecJson {
    name: String,
    labels: Labels,
    /// Bytes, which Go writes as Base64.
    data: String,
    templating: Option<TemplatingJson>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "Templating", rename_all = "PascalCase", default)]
struct TemplatingJson {
    name: String,
}

impl FileSpecJson {
    pub(crate) fn parse(self) -> Result<FileSpec, Fault> {
        // What is wrong with it is not told: it may be secret.
        let wrong = |_| Fault::invalid("Data is no Base64");
        let data = STANDARD.decode(self.data.as_bytes()).map_err(wrong)?;
        let templating = self.templating.map_or(Ok(None), |it| match it.name.as_str() {
            "golang" => Ok(Some(Templating::Golang)),
            "" => Err(Fault::invalid("templating driver must have a name")),
            other => Err(Fault::not_implemented(&format!("Templating.Name={other} (golang is)"))),
        })?;
        let content = FileContent { data: data.into(), templating };
        Ok(FileSpec { name: self.name, labels: self.labels, content, ..FileSpec::default() })
    }
}

fn spec(spec: &FileSpec) -> Value {
    let mut shown = json!({ "Name": spec.name, "Labels": spec.labels });
    if let Some(Templating::Golang) = spec.content.templating {
        shown["Templating"] = json!({ "Name": "golang" });
    }
    shown
}

/// What Docker has no word for: which one of its name it is, from 1.
fn with_revision(mut shown: Value, file: &FileSpec) -> Value {
    if file.former || file.revision != 0 {
        shown["Revision"] = json!({ "Number": file.revision + 1, "Former": file.former });
    }
    shown
}

/// A secret, without its bytes.
pub(crate) fn render_secret(secret: &Secret) -> Value {
    let shown = json!({ "ID": secret.id, "Spec": spec(&secret.spec) });
    with_revision(with_meta(shown, &secret.meta), &secret.spec)
}

pub(crate) fn render_config(config: &Config) -> Value {
    let mut shown = spec(&config.spec);
    shown["Data"] = STANDARD.encode(config.spec.content.data.as_bytes()).into();
    let shown = json!({ "ID": config.id, "Spec": shown });
    with_revision(with_meta(shown, &config.meta), &config.spec)
}

/// The body of a request for a secret or a config. Its bytes are in it.
pub(crate) fn render_spec(file: &FileSpec) -> Value {
    let mut shown = spec(file);
    shown["Data"] = STANDARD.encode(file.content.data.as_bytes()).into();
    shown
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "SecretReference", rename_all = "PascalCase", default)]
pub(crate) struct SecretReferenceJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<FileTargetJson>,
    #[serde(rename = "SecretID")]
    secret_id: String,
    secret_name: String,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "ConfigReference", rename_all = "PascalCase", default)]
pub(crate) struct ConfigReferenceJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<FileTargetJson>,
    #[serde(rename = "ConfigID")]
    config_id: String,
    config_name: String,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "ReferenceFileTarget", rename_all = "PascalCase", default)]
struct FileTargetJson {
    name: String,
    #[serde(rename = "UID")]
    uid: String,
    #[serde(rename = "GID")]
    gid: String,
    mode: Option<u32>,
}

impl SecretReferenceJson {
    pub(crate) fn parse(self) -> Result<FileReference<SecretId>, Fault> {
        let target = target(self.file, "secret", &self.secret_name)?;
        Ok(FileReference { id: self.secret_id.into(), name: self.secret_name, target })
    }

    pub(crate) fn render(reference: &FileReference<SecretId>) -> Self {
        Self {
            file: Some(FileTargetJson::render(&reference.target)),
            secret_id: reference.id.to_string(),
            secret_name: reference.name.clone(),
        }
    }
}

impl ConfigReferenceJson {
    pub(crate) fn parse(self) -> Result<FileReference<ConfigId>, Fault> {
        let target = target(self.file, "config", &self.config_name)?;
        Ok(FileReference { id: self.config_id.into(), name: self.config_name, target })
    }

    pub(crate) fn render(reference: &FileReference<ConfigId>) -> Self {
        Self {
            file: Some(FileTargetJson::render(&reference.target)),
            config_id: reference.id.to_string(),
            config_name: reference.name.clone(),
        }
    }
}

fn target(file: Option<FileTargetJson>, word: &str, name: &str) -> Result<FileTarget, Fault> {
    let missing = || Fault::invalid(format!("malformed {word} reference, no target provided"));
    let FileTargetJson { name: target, uid, gid, mode } = file.ok_or_else(missing)?;
    let number = |what: &str, text: &str| match text {
        "" => Ok(0),
        text => text.parse().map_err(|_unreadable| {
            Fault::invalid(format!("invalid {what} \"{text}\" of the {word} {name}: use a number"))
        }),
    };
    let (uid, gid) = (number("UID", &uid)?, number("GID", &gid)?);
    Ok(FileTarget { name: target, uid, gid, mode: mode.unwrap_or(FILE_MODE) })
}

impl FileTargetJson {
    fn render(target: &FileTarget) -> Self {
        Self {
            name: target.name.clone(),
            uid: target.uid.to_string(),
            gid: target.gid.to_string(),
            mode: Some(target.mode),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<FileSpec, Fault> {
        crate::request::read::<FileSpecJson>(text.as_bytes())?.value.parse()
    }

    #[test]
    fn a_secret_is_shown_without_its_bytes_and_a_config_with_them() {
        let text = r#"{"Name": "a", "Labels": {"k": "v"}, "Data": "cGFzc3dvcmQ=",
            "Templating": {"Name": "golang"}}"#;
        let spec = parse(text).unwrap();
        assert_eq!(spec.content.data.as_bytes(), b"password");
        let secret = Secret { id: "s".into(), spec: spec.clone(), ..Secret::default() };
        let shown = render_secret(&secret);
        assert_eq!(shown["Spec"]["Templating"]["Name"], "golang");
        assert!(!shown.to_string().contains("cGFzc3dvcmQ="), "{shown}");
        let config = Config { id: "c".into(), spec: spec.clone(), ..Config::default() };
        assert_eq!(render_config(&config)["Spec"]["Data"], "cGFzc3dvcmQ=");
        assert_eq!(parse(&render_spec(&spec).to_string()).unwrap(), spec);
    }

    #[test]
    fn what_skep_does_not_have_is_refused_and_bytes_are_not_told() {
        let fault = parse(r#"{"Name": "a", "Data": "cGFzc3dvcmQ"}"#).unwrap_err();
        assert!(!fault.message.contains("cGFz") && fault.message.contains("Base64"), "{fault}");
        for (text, word) in [
            (r#"{"Name": "a", "Driver": {"Name": "vault"}}"#, "Driver"),
            (r#"{"Name": "a", "Templating": {"Name": "jinja"}}"#, "Templating.Name=jinja"),
            (r#"{"Templating": {"Name": "golang", "Options": {"a": "b"}}}"#, "Options"),
        ] {
            let fault = parse(text).unwrap_err();
            assert_eq!(fault.kind, types::FaultKind::NotImplemented);
            assert!(fault.message.contains(word), "{fault}");
        }
    }

    #[test]
    fn a_reference_names_a_file_and_whose_it_is() {
        let read = |text: &str| {
            crate::request::read::<SecretReferenceJson>(text.as_bytes())?.value.parse()
        };
        let given = r#"{"SecretID": "s", "SecretName": "a",
            "File": {"Name": "/k", "UID": "7", "GID": "8", "Mode": 256}}"#;
        let reference = read(given).unwrap();
        let target = FileTarget { name: "/k".to_owned(), uid: 7, gid: 8, mode: 0o400 };
        assert_eq!(reference.target, target);
        let text = serde_json::to_string(&SecretReferenceJson::render(&reference)).unwrap();
        assert_eq!(read(&text).unwrap(), reference);
        let plain = read(r#"{"SecretID": "s", "SecretName": "a", "File": {"Name": "a"}}"#);
        assert_eq!(plain.unwrap().target.mode, 0o444);
        for (text, words) in [
            (r#"{"SecretID": "s", "SecretName": "a"}"#, "no target provided"),
            (r#"{"SecretName": "a", "File": {"Name": "a", "UID": "root"}}"#, "UID \"root\""),
        ] {
            let fault = read(text).unwrap_err();
            assert!(fault.message.contains(words), "{fault}");
        }
    }
}
