//! Options of the log driver: what is honoured, and the rest refused by name.

use super::Limits;
use super::remote::Protocol;
use super::source::{LoggedContainer, Selection};
use crate::config::LogConfig;
use std::collections::BTreeMap;
use types::{Fault, parse_size};

const MIB: u64 = 1 << 20;
/// Nobody wants more files for one container.
const FILES_LIMIT: u32 = 1000;
/// What waits to be sent where output does not wait for the receiver.
const BUFFER: u64 = MIB;

/// The drivers that there are.
pub const DRIVERS: [&str; 7] =
    ["fluentd", "gelf", "journald", "json-file", "local", "none", "syslog"];

/// Options of a driver that has no part in what is kept here.
pub(super) type Own<'a> = BTreeMap<&'a str, &'a str>;

/// Options, read.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Of the files that `docker logs` reads; `None`: none are kept.
    pub(crate) limits: Option<Limits>,
    pub(crate) selection: Selection,
    /// Where lines are sent to.
    pub(crate) protocol: Option<Protocol>,
    /// Output never waits for the receiver: so many bytes do, and what comes then is lost. `None`: it waits.
    pub(crate) buffer: Option<u64>,
}

impl LogConfig {
    /// Refuses a driver that is not there, and options that have no effect here.
    pub fn check(&self) -> Result<(), Fault> {
        let options = Options::parse(self)?;
        buffer(self)?;
        let about = LoggedContainer::default();
        options.selection.attributes(&about)?;
        options.selection.source(&about).map(drop)
    }

    /// As [`Self::check`], where no driver is named: which one it will be is the node's to say. Its
    /// options have to be those of some driver.
    pub fn check_anywhere(&self) -> Result<(), Fault> {
        let Err(fault) = self.check() else { return Ok(()) };
        let with = |driver: &&str| Self { driver: (*driver).to_owned(), ..self.clone() };
        let fits = |driver: &&str| *driver != "none" && with(driver).check().is_ok();
        if self.driver.is_empty() && DRIVERS.iter().any(fits) {
            return Ok(());
        }
        Err(fault)
    }

    /// Leaves out what former releases took although it had no effect: specs have it, whose tasks are
    /// made here still.
    pub(crate) fn drop_unused_buffer(&mut self) {
        if self.options.get("mode").is_none_or(|mode| mode.is_empty() || mode == "blocking") {
            self.options.remove("max-buffer-size");
        }
    }

    /// The daemon's own driver, where none is named, and its options, where the driver is that one.
    #[must_use]
    pub fn or(mut self, daemons: &Self) -> Self {
        if self.driver.is_empty() {
            self.driver.clone_from(&daemons.driver);
        }
        if self.driver == daemons.driver {
            for (name, value) in &daemons.options {
                self.options.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        self
    }
}

impl Options {
    /// Reads options. Docker's own json-file has no limit; here there is one.
    pub(crate) fn parse(log: &LogConfig) -> Result<Self, Fault> {
        let driver = if log.driver.is_empty() { "json-file" } else { log.driver.as_str() };
        let mut options =
            Self { limits: None, selection: Selection::default(), protocol: None, buffer: None };
        // As with Docker, "none" takes whatever is said of a log that there is not.
        if driver == "none" {
            return Ok(options);
        }
        if !DRIVERS.contains(&driver) {
            return Err(Fault::invalid(format!(
                "logger: no log driver named '{driver}' is registered: use one of {}",
                DRIVERS.join(", ")
            )));
        }
        let mut cache = Some(Limits { size: 20 * MIB, files: 5 });
        let mut own = Own::new();
        for (name, value) in &log.options {
            match name.as_str() {
                "mode" | "max-buffer-size" => {}
                "cache-disabled" => {
                    if boolean(name, value)? {
                        cache = None;
                    }
                }
                "cache-max-size" | "cache-max-file" | "cache-compress" => {
                    let mut limits = Limits { size: 0, files: 0 };
                    file_option(&mut limits, driver, (name, value))?;
                }
                _ if driver != "local" && options.selection.take(name, value)? => {}
                _ => drop(own.insert(name, value)),
            }
        }
        if let Some(limits) = &mut cache {
            for (name, value) in &log.options {
                if name.starts_with("cache-") && name != "cache-disabled" {
                    file_option(limits, driver, (name, value))?;
                }
            }
        }
        // What is wrong with it was said when it was new: a container that is there is kept.
        options.buffer = buffer(log).unwrap_or_default();
        if driver == "json-file" || driver == "local" {
            let usual = if driver == "local" { (20 * MIB, 5) } else { (10 * MIB, 3) };
            let mut limits = Limits { size: usual.0, files: usual.1 };
            for (name, value) in own {
                file_option(&mut limits, driver, (name, value))?;
            }
            options.limits = Some(limits);
        } else {
            options.limits = cache;
            options.protocol = Some(Protocol::parse(driver, &own)?);
        }
        Ok(options)
    }
}

/// Reads `mode` and `max-buffer-size`.
fn buffer(log: &LogConfig) -> Result<Option<u64>, Fault> {
    let option = |name| log.options.get(name).map(String::as_str);
    let buffer = match option("mode").unwrap_or_default() {
        "" | "blocking" => None,
        "non-blocking" => Some(BUFFER),
        mode => {
            return Err(Fault::invalid(format!("logger: logging mode not supported: {mode}")));
        }
    };
    match (buffer, option("max-buffer-size")) {
        (None, Some(_)) => Err(Fault::invalid(
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        )),
        (Some(_), Some(text)) => {
            let wrong = || format!("error parsing option max-buffer-size: invalid size: '{text}'");
            size(text).map(Some).ok_or_else(|| Fault::invalid(wrong()))
        }
        (buffer, None) => Ok(buffer),
    }
}

/// An option of files, or of the files beside a remote driver (`cache-…`).
fn file_option(
    limits: &mut Limits,
    driver: &str,
    (name, value): (&str, &str),
) -> Result<(), Fault> {
    let invalid = || Fault::invalid(format!("invalid value for {name}: {value}"));
    match name.strip_prefix("cache-").unwrap_or(name) {
        "max-size" if value == "-1" => {}
        "max-size" => limits.size = size(value).ok_or_else(invalid)?,
        "max-file" => {
            let files = value.parse().ok().filter(|n| (1..=FILES_LIMIT).contains(n));
            limits.files = files.ok_or_else(invalid)?;
        }
        "compress" if !boolean(name, value)? => {}
        "compress" => {
            let feature = format!("compressing old files of the {driver} log driver");
            return Err(Fault::not_implemented(&feature));
        }
        _ => {
            let reason = format!("unknown log opt '{name}' for {driver} log driver");
            return Err(Fault::invalid(reason));
        }
    }
    Ok(())
}

/// What Go reads as a truth value.
pub(super) fn boolean(name: &str, value: &str) -> Result<bool, Fault> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(Fault::invalid(format!("invalid value for {name}: {value}"))),
    }
}

/// `10m`, `1g`, `100kb`, `4096`; a log of nothing is none.
fn size(text: &str) -> Option<u64> {
    parse_size(text).and_then(|size| u64::try_from(size).ok()).filter(|size| 0 < *size)
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
