//! Others' firewalls on the node, which have to let our interfaces pass.
//!
//! What is forwarded has to pass every firewall of the node, not ours alone. Where another one drops
//! whatever it does not know (a policy of DROP, as Docker and ufw set it, or a chain that ends so, as
//! firewalld's zones), it is told to let our two interfaces pass: right before that end, so that its
//! own rules still come first, and no other interface gains anything. Who may pass by them is decided
//! by our own rules (`render::mesh`). Where that end is, is found out by following a packet that no
//! other condition concerns. A table may belong to a program alone: then its user has to do it.

use super::{Config, mesh};
use crate::error::Error;
use crate::nft::{Nftables, Rules};
use crate::render::mesh::TABLE;
use std::collections::BTreeMap;

/// Marks our rules in others' chains.
const COMMENT: &str = "comment \"skep\"";
/// Chains of a firewall that a packet is followed through.
const CHAINS_MAX: usize = 100;
/// The table of firewalld, which owns it from version 2.0 on.
const FIREWALLD: &str = "inet firewalld";

/// A chain that all forwarded packets pass.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chain {
    /// `FAMILY TABLE`
    table: String,
    name: String,
    /// By its policy.
    drops: bool,
}

impl Chain {
    /// `FAMILY TABLE CHAIN`
    fn path(&self) -> String {
        format!("{} {}", self.table, self.name)
    }
}

/// Finds others' chains in what `nft list chains` prints.
fn forwarding(listed: &str) -> Vec<Chain> {
    let mut chains = Vec::new();
    let (mut table, mut chain) = ("", "");
    for line in listed.lines().map(str::trim) {
        // A handle may follow.
        let head = line.split(" {").next().unwrap_or_default();
        if let Some(name) = head.strip_prefix("table ") {
            table = name;
        } else if let Some(name) = head.strip_prefix("chain ") {
            chain = name;
        } else if line.starts_with("type filter hook forward ") {
            let ours = table.split(' ').nth(1) == Some(TABLE);
            let routed = table.starts_with("ip ") || table.starts_with("inet ");
            if routed && !ours {
                let drops = line.contains("policy drop");
                chains.push(Chain { table: table.to_owned(), name: chain.to_owned(), drops });
            }
        }
    }
    chains
}

/// The rules of a chain as it is listed, with their handles.
fn rules(listed: &str) -> Vec<(&str, &str)> {
    // Long sets go on in further lines, which are indented deeper.
    let lines = listed.lines().filter_map(|line| line.strip_prefix("\t\t"));
    let lines = lines.filter(|line| !line.starts_with(char::is_whitespace));
    lines.filter_map(|line| line.rsplit_once(" # handle ")).collect()
}

/// A packet that comes or goes by one of our interfaces: all that is known of it.
#[derive(Clone, Copy, Debug)]
struct Packet<'a> {
    /// `iifname` or `oifname`
    side: &'static str,
    name: &'a str,
}

impl Packet<'_> {
    /// What a rule has to ask for.
    fn condition(&self) -> String {
        format!("{} \"{}\"", self.side, self.name)
    }
}

fn packets(bridge: &str) -> [Packet<'_>; 4] {
    let both = |name| ["iifname", "oifname"].map(|side| Packet { side, name });
    let ([a, b], [c, d]) = (both(bridge), both(mesh::TUNNEL));
    [a, b, c, d]
}

