//! The options of the driver `local`: what is mounted where the volume's files are, as Docker has it.
//! Pure.

use types::{Fault, Labels, parse_size};

const TYPE: &str = "type";
const DEVICE: &str = "device";
const OPTIONS: &str = "o";
const SIZE: &str = "size";

/// What is mounted at a volume while containers use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LocalMount {
    pub(super) kind: String,
    pub(super) device: String,
    pub(super) options: String,
}

/// Refuses options that a volume cannot have, in Docker's words.
pub(super) fn check(options: &Labels) -> Result<(), Fault> {
    let known = [TYPE, DEVICE, OPTIONS, SIZE];
    if let Some(name) = options.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(Fault::invalid(format!("invalid option: {name:?}")));
    }
    for (one, other) in [(DEVICE, TYPE), (TYPE, DEVICE)] {
        if options.contains_key(one) && !options.contains_key(other) {
            return Err(Fault::invalid(format!("missing required option: {other:?}")));
        }
    }
    let Some(size) = options.get(SIZE) else { return Ok(()) };
    match parse_size(size) {
        None => Err(Fault::invalid(format!("invalid size: '{size}'"))),
        Some(0) => Ok(()),
        Some(_) => Err(Fault::invalid(
            "quota size requested but no quota support: a tmpfs takes its size as an option, \
             type=tmpfs,device=tmpfs,o=size=…",
        )),
    }
}

impl LocalMount {
    /// `None`: the volume is a folder of this node.
    pub(super) fn of(options: &Labels) -> Option<Self> {
        let text = |name: &str| options.get(name).cloned().unwrap_or_default();
        let (kind, device) = (text(TYPE), text(DEVICE));
        let is_folder = kind.is_empty() && device.is_empty();
        (!is_folder).then(|| Self { kind, device, options: text(OPTIONS) })
    }

    /// The name of the server that the kernel must be told the address of, where there is one: it
    /// knows no names.
    pub(super) fn server(&self) -> Option<&str> {
        if !matches!(self.kind.as_str(), "nfs" | "cifs") {
            return None;
        }
        let server = value(&self.options, "addr=").or_else(|| {
            let share = self.device.strip_prefix("//").filter(|_| self.kind == "cifs")?;
            share.split('/').next()
        })?;
        let is_address = server.parse::<std::net::IpAddr>().is_ok();
        (!server.is_empty() && !is_address).then_some(server)
    }

    /// The same with the address of [`Self::server`].
    pub(super) fn at(self, address: std::net::IpAddr) -> Self {
        let Some(server) = self.server().map(str::to_owned) else { return self };
        let (name, given) = (format!("addr={server}"), format!("addr={address}"));
        if value(&self.options, "addr=").is_some() {
            let options = self.options.split(',');
            let options =
                options.map(|option| if option == name { given.as_str() } else { option });
            return Self { options: options.collect::<Vec<_>>().join(","), ..self };
        }
        let device = self.device.replacen(&format!("//{server}"), &format!("//{address}"), 1);
        Self { device, ..self }
    }
}

/// The value of an option like `addr=`.
fn value<'a>(options: &'a str, name: &str) -> Option<&'a str> {
    options.split(',').find_map(|option| option.strip_prefix(name))
}

/// A text that may go into a message: the password of a share does not.
pub(super) fn without_password(text: &str, options: &str) -> String {
    match value(options, "password=").filter(|password| !password.is_empty()) {
        Some(password) => {
            text.replacen(&format!("password={password}"), "password=********", usize::MAX)
        }
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_no_volume_can_have_is_refused_in_dockers_words() {
        for (pairs, said) in [
            (&[("foo", "bar")][..], "invalid option: \"foo\""),
            (&[("type", "nfs")], "missing required option: \"device\""),
            (&[("device", ":/x")], "missing required option: \"type\""),
            (&[("size", "many")], "invalid size: 'many'"),
            (&[("size", "10m")], "quota size requested but no quota support"),
        ] {
            let fault = check(&options(pairs)).unwrap_err();
            assert!(fault.message.starts_with(said), "{fault}");
            assert_eq!(fault.kind, types::FaultKind::Invalid);
        }
        for good in [
            &[][..],
            &[("o", "ro")],
            &[("size", "0")],
            &[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=4m")],
        ] {
            assert_eq!(check(&options(good)), Ok(()));
        }
        assert_eq!(LocalMount::of(&options(&[("o", "ro")])), None);
    }

    #[test]
    fn servers_are_told_by_their_addresses() {
        let mount = |kind: &str, device: &str, o: &str| {
            LocalMount::of(&options(&[("type", kind), ("device", device), ("o", o)])).unwrap()
        };
        let address = "192.0.2.7".parse().unwrap();
        let nfs = mount("nfs", ":/share", "addr=files.example,ro");
        assert_eq!(nfs.server(), Some("files.example"));
        assert_eq!(nfs.at(address).options, "addr=192.0.2.7,ro");
        for known in [
            mount("nfs", ":/share", "addr=192.0.2.1"),
            mount("nfs", ":/share", "addr=2001:db8::1"),
            mount("nfs4", ":/share", "addr=files.example"),
            mount("tmpfs", "tmpfs", ""),
            mount("cifs", "//192.0.2.1/share", ""),
        ] {
            assert_eq!(known.server(), None, "{known:?}");
            assert_eq!(known.clone().at(address), known);
        }
        let cifs = mount("cifs", "//files.example/share", "username=me");
        assert_eq!(cifs.server(), Some("files.example"));
        assert_eq!(cifs.at(address).device, "//192.0.2.7/share");
    }

    #[test]
    fn passwords_are_not_told() {
        let told = without_password("data: username=me,password=pa,ss", "username=me,password=pa");
        assert_eq!(told, "data: username=me,password=********,ss");
        assert_eq!(without_password("data: ro", "ro"), "data: ro");
    }
}
