//! Profiles in Docker's form: what they say, and what is left of them for one container.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use types::Fault;

/// No profile is larger.
const PROFILE_MAX: usize = 1 << 20;

/// Which system calls are answered how.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Profile {
    pub(super) default_action: String,
    pub(super) default_errno_ret: Option<u32>,
    /// As they are, where `arch_map` says nothing.
    #[serde(deserialize_with = "nullable")]
    pub(super) architectures: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) arch_map: Vec<Architecture>,
    #[serde(deserialize_with = "nullable")]
    pub(super) flags: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) listener_path: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) listener_metadata: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) syscalls: Vec<Rule>,
}

/// An architecture, and those whose programs run on it too.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Architecture {
    pub(super) architecture: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) sub_architectures: Vec<String>,
}

/// What is done with some calls.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Rule {
    #[serde(deserialize_with = "nullable")]
    pub(super) name: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) names: Vec<String>,
    pub(super) action: String,
    pub(super) errno_ret: Option<u32>,
    #[serde(deserialize_with = "nullable")]
    pub(super) args: Vec<Argument>,
    #[serde(deserialize_with = "nullable")]
    pub(super) includes: Filter,
    #[serde(deserialize_with = "nullable")]
    pub(super) excludes: Filter,
}

/// A condition on an argument.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Argument {
    pub(super) index: u32,
    pub(super) value: u64,
    pub(super) value_two: u64,
    pub(super) op: String,
}

/// To which containers a rule applies (or not).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Filter {
    #[serde(deserialize_with = "nullable")]
    pub(super) arches: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) caps: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) min_kernel: String,
}

/// What a container and its machine are, as far as profiles ask.
pub(super) struct Conditions<'a> {
    /// Go's name, with `x86` for 386.
    pub(super) arch: &'a str,
    /// Major and minor.
    pub(super) kernel: (u32, u32),
    /// The bounding set.
    pub(super) capabilities: &'a BTreeSet<&'static str>,
}

fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

impl Profile {
    /// Reads a profile of a user's own, and says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let wrong = |why: &str| Fault::invalid(format!("invalid seccomp profile: {why}"));
        if PROFILE_MAX < text.len() {
            return Err(wrong(&format!("it is larger than {PROFILE_MAX} bytes")));
        }
        let profile: Self =
            serde_json::from_str(text).map_err(|error| wrong(&error.to_string()))?;
        if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
            return Err(wrong("use either 'architectures' or 'archMap'"));
        }
        if !profile.says_nothing() {
            check_action(&profile.default_action)?;
        }
        for rule in &profile.syscalls {
            if rule.name.is_empty() == rule.names.is_empty() {
                return Err(wrong("use either 'name' or 'names'"));
            }
            check_action(&rule.action)?;
            for filter in [&rule.includes, &rule.excludes] {
                if !filter.min_kernel.is_empty() && version(&filter.min_kernel).is_none() {
                    return Err(wrong(&format!("no kernel version: '{}'", filter.min_kernel)));
                }
            }
        }
        Ok(profile)
    }

    /// Docker takes a profile that says nothing for none at all.
    fn says_nothing(&self) -> bool {
        self.default_action.is_empty() && self.syscalls.is_empty()
    }

    /// The architectures whose programs run on one another's kernels.
    pub(super) fn architectures() -> Vec<Architecture> {
        let map: [(&str, &[&str]); 5] = [
            ("X86_64", &["X86", "X32"]),
            ("AARCH64", &["ARM"]),
            ("S390X", &["S390"]),
            ("RISCV64", &[]),
            ("LOONGARCH64", &[]),
        ];
        let name = |arch: &str| format!("SCMP_ARCH_{arch}");
        let entry = |(arch, others): (&str, &[&str])| Architecture {
            architecture: name(arch),
            sub_architectures: others.iter().map(|other| name(other)).collect(),
        };
        map.into_iter().map(entry).collect()
    }

    /// Renders `linux.seccomp`, `None` where the profile says nothing.
    pub(super) fn render(&self, conditions: &Conditions<'_>) -> Option<Value> {
        if self.says_nothing() {
            return None;
        }
        let own = format!("SCMP_ARCH_{}", native(conditions.arch));
        let entry = self.arch_map.iter().find(|entry| entry.architecture == own);
        let architectures = match entry {
            Some(entry) => [&[own][..], &entry.sub_architectures].concat(),
            None => self.architectures.clone(),
        };
        let rules = self.syscalls.iter().filter(|rule| rule.applies(conditions));
        let mut rendered = Map::new();
        rendered.insert("defaultAction".to_owned(), json!(self.default_action));
        if let Some(errno) = self.default_errno_ret {
            rendered.insert("defaultErrnoRet".to_owned(), json!(errno));
        }
        for (name, list) in [("architectures", architectures), ("flags", self.flags.clone())] {
            if !list.is_empty() {
                rendered.insert(name.to_owned(), json!(list));
            }
        }
        for (name, text) in
            [("listenerPath", &self.listener_path), ("listenerMetadata", &self.listener_metadata)]
        {
            if !text.is_empty() {
                rendered.insert(name.to_owned(), json!(text));
            }
        }
        rendered.insert("syscalls".to_owned(), rules.map(Rule::render).collect());
        Some(Value::Object(rendered))
    }
}

impl Rule {
    fn applies(&self, conditions: &Conditions<'_>) -> bool {
        let has = |cap: &String| conditions.capabilities.contains(cap.as_str());
        let here = |filter: &Filter| filter.arches.iter().any(|arch| arch == conditions.arch);
        let reached = |filter: &Filter| {
            version(&filter.min_kernel).is_some_and(|least| least <= conditions.kernel)
        };
        let (not, only) = (&self.excludes, &self.includes);
        let excluded = here(not) || not.caps.iter().any(has) || reached(not);
        let included = (only.arches.is_empty() || here(only))
            && only.caps.iter().all(has)
            && (only.min_kernel.is_empty() || reached(only));
        included && !excluded
    }

    fn render(&self) -> Value {
        let names =
            if self.names.is_empty() { vec![self.name.clone()] } else { self.names.clone() };
        let mut rendered = Map::new();
        rendered.insert("names".to_owned(), json!(names));
        rendered.insert("action".to_owned(), json!(self.action));
        if let Some(errno) = self.errno_ret {
            rendered.insert("errnoRet".to_owned(), json!(errno));
        }
        if !self.args.is_empty() {
            let argument = |it: &Argument| json!({ "index": it.index, "value": it.value, "valueTwo": it.value_two, "op": it.op });
            rendered.insert("args".to_owned(), self.args.iter().map(argument).collect());
        }
        Value::Object(rendered)
    }
}

fn check_action(action: &str) -> Result<(), Fault> {
    let known =
        ["KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "TRACE", "ALLOW", "LOG", "NOTIFY"];
    let name = action.strip_prefix("SCMP_ACT_");
    if name.is_some_and(|name| known.contains(&name)) {
        return Ok(());
    }
    Err(Fault::invalid(format!("invalid seccomp profile: unknown action '{action}'")))
}

/// Reads `5.10`, and as much of `6.18.0-1-amd64`.
pub(crate) fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|sign: char| !sign.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The kernel's name of an architecture.
fn native(arch: &str) -> String {
    match arch {
        "amd64" => "X86_64".to_owned(),
        "arm64" => "AARCH64".to_owned(),
        other => other.to_uppercase(),
    }
}
