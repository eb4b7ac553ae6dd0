//! Forwarding, which containers need, and which makes a router of the machine.
//!
//! Where it was off, nobody wanted the interfaces that were there to lead to each other, so they do
//! not, though it is on from then on. What comes later is by somebody who finds it on, and says by
//! his own rules what is to pass. Where it was on, the machine is a router, and stays one.
//!
//! Invariant: which interfaces these are is noted in our table, in a set which lives as long as the
//! setting. With the loopback interface there is always one: where the set is empty, forwarding
//! was on when we came.

use super::watch::ChangeListener;
use super::{Config, gateway, mesh};
use crate::error::Error;
use crate::namespace;
use crate::netlink::{Links, Socket};
use crate::nft::{Nftables, Rules};
use crate::render::mesh as render;
use std::collections::BTreeSet;

const FORWARDING: &str = "ipv4/ip_forward";

/// Says whether the namespace forwards at all.
pub(super) fn is_off() -> bool {
    namespace::get(FORWARDING).is_some_and(|value| value == "0")
}

/// Switches forwarding on.
pub(super) fn switch_on() -> Result<(), Error> {
    namespace::set(FORWARDING, "1")
}

/// The interfaces that do not lead to each other; where forwarding is off yet, they are those that
/// are there, and closed before anybody switches it on.
pub(super) fn close(
    config: &Config,
    nftables: &Nftables,
    listener: &ChangeListener,
) -> Result<BTreeSet<String>, Error> {
    let mut rules = nftables.open()?.heard_by(listener.clone());
    let noted = noted(&rules)?;
    if !noted.is_empty() || !is_off() {
        return Ok(noted);
    }
    let links = Links::observe(&mut Socket::route()?)?;
    // Ours are there where somebody has switched forwarding off while there was no daemon.
    let is_ours =
        |name: &str| name == config.bridge || name == mesh::TUNNEL || gateway::is_port(name);
    let names = links.0.into_iter().map(|link| link.name);
    let closed = names.filter(|name| is_plain(name) && !is_ours(name)).collect();
    rules.apply(&render::closing(&closed))?;
    Ok(closed)
}

/// Switches forwarding off again, if it was off when we came.
pub(super) fn restore(rules: &Rules) -> Result<(), Error> {
    if noted(rules)?.is_empty() { Ok(()) } else { namespace::set(FORWARDING, "0") }
}

fn noted(rules: &Rules) -> Result<BTreeSet<String>, Error> {
    // To list a set that is not there is an error.
    if !has_set(&rules.run("list sets ip")?) {
        return Ok(BTreeSet::new());
    }
    Ok(names(&rules.run(&format!("list set ip {} {}", render::TABLE, render::CLOSED))?))
}

/// Looks for our set in what `nft list sets ip` prints.
fn has_set(listed: &str) -> bool {
    let mut is_ours = false;
    listed.lines().map(str::trim).any(|line| {
        let head = line.split(" {").next().unwrap_or_default();
        if let Some(table) = head.strip_prefix("table ip ") {
            is_ours = table == render::TABLE;
        }
        is_ours && head.strip_prefix("set ") == Some(render::CLOSED)
    })
}

/// The interfaces in what `nft list set` prints: nothing else is in quotes.
fn names(listed: &str) -> BTreeSet<String> {
    listed.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// A name that means itself in a rule.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.@".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_set_is_told_from_others_of_its_name() {
        let listed = "table ip other {\n\tset closed {\n\t\ttype ifname\n\t}\n}\n\
            table ip skep_mesh {\n\tset nodes {\n\t\ttype ipv4_addr\n\t}\n}\n";
        assert!(!has_set(listed));
        assert!(has_set(&listed.replace("set nodes", "set closed")));
        assert!(!has_set(""));
    }

    #[test]
    fn names_of_interfaces_are_read_and_odd_ones_left_out() {
        let listed = "table ip skep_mesh {\n\tset closed {\n\t\ttype ifname\n\t\telements = \
            { \"lo\", \"eth0\",\n\t\t\t     \"bond0.7\" }\n\t}\n}\n";
        let expected = ["bond0.7", "eth0", "lo"].map(str::to_owned);
        assert_eq!(names(listed), expected.into());
        assert!(
            names("table ip skep_mesh {\n\tset closed {\n\t\ttype ifname\n\t}\n}\n").is_empty()
        );
        assert!(is_plain("br-0a.b_1@c") && !is_plain("e*") && !is_plain("e\"") && !is_plain("e\\"));
    }
}
