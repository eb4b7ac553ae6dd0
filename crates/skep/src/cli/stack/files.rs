//! Which stack files are read, and with what.

use crate::cli::warn;
use anyhow::{Context, Result, anyhow};
use clap::Args;
use compose::{Around, Loaded};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The largest file that is read.
const FILE_MAX: u64 = 8 << 20;

#[derive(Args, Debug)]
pub(crate) struct Files {
    /// A stack file, or - for standard input; later ones override earlier ones
    #[arg(short, long, required = true, value_name = "FILE", value_delimiter = ',')]
    compose_file: Vec<PathBuf>,
    /// Deploy the services of a profile, too; * is every one
    #[arg(long, value_name = "NAME", env = "COMPOSE_PROFILES", value_delimiter = ',')]
    profile: Vec<String>,
    /// A file with variables, in place of .env beside the first stack file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
}

impl Files {
    /// Reads the files, and tells what is not honoured.
    pub(crate) fn load(&self, stack: &str) -> Result<Loaded> {
        let mut files = Vec::new();
        for path in &self.compose_file {
            files.push(text_of(path)?);
        }
        let here = std::env::current_dir().context("cannot tell the present folder")?;
        let folder = match self.compose_file.first().and_then(|path| path.parent()) {
            Some(parent) => here.join(parent),
            None => here,
        };
        let env = self.variables(&folder)?;
        let read = |path: &Path| read(path).map_err(|error| error.to_string());
        let profiles = &self.profile;
        let around = Around { stack, folder: &folder, env: &env, profiles, read: &read };
        let loaded = compose::load(&files, &around)?;
        for warning in &loaded.warnings {
            warn(&warning.to_string());
        }
        Ok(loaded)
    }

    /// The variables of the environment, and those of files that are not in it.
    fn variables(&self, folder: &Path) -> Result<BTreeMap<String, String>> {
        let env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let mut own: BTreeMap<String, String> = BTreeMap::new();
        let beside = folder.join(".env");
        let is_there = self.env_file.is_empty() && beside.is_file();
        for path in self.env_file.iter().chain(is_there.then_some(&beside)) {
            let name = path.display();
            let bytes = read(path).with_context(|| format!("cannot read {name}"))?;
            let text = String::from_utf8(bytes).with_context(|| format!("cannot read {name}"))?;
            // Those of the environment go over those of the files before.
            let mut known = own.clone();
            known.extend(env.clone());
            let found = compose::variables(&text, &known);
            own.extend(found.map_err(|why| anyhow!("{name}: {why}"))?);
        }
        own.extend(env);
        Ok(own)
    }
}

/// A file's name for messages, and its text.
fn text_of(path: &Path) -> Result<(String, String)> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(FILE_MAX).read_to_string(&mut text)?;
        return Ok(("stdin".into(), text));
    }
    let name = path.display().to_string();
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {name}"))?;
    file.take(FILE_MAX).read_to_string(&mut text).with_context(|| format!("cannot read {name}"))?;
    Ok((name, text))
}

/// What is in a file, up to the largest size.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}