/// What a rule does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict<'r> {
    Accept,
    Drop,
    Return,
    Jump(&'r str),
    Goto(&'r str),
}

/// What a rule does with a packet, and whether it surely does; `None`: it may ask for more than is
/// known of the packet, or has no verdict.
fn verdict<'r>(rule: &'r str, packet: Packet<'_>) -> Option<(Verdict<'r>, bool)> {
    let mut words = rule.split_whitespace();
    let mut is_sure = true;
    loop {
        let verdict = match words.next()? {
            "counter" => {
                // `packets N bytes N`, except where it was never listed.
                let rest = words.clone();
                if words.next() == Some("packets") {
                    words.by_ref().take(3).for_each(drop);
                } else {
                    words = rest;
                }
                continue;
            }
            "log" => {
                let ends = |word: &&str| matches!(*word, "accept" | "drop" | "reject");
                match words.find(ends)? {
                    "accept" => Verdict::Accept,
                    _ => Verdict::Drop,
                }
            }
            side @ ("iif" | "iifname" | "oif" | "oifname") => {
                let name = words.next()?.strip_prefix('"')?.strip_suffix('"')?;
                if packet.side.starts_with(&side[..3]) {
                    let is_it = match name.strip_suffix('*') {
                        Some(start) => packet.name.starts_with(start),
                        None => packet.name == name,
                    };
                    if !is_it {
                        return None;
                    }
                } else if side.starts_with('i') && !name.ends_with('*') {
                    // It may well come by this one from outside.
                    is_sure = false;
                } else {
                    return None;
                }
                continue;
            }
            "accept" => Verdict::Accept,
            "drop" | "reject" => Verdict::Drop,
            "return" => Verdict::Return,
            "jump" => Verdict::Jump(words.next()?),
            "goto" => Verdict::Goto(words.next()?),
            _ => return None,
        };
        return Some((verdict, is_sure));
    }
}

/// Says whether a rule lets answers pass, or what was led to a published port: together that is all
/// that comes to us from elsewhere.
fn lets_pass(rule: &str) -> [bool; 2] {
    let rule = rule.trim_end_matches(|c| c != 't');
    let accepts = rule.ends_with(" accept");
    let state = rule.strip_prefix("ct state ");
    let answers = state.is_some_and(|states| states.contains("established"));
    [accepts && answers, accepts && rule.starts_with("ct status dnat ")]
}

/// What becomes of a packet in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PacketOutcome {
    Accepted,
    Dropped,
    Returns,
}

/// The chains of a table, as they are listed when they are first needed.
struct Chains<'a> {
    list: &'a dyn Fn(&str) -> Result<String, Error>,
    /// `FAMILY TABLE`
    table: &'a str,
    listed: BTreeMap<String, String>,
}

impl Chains<'_> {
    fn listed(&mut self, chain: &str) -> Result<String, Error> {
        if let Some(listed) = self.listed.get(chain) {
            return Ok(listed.clone());
        }
        if CHAINS_MAX <= self.listed.len() {
            return Ok(String::new());
        }
        let listed = (self.list)(&format!("{} {chain}", self.table))?;
        self.listed.insert(chain.to_owned(), listed.clone());
        Ok(listed)
    }

    /// Follows a packet through a chain: what becomes of it, and the handle of the rule that decides.
    /// There are no circles: the kernel refuses them.
    fn follow(
        &mut self,
        chain: &str,
        packet: Packet<'_>,
    ) -> Result<(PacketOutcome, Option<String>), Error> {
        let listed = self.listed(chain)?;
        let mut passed = [false; 2];
        for (rule, handle) in rules(&listed) {
            for (passed, lets) in passed.iter_mut().zip(lets_pass(rule)) {
                *passed |= lets;
            }
            if packet.side == "oifname" && passed == [true; 2] {
                return Ok((PacketOutcome::Accepted, Some(handle.to_owned())));
            }
            let Some((verdict, is_sure)) = verdict(rule, packet) else { continue };
            let outcome = match verdict {
                // A chain of its own for an interface, which ends in a drop, is a zone.
                Verdict::Accept | Verdict::Drop | Verdict::Return if !is_sure => continue,
                Verdict::Accept => PacketOutcome::Accepted,
                Verdict::Drop => PacketOutcome::Dropped,
                Verdict::Return => PacketOutcome::Returns,
                Verdict::Jump(to) => match self.follow(to, packet)?.0 {
                    PacketOutcome::Returns => continue,
                    outcome => outcome,
                },
                Verdict::Goto(to) => self.follow(to, packet)?.0,
            };
            if is_sure || outcome == PacketOutcome::Dropped {
                return Ok((outcome, Some(handle.to_owned())));
            }
        }
        Ok((PacketOutcome::Returns, None))
    }
}

