//! `Privileges` of services and `--security-opt` of plain containers: how processes are confined.

use super::boolean;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use types::{AppArmor, Fault, Seccomp, Security};

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "Privileges", rename_all = "PascalCase", default)]
pub(crate) struct PrivilegesJson {
    #[serde(rename = "SELinuxContext", skip_serializing_if = "Option::is_none")]
    selinux: Option<SelinuxJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seccomp: Option<SeccompJson>,
    #[serde(rename = "AppArmor", skip_serializing_if = "Option::is_none")]
    apparmor: Option<AppArmorJson>,
    no_new_privileges: bool,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "SELinuxContext", rename_all = "PascalCase", default)]
struct SelinuxJson {
    disable: bool,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "SeccompOpts", rename_all = "PascalCase", default)]
struct SeccompJson {
    mode: String,
    /// Bytes, which Go writes as Base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    profile: String,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "AppArmorOpts", rename_all = "PascalCase", default)]
struct AppArmorJson {
    mode: String,
}

impl PrivilegesJson {
    pub(crate) fn parse(self) -> Result<Security, Fault> {
        Ok(Security {
            seccomp: self.seccomp.map_or(Ok(Seccomp::Default), SeccompJson::parse)?,
            apparmor: match self.apparmor.unwrap_or_default().mode.as_str() {
                "" | "default" => AppArmor::Default,
                "disabled" => AppArmor::Unconfined,
                mode => return Err(Fault::invalid(format!("invalid AppArmorMode: \"{mode}\""))),
            },
            no_new_privileges: self.no_new_privileges,
            selinux_disabled: self.selinux.is_some_and(|selinux| selinux.disable),
        })
    }

