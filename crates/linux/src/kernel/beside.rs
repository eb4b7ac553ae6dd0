//! Living beside others on the node: their firewalls, bridges and subnets.
//!
//! What is forwarded has to pass every firewall of the node, not ours alone. Where another one drops
//! whatever it does not know (a policy of DROP, as Docker and ufw set it, or a last rule as
//! firewalld's), it is told to let our two interfaces pass: in front of that end, so that its own
//! rules still come first, and no other interface gains anything. Who may pass by them is decided by
//! our own rules (`render::mesh`).

use super::{Config, mesh};
use crate::error::Error;
use crate::namespace;
use crate::netlink::{Addresses, LinkKind, Links, Routes, Socket, TABLE_MAIN};
use crate::nft::{Nftables, Rules};
use crate::render::mesh::TABLE;
use ipnet::Ipv4Net;

/// Bridged frames pass through the rules for routed packets.
pub(super) const BRIDGED_FRAMES: &str = "bridge/bridge-nf-call-iptables";

/// Marks our rules in others' chains.
const COMMENT: &str = "comment \"skep\"";

/// A chain that all forwarded packets pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// `FAMILY TABLE CHAIN`
    pub(crate) name: String,
    drops: bool,
}

/// Finds others' chains in what `nft list chains` prints.
pub(crate) fn forwarding(listed: &str) -> Vec<Chain> {
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
                chains.push(Chain { name: format!("{table} {chain}"), drops });
            }
        }
    }
    chains
}

/// A rule as it is listed, with its handle.
fn rules(listed: &str) -> Vec<(&str, &str)> {
    // Long sets go on in further lines, which are indented deeper.
    let lines = listed.lines().filter_map(|line| line.strip_prefix("\t\t"));
    let lines = lines.filter(|line| !line.starts_with(char::is_whitespace));
    lines.filter_map(|line| line.rsplit_once(" # handle ")).collect()
}

/// Says whether a rule drops whatever comes to it.
fn drops_all(rule: &str) -> bool {
    let mut words = rule.split_whitespace().peekable();
    if words.next_if_eq(&"counter").is_some() {
        // `packets N bytes N`
        words.by_ref().take(4).for_each(drop);
    }
    matches!(words.next(), Some("drop" | "reject"))
}

fn wanted(bridge: &str) -> [String; 4] {
    [("iifname", bridge), ("oifname", bridge), ("iifname", mesh::TUNNEL), ("oifname", mesh::TUNNEL)]
        .map(|(side, name)| format!("{side} \"{name}\""))
}

/// Works out what lets our interfaces pass a chain, as commands of nft; nothing where it lets
/// everything pass, or knows us already.
fn admission(chain: &Chain, listed: &str, bridge: &str) -> String {
    let rules = rules(listed);
    let end = rules.last().filter(|(rule, _)| drops_all(rule));
    if !chain.drops && end.is_none() {
        return String::new();
    }
    let is_there = |rule: &String| {
        rules.iter().any(|(there, _)| there.starts_with(rule.as_str()) && there.ends_with(COMMENT))
    };
    let missing = wanted(bridge).into_iter().filter(|rule| !is_there(rule));
    let name = &chain.name;
    missing.fold(String::new(), |text, rule| {
        let place = match end {
            Some((_, handle)) => format!("insert rule {name} handle {handle}"),
            None => format!("add rule {name}"),
        };
        format!("{text}{place} {rule} counter accept {COMMENT}\n")
    })
}

/// Takes our rules out of a chain.
fn dismissal(chain: &Chain, listed: &str) -> String {
    let ours = rules(listed).into_iter().filter(|(rule, _)| rule.ends_with(COMMENT));
    ours.fold(String::new(), |text, (_, handle)| {
        format!("{text}delete rule {} handle {handle}\n", chain.name)
    })
}

/// Lets our interfaces pass others' firewalls.
pub(super) fn admit(table: &mut Rules, config: &Config) -> Result<(), Error> {
    change(table, |chain, listed| admission(chain, listed, &config.bridge))
}

/// Takes back what [`admit`] did.
pub(super) fn dismiss(table: &mut Rules) -> Result<(), Error> {
    change(table, dismissal)
}

/// Each chain by itself: one that refuses (its table may belong to a program alone) keeps us out of
/// no other.
fn change(table: &mut Rules, work: impl Fn(&Chain, &str) -> String) -> Result<(), Error> {
    let mut outcome = Ok(());
    for chain in forwarding(&table.run("list chains")?) {
        let listed = table.run(&format!("list chain {}", chain.name));
        let text = listed.map(|listed| work(&chain, &listed));
        let done = text.and_then(|text| if text.is_empty() { Ok(()) } else { table.apply(&text) });
        outcome =
            outcome.and(done.map_err(|error| Error::Firewall {
                chain: chain.name,
                message: error.to_string(),
            }));
    }
    outcome
}

