//! What a container has of its node's own, or of another container's, where it asks for it: name
//! spaces, devices, all rights.

mod labels;

pub use labels::{ACCESS_LABELS, Asked, check_cgroup_parent};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What of the node's own a container has; nothing, unless it asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "as many name spaces as there are")]
pub struct NodeAccess {
    /// It may do what the daemon may, and has all devices.
    pub privileged: bool,
    /// It sees the node's processes.
    pub pid: bool,
    /// It has the node's shared memory and queues.
    pub ipc: bool,
    /// It has the node's name.
    pub uts: bool,
    /// It sees the node's cgroups.
    pub cgroup: bool,
    pub devices: Vec<Device>,
    /// Further devices that it may use if it makes their nodes, e.g. `c 1:3 rw`.
    pub device_rules: Vec<String>,
    /// Devices that somebody else knows how to give, e.g. a GPU.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_requests: Vec<DeviceRequest>,
    /// The cgroup that it is put below; empty: the daemon's own one for containers.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cgroup_parent: String,
    /// Other containers may have its shared memory and queues.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shareable: bool,
    /// The container whose name spaces it has.
    #[serde(skip_serializing_if = "Joined::is_none")]
    pub joined: Joined,
}

impl NodeAccess {
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Other containers, by their ids, whose name spaces a container has; empty: its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Joined {
    pub network: String,
    pub pid: String,
    pub ipc: String,
}

impl Joined {
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A device of the node, or a folder of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    pub source: String,
    /// Where it is in the container.
    pub target: String,
    /// Of `r`, `w` and `m` (make a node of it).
    pub access: String,
}

impl Device {
    /// Says whether an access is of these letters, each once at most.
    pub fn is_access(text: &str) -> bool {
        let once = |letter| text.chars().filter(|other| *other == letter).count() <= 1;
        !text.is_empty() && text.chars().all(|letter| "rwm".contains(letter) && once(letter))
    }

    /// One of the node's devices; where nothing else is said it has the same place in the container,
    /// and all may be done with it. Says what is wrong otherwise.
    pub fn new(source: &str, target: &str, access: &str) -> Result<Self, String> {
        let target = if target.is_empty() { source } else { target };
        let access = if access.is_empty() { "rwm" } else { access };
        if let Some(path) = [source, target].into_iter().find(|path| !path.starts_with('/')) {
            return Err(format!("invalid device path {path:?}: it is not absolute"));
        }
        if !Self::is_access(access) {
            return Err(format!("invalid device mode: {access}"));
        }
        let [source, target, access] = [source, target, access].map(str::to_owned);
        Ok(Self { source, target, access })
    }

    /// Reads `SOURCE[:TARGET][:ACCESS]`, as `--device` does.
    fn parse(text: &str) -> Result<Self, String> {
        match *text.split(':').collect::<Vec<_>>() {
            [source] => Self::new(source, "", ""),
            [source, access] if Self::is_access(access) => Self::new(source, "", access),
            [source, target] => Self::new(source, target, ""),
            [source, target, access] => Self::new(source, target, access),
            _ => Err(format!("invalid device specification: {text}")),
        }
    }
}

/// A rule of cgroups for devices: `TYPE MAJOR:MINOR ACCESS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// `a` (all), `b` or `c`.
    pub kind: char,
    /// `None`: all of them.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: String,
}

impl DeviceRule {
    /// `None`: it cannot be read.
    pub fn parse(text: &str) -> Option<Self> {
        let [kind, numbers, access] = text.split(' ').collect::<Vec<_>>().try_into().ok()?;
        let number = |text: &str| match text {
            "*" => Some(None),
            digits => digits.parse().ok().map(Some),
        };
        let (major, minor) = numbers.split_once(':')?;
        let kind = ['a', 'b', 'c'].into_iter().find(|known| kind == known.to_string())?;
        Device::is_access(access).then_some(Self {
            kind,
            major: number(major)?,
            minor: number(minor)?,
            access: access.to_owned(),
        })
    }
}