/// Works out what lets our interfaces pass a chain, as commands of nft; nothing where it lets them
/// pass already.
fn admission(chain: &Chain, chains: &mut Chains<'_>, bridge: &str) -> Result<String, Error> {
    let path = chain.path();
    let mut commands = Vec::new();
    for packet in packets(bridge) {
        let (outcome, end) = chains.follow(&chain.name, packet)?;
        let passes = match outcome {
            PacketOutcome::Accepted => true,
            PacketOutcome::Dropped => false,
            PacketOutcome::Returns => !chain.drops,
        };
        if passes {
            continue;
        }
        let condition = packet.condition();
        // One of ours behind that end is of no use.
        let listed = chains.listed(&chain.name)?;
        let useless = ours(&listed, &condition).into_iter();
        commands.extend(useless.map(|handle| format!("delete rule {path} handle {handle}\n")));
        let place = match end {
            Some(handle) => format!("insert rule {path} handle {handle}"),
            None => format!("add rule {path}"),
        };
        commands.push(format!("{place} {condition} counter accept {COMMENT}\n"));
    }
    Ok(commands.concat())
}

/// The handles of our own rules in a chain that begin so.
fn ours<'l>(listed: &'l str, begin: &str) -> Vec<&'l str> {
    let rules = rules(listed).into_iter();
    let ours = rules.filter(|(rule, _)| rule.starts_with(begin) && rule.ends_with(COMMENT));
    ours.map(|(_, handle)| handle).collect()
}

/// Lets our interfaces pass others' firewalls.
pub(super) fn admit(table: &mut Rules, config: &Config) -> Result<(), Error> {
    change(table, config, |chain, chains| admission(chain, chains, &config.bridge))
}

/// Takes back what [`admit`] did.
pub(super) fn dismiss(table: &mut Rules, config: &Config) -> Result<(), Error> {
    change(table, config, |chain, chains| {
        let listed = chains.listed(&chain.name)?;
        let path = chain.path();
        let delete = |handle| format!("delete rule {path} handle {handle}\n");
        Ok(ours(&listed, "").into_iter().map(delete).collect())
    })
}