/// What others have on this node that the data plane will live beside, in whole sentences.
pub(super) fn report(config: &Config) -> Result<Vec<String>, Error> {
    let mut notes = Vec::new();
    let rules = Nftables::load()?.open()?;
    for chain in forwarding(&rules.run("list chains")?) {
        let listed = rules.run(&format!("list chain {}", chain.name))?;
        if !admission(&chain, &listed, &config.bridge).is_empty() {
            notes.push(format!(
                "the firewall's chain {} drops what it does not know; {} and {} will be let pass",
                chain.name,
                config.bridge,
                mesh::TUNNEL
            ));
        }
    }
    let legacy = std::fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    if legacy.lines().any(|table| table == "filter") {
        notes.push(format!(
            "iptables-legacy has rules, which are not seen here; if it drops what is forwarded, let {} \
             and {} pass: iptables-legacy -I FORWARD -i … -j ACCEPT, and the same with -o",
            config.bridge,
            mesh::TUNNEL
        ));
    }
    let mut socket = Socket::route()?;
    let links = Links::observe(&mut socket)?;
    let taken = is_free(&mut socket, &links, config.gateway_subnet, &[&config.bridge]);
    notes.extend(taken.err().map(|error| format!("{error} by --gateway-subnet")));
    for link in &links.0 {
        if let LinkKind::Vxlan { vni, port, .. } = link.kind
            && !link.name.starts_with("skep")
        {
            notes.push(format!(
                "the tunnel {} has VNI {vni} at port {port}; no network of the cluster can have it here",
                link.name
            ));
        }
    }
    let filtered = namespace::get(BRIDGED_FRAMES).is_some_and(|value| value != "0");
    if filtered && has_foreign_bridge(&links, &config.bridge) {
        notes.push(format!(
            "net.{BRIDGED_FRAMES} is on and stays on, since there are bridges of others; containers' \
             packets pass the firewall once more"
        ));
    }
    Ok(notes)
}

/// Looks whether others use a subnet on this node: an interface that is not ours has an address or a
/// route within it. That it is within a larger one of theirs, is common and does no harm.
pub(super) fn is_free(
    socket: &mut Socket,
    links: &Links,
    subnet: Ipv4Net,
    ours: &[&str],
) -> Result<(), Error> {
    let addresses = Addresses::observe(socket)?;
    let routes = Routes::observe(socket)?;
    for link in links.0.iter().filter(|link| !ours.contains(&link.name.as_str())) {
        let behind = routes.by(link.index, TABLE_MAIN);
        let taken = addresses
            .of(link.index)
            .chain(behind)
            .find(|net| subnet.contains(&net.network()) && subnet.prefix_len() <= net.prefix_len());
        if let Some(net) = taken {
            let (subnet, net) = (subnet.trunc(), net.trunc());
            return Err(Error::SubnetTaken { subnet, net, link: link.name.clone() });
        }
    }
    Ok(())
}

/// Says whether there is a bridge that is not ours: what holds for all bridges concerns it, too.
pub(super) fn has_foreign_bridge(links: &Links, bridge: &str) -> bool {
    links.0.iter().any(|link| link.kind == LinkKind::Bridge && link.name != bridge)
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

    fn listed(rules: &str) -> String {
        format!(
            "table ip filter {{\n\tchain FORWARD {{ # handle 1\n\t\ttype filter hook forward priority filter; policy drop;\n{rules}\t}}\n}}\n"
        )
    }

    #[test]
    fn others_chains_that_routed_packets_pass_are_found() {
        let found = forwarding(CHAINS);
        let names: Vec<_> = found.iter().map(|chain| (chain.name.as_str(), chain.drops)).collect();
        assert_eq!(names, [("ip filter FORWARD", true), ("inet firewalld filter_FORWARD", false)]);
    }

    #[test]
    fn a_policy_of_drop_is_opened_at_the_end_for_our_interfaces_alone() {
        let chain = Chain { name: "ip filter FORWARD".to_owned(), drops: true };
        let docker = "\t\tcounter packets 5 bytes 300 jump DOCKER-USER # handle 2\n";
        expect_test::expect![[r#"
            add rule ip filter FORWARD iifname "gw" counter accept comment "skep"
            add rule ip filter FORWARD oifname "gw" counter accept comment "skep"
            add rule ip filter FORWARD iifname "skep_mesh" counter accept comment "skep"
            add rule ip filter FORWARD oifname "skep_mesh" counter accept comment "skep"
        "#]]
        .assert_eq(&admission(&chain, &listed(docker), "gw"));
        let known: String = (3..)
            .zip(wanted("gw"))
            .map(|(handle, rule)| {
                [
                    "\t\t",
                    &rule,
                    " counter packets 0 bytes 0 accept comment \"skep\" # handle ",
                    &handle.to_string(),
                    "\n",
                ]
                .concat()
            })
            .collect();
        assert_eq!(admission(&chain, &listed(&format!("{docker}{known}")), "gw"), "");
        assert!(
            dismissal(&chain, &listed(&known))
                .starts_with("delete rule ip filter FORWARD handle 3\n")
        );
        assert_eq!(dismissal(&chain, &listed(docker)), "");
    }

    #[test]
    fn a_last_rule_that_drops_is_preceded_and_a_chain_that_lets_pass_is_left_alone() {
        let chain = Chain { name: "inet firewalld filter_FORWARD".to_owned(), drops: false };
        let rules = "\t\tct state invalid drop # handle 7\n\t\treject with icmpx admin-prohibited # handle 8\n";
        let text = admission(&chain, &listed(rules), "gw");
        assert!(
            text.starts_with("insert rule inet firewalld filter_FORWARD handle 8 iifname \"gw\""),
            "{text}"
        );
        let open = "\t\tct state invalid drop # handle 7\n\t\tip saddr { 10.0.0.1,\n\t\t\t     10.0.0.2 } drop # handle 8\n";
        assert_eq!(admission(&chain, &listed(open), "gw"), "");
        assert!(drops_all("counter packets 1 bytes 2 drop") && !drops_all("tcp dport 1 drop"));
    }
}
