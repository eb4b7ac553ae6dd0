//! The files that the engine writes for containers.

use crate::blocking::cannot;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use types::{DnsConfig, Fault, HostEntry};

/// The built-in name server.
const RESOLVER: &str = "127.0.0.11";

/// Puts the small init of containers where they mount it from, and returns the place.
pub(crate) fn init(folder: &Path, program: Option<&[u8]>) -> Result<Option<PathBuf>, Fault> {
    let Some(program) = program else { return Ok(None) };
    let path = folder.join("init");
    // One that is there may be running.
    if fs::read(&path).is_ok_and(|known| known == program) {
        return Ok(Some(path));
    }
    let written = fs::create_dir_all(folder).and_then(|()| host::replace(&path, program, 0o755));
    written.map_err(cannot("write the init of containers"))?;
    Ok(Some(path))
}

/// Renders /etc/hosts. The first of its own addresses is what its name leads to.
pub(crate) fn hosts(own: &[IpAddr], hostname: &str, further: &[HostEntry]) -> String {
    let mut text = "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n"
        .to_owned();
    for entry in further {
        let _infallible = writeln!(text, "{}\t{}", entry.address, entry.names.join(" "));
    }
    for address in own {
        let _infallible = writeln!(text, "{address}\t{hostname}");
    }
    text
}

/// Renders /etc/resolv.conf of a container in a network of ours. Search domains are the daemon's
/// where the user gives none.
pub(crate) fn resolv_conf(dns: &DnsConfig, daemon: &str) -> String {
    let mut text = format!("nameserver {RESOLVER}\n");
    let own: Vec<&str> = dns.search.iter().map(String::as_str).collect();
    let mut search = if own.is_empty() { search_of(daemon) } else { own };
    // A single dot means: none at all.
    search.retain(|domain| *domain != ".");
    if !search.is_empty() {
        let _infallible = writeln!(text, "search {}", search.join(" "));
    }
    let mut options: Vec<&str> = dns.options.iter().map(String::as_str).collect();
    if !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0");
    }
    let _infallible = writeln!(text, "options {}", options.join(" "));
    text
}

/// The last `search` line counts, resolv.conf(5).
fn search_of(text: &str) -> Vec<&str> {
    let mut lines = text.lines().filter_map(|line| line.trim().strip_prefix("search"));
    lines.next_back().map(|domains| domains.split_whitespace().collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn names_are_asked_of_the_built_in_server() {
        let daemon = "nameserver 10.0.0.2\nsearch old.example\nsearch example.org lan\n";
        expect![[r"
            nameserver 127.0.0.11
            search example.org lan
            options ndots:0
        "]]
        .assert_eq(&resolv_conf(&DnsConfig::default(), daemon));
        let own = DnsConfig {
            search: vec![".".to_owned()],
            options: vec!["ndots:2".to_owned()],
            ..DnsConfig::default()
        };
        expect![[r"
            nameserver 127.0.0.11
            options ndots:2
        "]]
        .assert_eq(&resolv_conf(&own, daemon));
    }

    #[test]
    fn hosts_end_with_the_container_itself() {
        let further =
            [HostEntry { address: "10.9.8.7".parse().unwrap(), names: vec!["db".to_owned()] }];
        let text = hosts(&["10.0.1.3".parse().unwrap()], "web", &further);
        assert!(text.ends_with("10.9.8.7\tdb\n10.0.1.3\tweb\n"), "{text}");
    }
}