/// Each chain by itself: one that refuses (its table may belong to a program alone) keeps us out of
/// no other.
fn change(
    rules: &mut Rules,
    config: &Config,
    work: impl Fn(&Chain, &mut Chains<'_>) -> Result<String, Error>,
) -> Result<(), Error> {
    let mut outcome = Ok(());
    for chain in forwarding(&rules.run("list chains")?) {
        let text = look(rules, &chain, &work);
        let done = text.and_then(|text| if text.is_empty() { Ok(()) } else { rules.apply(&text) });
        outcome = outcome.and(done.map_err(|error| match owned(rules, &chain, config) {
            Ok(Some(owned)) => owned,
            _ => Error::Firewall { chain: chain.path(), message: error.to_string() },
        }));
    }
    outcome
}

/// Has a chain and those that it leads to looked at.
fn look(
    rules: &Rules,
    chain: &Chain,
    work: impl Fn(&Chain, &mut Chains<'_>) -> Result<String, Error>,
) -> Result<String, Error> {
    let list = |path: &str| rules.run(&format!("list chain {path}"));
    let mut chains = Chains { list: &list, table: &chain.table, listed: BTreeMap::new() };
    work(chain, &mut chains)
}

/// Says whether a chain's table belongs to a program alone, and then what its user has to do.
fn owned(rules: &Rules, chain: &Chain, config: &Config) -> Result<Option<Error>, Error> {
    let listed = rules.run(&format!("list table {}", chain.table))?;
    let flags = listed.lines().find_map(|line| line.trim().strip_prefix("flags "));
    let is_owned = flags.is_some_and(|flags| flags.split([',', ' ', ';']).any(|it| it == "owner"));
    Ok(is_owned.then(|| {
        let names = [config.bridge.as_str(), mesh::TUNNEL];
        Error::FirewallOwned { table: chain.table.clone(), remedy: remedy(&chain.table, names) }
    }))
}

/// What lets our interfaces pass a firewall that only its own program changes.
fn remedy(table: &str, [bridge, tunnel]: [&str; 2]) -> String {
    if table != FIREWALLD {
        return format!("have its program let {bridge} and {tunnel} pass");
    }
    format!(
        "`firewall-cmd --permanent --zone=trusted --add-interface={bridge} \
         --add-interface={tunnel} && firewall-cmd --reload` lets them pass"
    )
}

/// What the firewalls of the node mean for containers, in whole sentences.
pub(super) fn report(config: &Config) -> Result<Vec<String>, Error> {
    let rules = Nftables::load()?.open()?;
    let mut notes = Vec::new();
    for chain in forwarding(&rules.run("list chains")?) {
        if look(&rules, &chain, |chain, chains| admission(chain, chains, &config.bridge))?
            .is_empty()
        {
            continue;
        }
        notes.push(match owned(&rules, &chain, config)? {
            Some(owned) => owned.to_string(),
            None => format!(
                "the firewall's chain {} drops what it does not know; {} and {} will be let pass",
                chain.path(),
                config.bridge,
                mesh::TUNNEL
            ),
        });
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAINS: &str = "table ip filter { # handle 9
\tchain FORWARD { # handle 1
\t\ttype filter hook forward priority filter; policy drop;
\t}
\tchain DOCKER {
\t}
}
table inet firewalld {
\tchain filter_FORWARD {
\t\ttype filter hook forward priority filter + 10; policy accept;
\t}
}
table ip skep_mesh {
\tchain entry {
\t\ttype filter hook forward priority filter; policy accept;
\t}
}
table bridge filter {
\tchain FORWARD {
\t\ttype filter hook forward priority filter; policy drop;
\t}
}
";

    /// Chains as they are listed, from lines of rules; each rule's handle is its line's number.
    fn listed(chains: &str) -> BTreeMap<String, String> {
        let mut listed = BTreeMap::new();
        let mut chain = "";
        for (line, text) in (1..).zip(chains.lines().map(str::trim)) {
            if let Some(name) = text.strip_suffix(':') {
                chain = name;
                listed.insert(name.to_owned(), String::new());
            } else if let Some(rules) = listed.get_mut(chain) {
                rules.push_str(&["\t\t", text, " # handle ", &line.to_string(), "\n"].concat());
            }
        }
        listed
    }

    /// What is done about a base chain `base`, with `T` for its path.
    fn admitted(drops: bool, chains: &str) -> String {
        let chain = Chain { table: "t".into(), name: "base".into(), drops };
        let list = |path: &str| panic!("{path} is not there");
        let mut chains = Chains { list: &list, table: "t", listed: listed(chains) };
        admission(&chain, &mut chains, "gw").unwrap().replace("t base", "T")
    }

    fn all(place: &str) -> String {
        let rule = |packet: Packet<'_>| {
            format!("{place} {} counter accept comment \"skep\"\n", packet.condition())
        };
        packets("gw").map(rule).concat()
    }

    #[test]
    fn others_chains_that_routed_packets_pass_are_found() {
        let found = forwarding(CHAINS);
        let names: Vec<_> = found.iter().map(|chain| (chain.path(), chain.drops)).collect();
        let wanted =
            [("ip filter FORWARD".into(), true), ("inet firewalld filter_FORWARD".into(), false)];
        assert_eq!(names, wanted);
    }

    #[test]
    fn a_policy_of_drop_is_opened_at_the_end_for_our_interfaces_alone() {
        let docker = "base:
            counter packets 5 bytes 300 jump USER
            oifname \"docker0\" counter packets 0 bytes 0 jump DOCKER
            USER:
            ip saddr 10.9.9.9 drop
            counter packets 5 bytes 300 return";
        assert_eq!(admitted(true, docker), all("add rule T"));
        assert_eq!(admitted(false, docker), "");
        expect_test::expect![[r#"
            add rule T iifname "gw" counter accept comment "skep"
            add rule T oifname "gw" counter accept comment "skep"
            add rule T iifname "skep_mesh" counter accept comment "skep"
            add rule T oifname "skep_mesh" counter accept comment "skep"
        "#]]
        .assert_eq(&all("add rule T"));
        // Once is enough.
        let known: Vec<String> = packets("gw").iter().map(|it| ours_of(&it.condition())).collect();
        let known = format!("base:\nct state invalid drop\n{}", known.join("\n"));
        assert_eq!(admitted(true, &known), "");
        // A chain that goes back to its policy before it has ended.
        assert_eq!(admitted(true, "base:\nreturn\n"), all("insert rule T handle 2"));
    }

    fn ours_of(condition: &str) -> String {
        format!("{condition} counter packets 0 bytes 0 accept comment \"skep\"")
    }

    #[test]
    fn what_drops_all_is_preceded_and_a_chain_that_lets_pass_is_left_alone() {
        for end in [
            "reject with icmpx admin-prohibited",
            "counter packets 1 bytes 2 drop",
            "log prefix \"dropped: \" drop",
        ] {
            let rules = format!("base:\nct state invalid drop\n{end}");
            assert_eq!(admitted(false, &rules), all("insert rule T handle 3"), "{end}");
        }
        for open in ["ip saddr 10.0.0.1 drop", "accept\ndrop", "oif \"virbr0\" reject", ""] {
            assert_eq!(admitted(false, &format!("base:\n{open}")), "", "{open}");
        }
    }

    #[test]
    fn a_jump_to_where_all_is_dropped_is_such_an_end() {
        let zones = "base:
            ct state { established, related } accept
            ct status dnat accept
            iifname \"lo\" accept
            ct state invalid drop
            jump ZONES
            reject with icmpx admin-prohibited
            ZONES:
            iifname \"eth0\" goto public
            iifname \"wg*\" goto trusted
            goto public
            public:
            jump public_deny
            meta l4proto { icmp, ipv6-icmp } accept
            reject with icmpx admin-prohibited
            public_deny:
            trusted:
            accept";
        // Published ports and answers pass already.
        let sent = "insert rule T handle 6 iifname \"gw\" counter accept comment \"skep\"\n\
                    insert rule T handle 6 iifname \"skep_mesh\" counter accept comment \"skep\"\n";
        assert_eq!(admitted(false, zones), sent);
        let closed = zones.replace("ct status dnat accept", "ct status dnat counter");
        assert_eq!(admitted(false, &closed), all("insert rule T handle 6"));
        // As somebody has it who writes rules by hand.
        let entry = "base:
            iifname \"eth0\" jump entry
            entry:
            tcp dport 22 accept
            drop";
        let come = "insert rule T handle 2 oifname \"gw\" counter accept comment \"skep\"\n\
                    insert rule T handle 2 oifname \"skep_mesh\" counter accept comment \"skep\"\n";
        assert_eq!(admitted(false, entry), come);
    }

    #[test]
    fn what_is_in_a_zone_that_lets_pass_needs_nothing_more() {
        let zones = "base:
            ct state established,related accept
            ct status dnat accept
            jump ZONES
            reject
            ZONES:
            iifname \"gw\" goto trusted
            iifname \"skep_*\" goto trusted
            goto public
            public:
            reject
            trusted:
            accept";
        assert_eq!(admitted(false, zones), "");
    }

    #[test]
    fn a_rule_of_ours_that_came_to_lie_behind_the_end_is_put_in_front() {
        let rules = format!("base:\njump all\n{}\nall:\ndrop", ours_of("iifname \"gw\""));
        let text = admitted(false, &rules);
        assert!(
            text.starts_with("delete rule T handle 3\ninsert rule T handle 2 iifname \"gw\""),
            "{text}"
        );
        assert_eq!(text.matches("delete").count(), 1, "{text}");
    }

    #[test]
    fn firewalls_that_only_their_program_changes_are_told_of_with_what_to_do() {
        let names = ["gw", "mesh"];
        assert!(remedy(FIREWALLD, names).contains("--zone=trusted --add-interface=gw --add"));
        assert!(remedy("inet own", names).contains("have its program let gw and mesh pass"));
    }
}
