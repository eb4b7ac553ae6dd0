//! `skep secret` and `skep config`: what services get as files. Both go the same way.

use super::query::{filters, labels, text};
use super::show::{Pretty, Show};
use super::table::List;
use super::{Listing, human, say};
use crate::client::{Client, escape};
use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};
use types::{
    Config, ConfigId, ContainerSpec, FileContent, FileReference, FileSpec, GivenFile, Secret,
    SecretId, Templating,
};

/// More than any secret or config may have.
const DATA_MAX: u64 = 4 << 20;

#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Create one from a file, or from standard input as -
    Create(Create),
    /// Show them as JSON
    Inspect(Inspect),
    /// List them
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Remove them
    #[command(visible_alias = "remove")]
    Rm(Rm),
    /// Change the labels of one, or what is in it: services that have it are updated
    Update(Update),
}

#[derive(Args, Debug)]
pub(crate) struct Ls {
    #[command(flatten)]
    listing: Listing,
    /// Show former revisions, too, as long as they are kept
    #[arg(long)]
    revisions: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Create {
    name: String,
    /// What is in it; - is standard input
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// Label it
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Whose templates are in it
    #[arg(long, value_name = "DRIVER", value_parser = ["golang"])]
    template_driver: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Inspect {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    show: Show,
}

#[derive(Args, Debug)]
pub(crate) struct Rm {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Update {
    name: String,
    /// What is in it from now on; - is standard input
    #[arg(value_name = "FILE|-")]
    file: Option<PathBuf>,
    /// Label it
    #[arg(long, value_name = "KEY=VALUE")]
    label_add: Vec<String>,
    /// Remove a label
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
}

pub(crate) async fn run<T: GivenFile>(client: &Client, verb: Verb) -> Result<()> {
    let path = path::<T>();
    match verb {
        Verb::Create(verb) => {
            let spec = verb.spec()?;
            say(&create(client, path, &spec).await?);
            Ok(())
        }
        Verb::Inspect(verb) => {
            let read = async |name: &str| client.get(&format!("{path}/{}", escape(name))).await;
            let several = super::several(&verb.names, read).await;
            let pretty = if is_secret::<T>() { pretty_secret } else { pretty_config };
            verb.show.print(&several.found, pretty)?;
            several.end()
        }
        Verb::Ls(verb) => ls::<T>(client, &verb).await,
        Verb::Rm(verb) => {
            let one = async |name: &str| {
                client.delete(&format!("{path}/{}", escape(name))).await?;
                say(name);
                Ok(())
            };
            super::each(&verb.names, one).await
        }
        Verb::Update(verb) => {
            let found: Value = client.get(&format!("{path}/{}", escape(&verb.name))).await?;
            let mut spec = found["Spec"].clone();
            for key in &verb.label_rm {
                spec["Labels"].as_object_mut().map(|labels| labels.remove(key));
            }
            for word in &verb.label_add {
                let (key, value) = word.split_once('=').unwrap_or((word, ""));
                spec["Labels"][key] = json!(value);
            }
            if let Some(file) = &verb.file {
                spec["Data"] = STANDARD.encode(read(file)?).into();
                write(client, path, &found, (&spec, "&data=new")).await?;
            } else {
                write(client, path, &found, (&spec, "")).await?;
            }
            say(&verb.name);
            Ok(())
        }
    }
}

fn is_secret<T: GivenFile>() -> bool {
    T::WORD == Secret::WORD
}

fn path<T: GivenFile>() -> &'static str {
    if is_secret::<T>() { "/secrets" } else { "/configs" }
}

async fn create(client: &Client, path: &str, spec: &FileSpec) -> Result<String> {
    let body = engine_api::render_file_spec(spec);
    let created: Value = client.post(&format!("{path}/create"), &body).await?;
    Ok(text(&created, "/ID").to_owned())
}

/// Changes the one that was found, where nobody has changed it since.
async fn write(
    client: &Client,
    path: &str,
    found: &Value,
    (spec, further): (&Value, &str),
) -> Result<()> {
    let (id, version) = (text(found, "/ID"), &found["Version"]["Index"]);
    client.order(&format!("{path}/{id}/update?version={version}{further}"), spec).await
}

/// What is in a file, or comes by standard input.
fn read(file: &Path) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    let name = file.display();
    let failed = || format!("cannot read {name}");
    if file == Path::new("-") {
        std::io::stdin().lock().take(DATA_MAX).read_to_end(&mut data).with_context(failed)?;
    } else {
        let file = std::fs::File::open(file).with_context(failed)?;
        file.take(DATA_MAX).read_to_end(&mut data).with_context(failed)?;
    }
    Ok(data)
}

impl Create {
    fn spec(&self) -> Result<FileSpec> {
        let data = read(&self.file)?;
        let templating = self.template_driver.as_ref().map(|_golang| Templating::Golang);
        let pair = |word: &String| {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            (key.to_owned(), value.to_owned())
        };
        Ok(FileSpec {
            name: self.name.clone(),
            labels: self.label.iter().map(pair).collect(),
            content: FileContent { data: data.into(), templating },
            ..FileSpec::default()
        })
    }
}

async fn ls<T: GivenFile>(client: &Client, verb: &Ls) -> Result<()> {
    let query = filters(&verb.listing.filter, &[])?;
    let further = if verb.revisions { "&revisions=true" } else { "" };
    let mut files: Vec<Value> =
        client.get(&format!("{}?filters={query}{further}", path::<T>())).await?;
    files.sort_by_key(|file| (human::natural(text(file, "/Spec/Name")), revision(file)));
    let has_drivers = is_secret::<T>();
    let mut columns = vec![("ID", "ID"), ("Name", "NAME")];
    columns.extend(has_drivers.then_some(("Driver", "DRIVER")));
    columns.extend(verb.revisions.then_some(("Revision", "REVISION")));
    columns.extend([("CreatedAt", "CREATED"), ("UpdatedAt", "UPDATED")]);
    let mut table = List::new(&columns, &[("Labels", "LABELS")]);
    let now = human::now();
    for file in &files {
        let mut row = vec![text(file, "/ID").to_owned(), text(file, "/Spec/Name").to_owned()];
        row.extend(has_drivers.then(String::new));
        row.extend(verb.revisions.then(|| shown_revision(file)));
        row.extend([human::ago(&file["CreatedAt"], now), human::ago(&file["UpdatedAt"], now)]);
        row.push(labels(file, "/Spec/Labels"));
        table.row(row);
    }
    verb.listing.print(&table)
}

/// Which one of its name it is, from 1.
fn revision(file: &Value) -> u64 {
    file.pointer("/Revision/Number").and_then(Value::as_u64).unwrap_or(1)
}

fn shown_revision(file: &Value) -> String {
    let is_former = file.pointer("/Revision/Former") == Some(&Value::Bool(true));
    format!("{}{}", revision(file), if is_former { " (former)" } else { "" })
}

fn head(file: &Value) -> Pretty {
    let mut pretty = Pretty::default();
    pretty.line("ID", text(file, "/ID"));
    pretty.line("Name", text(file, "/Spec/Name"));
    if file.get("Revision").is_some() {
        pretty.line("Revision", &shown_revision(file));
    }
    pretty.labels("Labels", Some(&file["Spec"]["Labels"]));
    pretty
}

fn times(mut pretty: Pretty, file: &Value) -> String {
    pretty.line("Created at", text(file, "/CreatedAt"));
    pretty.line("Updated at", text(file, "/UpdatedAt"));
    pretty.finish()
}

/// What is in a secret nobody is shown.
fn pretty_secret(secret: &Value) -> String {
    let mut pretty = head(secret);
    pretty.line("Driver", text(secret, "/Spec/Driver/Name"));
    times(pretty, secret)
}

fn pretty_config(config: &Value) -> String {
    let data = STANDARD.decode(text(config, "/Spec/Data")).unwrap_or_default();
    format!("{}Data:\n{}\n", times(head(config), config), String::from_utf8_lossy(&data))
}

/// Finds the secrets and configs that a service names: the cluster knows them by their ids.
pub(super) async fn resolve(client: &Client, container: &mut ContainerSpec) -> Result<()> {
    resolve_known(client, container).await?;
    let secrets = container.secrets.iter().filter(|it| it.id == SecretId::default());
    let secrets = secrets.map(|it| (Secret::WORD, &it.name));
    let configs = container.configs.iter().filter(|it| it.id == ConfigId::default());
    let configs = configs.map(|it| (Config::WORD, &it.name));
    match secrets.chain(configs).next() {
        Some((word, name)) => bail!("{word} not found: {name}"),
        None => Ok(()),
    }
}

/// As [`resolve`]; what is not there yet has no id.
pub(super) async fn resolve_known(client: &Client, container: &mut ContainerSpec) -> Result<()> {
    for reference in container.secrets.iter_mut().filter(|it| it.id == SecretId::default()) {
        let found = named::<Secret>(client, &reference.name).await?;
        reference.id = found.map_or(SecretId::default(), |found| text(&found, "/ID").into());
    }
    for reference in container.configs.iter_mut().filter(|it| it.id == ConfigId::default()) {
        let found = named::<Config>(client, &reference.name).await?;
        reference.id = found.map_or(ConfigId::default(), |found| text(&found, "/ID").into());
    }
    Ok(())
}

pub(super) async fn named<T: GivenFile>(client: &Client, name: &str) -> Result<Option<Value>> {
    let query = filters(&[], &[("name", name)])?;
    let found: Vec<Value> = client.get(&format!("{}?filters={query}", path::<T>())).await?;
    Ok(found.into_iter().find(|file| text(file, "/Spec/Name") == name))
}

/// Makes those of a stack that are not there, and gives the others the labels of the files.
pub(super) async fn put<T: GivenFile>(client: &Client, files: &[compose::StackFile]) -> Result<()> {
    let (word, path) = (T::WORD, path::<T>());
    for file in files.iter().filter(|file| !file.external) {
        let (spec, name) = (&file.spec, &file.spec.name);
        if let Some(found) = named::<T>(client, name).await? {
            let body = engine_api::render_file_spec(spec);
            let written = write(client, path, &found, (&body, "")).await;
            written.with_context(|| format!("failed to update {word} {name}"))?;
        } else {
            say(&format!("Creating {word} {name}"));
            let created = create(client, path, spec).await;
            created.with_context(|| format!("failed to create {word} {name}"))?;
        }
    }
    Ok(())
}

/// Reads `NAME`, or `source=NAME,target=FILE,uid=1,gid=1,mode=0400`, as docker does.
pub(super) fn reference<I: Default>(text: &str) -> Result<FileReference<I>, String> {
    let mut reference = FileReference::default();
    if !text.contains(['=', ',']) {
        text.clone_into(&mut reference.name);
        text.clone_into(&mut reference.target.name);
        return Ok(reference);
    }
    for field in text.split(',') {
        let Some((key, value)) = field.split_once('=') else {
            return Err(format!("invalid field '{field}' must be a key=value pair"));
        };
        let number =
            || value.parse().map_err(|_unreadable| format!("{key}: {value:?} is no number"));
        let target = &mut reference.target;
        match key.to_lowercase().as_str() {
            "source" | "src" => value.clone_into(&mut reference.name),
            "target" => value.clone_into(&mut target.name),
            "uid" => target.uid = number()?,
            "gid" => target.gid = number()?,
            "mode" => target.mode = mode(value)?,
            _ => return Err(format!("invalid field in request: {key}")),
        }
    }
    if reference.name.is_empty() {
        return Err("source is required".to_owned());
    }
    if reference.target.name.is_empty() {
        reference.target.name.clone_from(&reference.name);
    }
    Ok(reference)
}

/// As Go reads a number: octal where it begins with 0.
fn mode(text: &str) -> Result<u32, String> {
    let octal = text.strip_prefix("0o").or_else(|| text.strip_prefix('0'));
    let read = match octal {
        Some("") => Ok(0),
        Some(digits) => u32::from_str_radix(digits, 8),
        None => text.parse(),
    };
    read.map_err(|_unreadable| format!("invalid mode specified: {text:?} (use 0400)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn what_is_in_a_config_is_shown_and_what_is_in_a_secret_is_not() {
        let file = json!({
            "ID": "0123456789abcdefghijklmno",
            "Spec": {"Name": "site", "Labels": {"a": "b"}, "Data": STANDARD.encode("x:\ty\n  z")},
            "CreatedAt": "2026-01-02T03:04:05Z", "UpdatedAt": "2026-01-02T03:04:06Z",
        });
        expect![[r"
            ID:         0123456789abcdefghijklmno
            Name:       site
            Labels:
             - a=b
            Created at: 2026-01-02T03:04:05Z
            Updated at: 2026-01-02T03:04:06Z
            Data:
            x:	y
              z
        "]]
        .assert_eq(&pretty_config(&file));
        expect![[r"
            ID:         0123456789abcdefghijklmno
            Name:       site
            Labels:
             - a=b
            Driver:     
            Created at: 2026-01-02T03:04:05Z
            Updated at: 2026-01-02T03:04:06Z
        "]]
        .assert_eq(&pretty_secret(&file));
    }

    #[test]
    fn a_reference_is_a_name_or_says_more() {
        let read = |text: &str| {
            let it: FileReference<SecretId> = reference(text)?;
            let target = it.target;
            Ok::<_, String>(format!(
                "{} {} {}:{} {:o}",
                it.name, target.name, target.uid, target.gid, target.mode
            ))
        };
        assert_eq!(read("key").unwrap(), "key key 0:0 444");
        assert_eq!(read("source=key,target=/k,uid=7,gid=8,mode=0400").unwrap(), "key /k 7:8 400");
        assert_eq!(read("src=key,mode=288").unwrap(), "key key 0:0 440");
        for (text, why) in [
            ("target=k", "source is required"),
            ("source=key,colour=red", "invalid field in request: colour"),
            ("source=key,ro", "must be a key=value pair"),
            ("source=key,uid=root", "uid: \"root\" is no number"),
            ("source=key,mode=rw", "invalid mode"),
        ] {
            assert!(read(text).unwrap_err().contains(why), "{text}");
        }
    }
}