    /// Nothing where all is as usual.
    pub(crate) fn render(security: &Security) -> Option<Self> {
        if *security == Security::default() {
            return None;
        }
        let mode = |mode: &str| mode.to_owned();
        Some(Self {
            selinux: security.selinux_disabled.then_some(SelinuxJson { disable: true }),
            seccomp: match &security.seccomp {
                Seccomp::Default => None,
                Seccomp::Unconfined => {
                    Some(SeccompJson { mode: mode("unconfined"), ..SeccompJson::default() })
                }
                Seccomp::Custom(text) => {
                    Some(SeccompJson { mode: mode("custom"), profile: STANDARD.encode(text) })
                }
            },
            apparmor: match &security.apparmor {
                AppArmor::Default | AppArmor::Named(_) => None,
                AppArmor::Unconfined => Some(AppArmorJson { mode: mode("disabled") }),
            },
            no_new_privileges: security.no_new_privileges,
        })
    }
}

impl SeccompJson {
    fn parse(self) -> Result<Seccomp, Fault> {
        match (self.mode.as_str(), self.profile.as_str()) {
            ("" | "default", "") => Ok(Seccomp::Default),
            ("unconfined", "") => Ok(Seccomp::Unconfined),
            ("custom", "") => Err(Fault::invalid("seccomp: the mode \"custom\" needs a Profile")),
            ("custom", profile) => {
                let text = STANDARD.decode(profile).ok().and_then(|it| String::from_utf8(it).ok());
                let wrong = || Fault::invalid("seccomp: Profile is no Base64 of a text");
                let text = text.ok_or_else(wrong)?;
                engine::check_seccomp_profile(&text)?;
                Ok(Seccomp::Custom(text))
            }
            ("" | "default" | "unconfined", _) => {
                Err(Fault::invalid("seccomp: a Profile needs the mode \"custom\""))
            }
            (mode, _) => Err(Fault::invalid(format!("invalid SeccompMode: \"{mode}\""))),
        }
    }
}

/// Reads `--security-opt`: `NAME=VALUE`, or Docker's older `NAME:VALUE`.
pub(crate) fn security_options(options: &[String]) -> Result<Security, Fault> {
    let mut security = Security::default();
    for option in options {
        let wrong = |which| Fault::invalid(format!("invalid --security-opt {which}: \"{option}\""));
        let sign = if option.contains('=') { '=' } else { ':' };
        let (name, value) = match option.as_str() {
            "no-new-privileges" => (option.as_str(), "true"),
            "disable" => ("label", "disable"),
            _ => option.split_once(sign).ok_or_else(|| wrong(1))?,
        };
        match (name, value) {
            ("no-new-privileges", value) => {
                security.no_new_privileges = boolean(value).ok_or_else(|| wrong(2))?;
            }
            ("seccomp", "" | "builtin") => security.seccomp = Seccomp::Default,
            ("seccomp", "unconfined") => security.seccomp = Seccomp::Unconfined,
            ("seccomp", text) => {
                engine::check_seccomp_profile(text)?;
                security.seccomp = Seccomp::Custom(text.to_owned());
            }
            // By Docker's name, too: scripts spell the default out.
            ("apparmor", "" | "docker-default") => security.apparmor = AppArmor::Default,
            ("apparmor", "unconfined") => security.apparmor = AppArmor::Unconfined,
            ("apparmor", profile) => security.apparmor = AppArmor::Named(profile.to_owned()),
            ("label", "disable") => security.selinux_disabled = true,
            ("label", _) => {
                let feature = format!("--security-opt {option} (containers get no SELinux labels)");
                return Err(Fault::not_implemented(&feature));
            }
            ("writable-cgroups", value) => match boolean(value) {
                Some(false) => {}
                Some(true) => {
                    return Err(Fault::not_implemented("--security-opt writable-cgroups"));
                }
                None => return Err(wrong(2)),
            },
            _ => return Err(wrong(2)),
        }
    }
    Ok(security)
}

/// As Docker shows them again.
pub(crate) fn render_options(security: &Security) -> Vec<String> {
    let seccomp = match &security.seccomp {
        Seccomp::Default => None,
        Seccomp::Unconfined => Some("seccomp=unconfined".to_owned()),
        Seccomp::Custom(text) => Some(format!("seccomp={text}")),
    };
    let apparmor = match &security.apparmor {
        AppArmor::Default => None,
        AppArmor::Unconfined => Some("apparmor=unconfined".to_owned()),
        AppArmor::Named(name) => Some(format!("apparmor={name}")),
    };
    let other = [
        (security.no_new_privileges, "no-new-privileges=true"),
        (security.selinux_disabled, "label=disable"),
    ];
    let other = other.into_iter().filter(|(set, _)| *set).map(|(_, text)| text.to_owned());
    seccomp.into_iter().chain(apparmor).chain(other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const PROFILE: &str = r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#;

    fn parse(value: &Value) -> Result<Security, String> {
        let text = value.to_string();
        let read = crate::request::read::<PrivilegesJson>(text.as_bytes());
        read.and_then(|read| read.value.parse()).map_err(|fault| fault.message)
    }

    #[test]
    fn a_services_privileges_are_read_and_shown_again() {
        let profile = STANDARD.encode(PROFILE);
        let wanted = json!({
            "SELinuxContext": {"Disable": true},
            "Seccomp": {"Mode": "custom", "Profile": profile},
            "AppArmor": {"Mode": "disabled"}, "NoNewPrivileges": true,
        });
        let security = parse(&wanted).unwrap();
        assert_eq!(security.seccomp, Seccomp::Custom(PROFILE.to_owned()));
        assert!(security.no_new_privileges && security.apparmor == AppArmor::Unconfined);
        assert_eq!(serde_json::to_value(PrivilegesJson::render(&security)).unwrap(), wanted);
        let usual = json!({"Seccomp": {"Mode": "default"}, "AppArmor": null, "CredentialSpec": null,
            "SELinuxContext": {"User": ""}});
        assert_eq!(parse(&usual).unwrap(), Security::default());
        assert!(PrivilegesJson::render(&Security::default()).is_none());
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (wanted, reason) in [
            (json!({"CredentialSpec": {"File": "x"}}), "CredentialSpec"),
            (json!({"SELinuxContext": {"Type": "container_t"}}), "SELinuxContext"),
            (json!({"Seccomp": {"Mode": "strict"}}), "invalid SeccompMode: \"strict\""),
            (json!({"Seccomp": {"Mode": "custom"}}), "needs a Profile"),
            (json!({"Seccomp": {"Mode": "custom", "Profile": "e30K!"}}), "Base64"),
            (json!({"Seccomp": {"Mode": "custom", "Profile": "eA=="}}), "invalid seccomp profile"),
            (json!({"Seccomp": {"Mode": "unconfined", "Profile": "e30="}}), "custom"),
            (json!({"AppArmor": {"Mode": "custom"}}), "invalid AppArmorMode: \"custom\""),
        ] {
            let error = parse(&wanted).unwrap_err();
            assert!(error.contains(reason), "{wanted}: {error}");
        }
    }

    #[test]
    fn security_options_are_dockers() {
        let read = |options: &[&str]| {
            let options: Vec<String> = options.iter().map(|text| (*text).to_owned()).collect();
            security_options(&options).map_err(|fault| fault.message)
        };
        let custom = format!("seccomp={PROFILE}");
        let all = ["no-new-privileges", &custom, "apparmor:mine", "label=disable"];
        let security = read(&all).unwrap();
        assert!(security.no_new_privileges && security.selinux_disabled);
        assert_eq!(security.apparmor, AppArmor::Named("mine".to_owned()));
        let again = render_options(&security);
        assert_eq!(again, [&custom, "apparmor=mine", "no-new-privileges=true", "label=disable"]);
        let usual = ["seccomp=builtin", "apparmor=docker-default", "no-new-privileges=false"];
        assert_eq!(read(&usual).unwrap(), Security::default());
        for bad in ["x", "x=y", "no-new-privileges=maybe", "label=type:t"] {
            let error = read(&[bad]).unwrap_err();
            assert!(error.contains(bad), "{bad}: {error}");
        }
        assert!(read(&["seccomp=/a/file"]).unwrap_err().contains("invalid seccomp profile"));
    }
}