/// Devices by what they can do or by names that their vendor gave them, as `--gpus` asks for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRequest {
    /// `cdi`: [`Self::ids`] are names of the Container Device Interface. Empty or a vendor: by
    /// [`Self::capabilities`].
    pub driver: String,
    /// -1: all of them; 0: those of [`Self::ids`].
    pub count: i64,
    pub ids: Vec<String>,
    /// One of these sets.
    pub capabilities: Vec<Vec<String>>,
    pub options: BTreeMap<String, String>,
}

impl DeviceRequest {
    /// The driver whose devices have names of the Container Device Interface.
    pub const CDI: &str = "cdi";

    /// Devices by such names.
    pub fn cdi(ids: Vec<String>) -> Self {
        Self { driver: Self::CDI.to_owned(), ids, ..Self::default() }
    }

    /// GPUs: so many of them (-1: all), or these.
    pub fn gpus(count: i64, ids: Vec<String>) -> Self {
        let capabilities = vec![vec!["gpu".to_owned()]];
        Self { count, ids, capabilities, ..Self::default() }
    }

    /// Says what is wrong with it, in Docker's words where there are some.
    pub fn check(&self) -> Result<(), String> {
        if self.driver == Self::CDI {
            if self.count != 0 || !self.capabilities.is_empty() || !self.options.is_empty() {
                return Err("invalid device request: those of CDI have DeviceIDs alone".to_owned());
            }
            return match self.ids.iter().find(|id| !is_cdi_name(id)) {
                Some(id) => Err(format!("invalid CDI device name {id:?}: it is VENDOR/CLASS=NAME")),
                None => Ok(()),
            };
        }
        if self.count != 0 && !self.ids.is_empty() {
            return Err("cannot set both Count and DeviceIDs on device request".to_owned());
        }
        if self.count < -1 {
            return Err(format!("invalid device request: Count={}", self.count));
        }
        Ok(())
    }
}

/// Says whether a text is a name of the Container Device Interface: `VENDOR/CLASS=NAME`.
pub fn is_cdi_name(text: &str) -> bool {
    let begins = |text: &str| text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let of = |text: &str, more: &str| {
        begins(text) && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    let Some((kind, name)) = text.split_once('=') else { return false };
    let Some((vendor, class)) = kind.split_once('/') else { return false };
    of(vendor, "_-.") && of(class, "_-") && of(name, "_-.:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_for_devices_are_read_or_not_taken() {
        let all = DeviceRule { kind: 'a', major: None, minor: None, access: "rwm".to_owned() };
        assert_eq!(DeviceRule::parse("a *:* rwm"), Some(all));
        let one = DeviceRule::parse("c 1:3 mr").unwrap();
        assert_eq!((one.kind, one.major, one.minor), ('c', Some(1), Some(3)));
        for text in
            ["", "c", "c 1:3", "d 1:3 r", "c 1 r", "c 1:x r", "c 1:3 x", "c 1:3 rr", "c 1:3 "]
        {
            assert_eq!(DeviceRule::parse(text), None, "{text}");
        }
    }

    #[test]
    fn names_of_the_container_device_interface_are_told_from_paths() {
        for name in ["nvidia.com/gpu=all", "skep.test/thing=a-1:x", "v/c=0"] {
            assert!(is_cdi_name(name), "{name}");
        }
        for name in ["", "/dev/null", "v/c", "v=c", "v/c=", "/c=x", "v/=x", "v/c=/x", "v /c=x"] {
            assert!(!is_cdi_name(name), "{name}");
        }
    }

    #[test]
    fn a_request_for_devices_is_of_one_kind() {
        let text = |text: &str| vec![text.to_owned()];
        assert_eq!(DeviceRequest::gpus(-1, Vec::new()).check(), Ok(()));
        assert_eq!(DeviceRequest::gpus(0, text("0")).check(), Ok(()));
        assert_eq!(DeviceRequest::cdi(text("v/c=x")).check(), Ok(()));
        for (request, why) in [
            (DeviceRequest::gpus(1, text("0")), "cannot set both Count and DeviceIDs"),
            (DeviceRequest::gpus(-2, Vec::new()), "Count=-2"),
            (DeviceRequest::cdi(text("x")), "VENDOR/CLASS=NAME"),
            (DeviceRequest { count: 1, ..DeviceRequest::cdi(text("v/c=x")) }, "DeviceIDs alone"),
        ] {
            assert!(request.check().unwrap_err().contains(why), "{request:?}");
        }
    }
}
