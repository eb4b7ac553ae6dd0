//! The table in a container's namespace: VIPs to back ends, DNS to this node's server.

use super::{elements, replacing, turns};
use crate::netlink::Balance;
use discovery::SandboxRules;
use std::fmt::Write;
use std::net::Ipv4Addr;

pub(crate) const FAMILY: &str = "ip";
pub(crate) const TABLE: &str = "skep";

/// What leads from one table to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Nothing,
    /// The same VIPs with other back ends.
    Balance(Vec<Balance>),
    /// Commands of nft.
    Text(String),
}

/// Renders the whole table, replacing what is there.
pub(crate) fn whole(rules: &SandboxRules) -> String {
    let vips = elements(rules.vips.keys().map(|vip| element(*vip)));
    let mut text = replacing(FAMILY, TABLE);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "table ip {TABLE} {{\n\tmap vips {{ type ipv4_addr : verdict;{vips} }}");
    for (vip, backends) in &rules.vips {
        let list: Vec<String> = lines(backends).collect();
        let list = list.join("\n\t\t");
        let _ = writeln!(text, "\tchain {} {{\n\t\t{list}\n\t}}", chain(*vip));
    }
    let _ = writeln!(
        text,
        "	chain output {{
		type nat hook output priority -100; policy accept;
		ip daddr vmap @vips"
    );
    if rules.dns_port != 0 {
        // `redirect` would turn the server's address into 127.0.0.1.
        for protocol in ["udp", "tcp"] {
            let port = rules.dns_port;
            let _ = writeln!(
                text,
                "\t\tip daddr 127.0.0.11 {protocol} dport 53 dnat to 127.0.0.11:{port}"
            );
        }
    }
    text.push_str("\t}\n}\n");
    text
}

/// Works out what leads from `old` to `new`, as far as the table is concerned.
pub(crate) fn difference(old: &SandboxRules, new: &SandboxRules) -> Change {
    if old.dns_port != new.dns_port {
        return Change::Text(whole(new));
    }
    let changed: Vec<_> =
        new.vips.iter().filter(|(vip, backends)| old.vips.get(*vip) != Some(*backends)).collect();
    if old.vips.keys().eq(new.vips.keys()) {
        let balance = changed
            .into_iter()
            .map(|(vip, backends)| Balance { chain: chain(*vip), backends: backends.clone() });
        let balance: Vec<Balance> = balance.collect();
        return if balance.is_empty() { Change::Nothing } else { Change::Balance(balance) };
    }
    let mut text = String::new();
    for (vip, backends) in changed {
        let chain = chain(*vip);
        let verb = if old.vips.contains_key(vip) { "flush" } else { "add" };
        let _ = writeln!(text, "{verb} chain ip {TABLE} {chain}");
        for line in lines(backends) {
            let _ = writeln!(text, "add rule ip {TABLE} {chain} {line}");
        }
        if verb == "add" {
            let _ = writeln!(text, "add element ip {TABLE} vips {{ {} }}", element(*vip));
        }
    }
    for vip in old.vips.keys().filter(|vip| !new.vips.contains_key(*vip)) {
        let chain = chain(*vip);
        let _ = writeln!(text, "delete element ip {TABLE} vips {{ {vip} }}");
        let _ = writeln!(text, "flush chain ip {TABLE} {chain}");
        let _ = writeln!(text, "delete chain ip {TABLE} {chain}");
    }
    Change::Text(text)
}

/// The rules of a VIP: its first packet of each connection comes here.
fn lines(backends: &[Ipv4Addr]) -> impl Iterator<Item = String> {
    let lines = if backends.is_empty() {
        ["meta l4proto tcp reject with tcp reset", "reject with icmp port-unreachable"]
            .map(str::to_owned)
            .to_vec()
    } else {
        vec![format!("dnat to {}", turns(backends))]
    };
    lines.into_iter()
}

fn element(vip: Ipv4Addr) -> String {
    format!("{vip} : jump {}", chain(vip))
}

fn chain(vip: Ipv4Addr) -> String {
    let [a, b, c, d] = vip.octets();
    format!("vip_{a}_{b}_{c}_{d}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 11);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 12);

    fn rules(vips: &[(u8, &[Ipv4Addr])]) -> SandboxRules {
        SandboxRules {
            netns: "/run/netns/c".into(),
            gateway_address: [172, 30, 0, 2].into(),
            default_route: true,
            attachments: Vec::new(),
            dns_port: 40053,
            vips: vips
                .iter()
                .map(|(last, backends)| ([10, 0, 1, *last].into(), backends.to_vec()))
                .collect(),
        }
    }

    fn check(old: &[(u8, &[Ipv4Addr])], new: &[(u8, &[Ipv4Addr])], expected: &Expect) {
        let text = match difference(&rules(old), &rules(new)) {
            Change::Nothing => String::new(),
            Change::Balance(list) => list.iter().fold(String::new(), |text, change| {
                format!("{text}{} {:?}\n", change.chain, change.backends)
            }),
            Change::Text(text) => text,
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn a_table_balances_vips_refuses_empty_ones_and_leads_to_the_dns_server() {
        expect![[r"
            table ip skep { }
            delete table ip skep
            table ip skep {
            	map vips { type ipv4_addr : verdict; elements = { 10.0.1.200 : jump vip_10_0_1_200, 10.0.1.201 : jump vip_10_0_1_201 }; }
            	chain vip_10_0_1_200 {
            		dnat to numgen inc mod 2 map { 0 : 10.0.1.11, 1 : 10.0.1.12 }
            	}
            	chain vip_10_0_1_201 {
            		meta l4proto tcp reject with tcp reset
            		reject with icmp port-unreachable
            	}
            	chain output {
            		type nat hook output priority -100; policy accept;
            		ip daddr vmap @vips
            		ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:40053
            		ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:40053
            	}
            }
        "]]
        .assert_eq(&whole(&rules(&[(200, &[A, B]), (201, &[])])));
    }

    #[test]
    fn other_back_ends_touch_only_the_chain_of_their_vip() {
        check(
            &[(200, &[A, B]), (201, &[A])],
            &[(200, &[B]), (201, &[A])],
            &expect![[r"
            vip_10_0_1_200 [10.0.1.12]
        "]],
        );
    }

    #[test]
    fn a_vip_that_loses_its_last_back_end_or_has_its_first_keeps_its_chain() {
        check(
            &[(200, &[A])],
            &[(200, &[])],
            &expect![[r"
            vip_10_0_1_200 []
        "]],
        );
        check(
            &[(200, &[])],
            &[(200, &[A])],
            &expect![[r"
            vip_10_0_1_200 [10.0.1.11]
        "]],
        );
    }

    #[test]
    fn vips_come_and_go_in_one_transaction() {
        check(
            &[(200, &[A]), (201, &[]), (204, &[A])],
            &[(202, &[B]), (203, &[]), (204, &[B])],
            &expect![[r"
                add chain ip skep vip_10_0_1_202
                add rule ip skep vip_10_0_1_202 dnat to numgen inc mod 1 map { 0 : 10.0.1.12 }
                add element ip skep vips { 10.0.1.202 : jump vip_10_0_1_202 }
                add chain ip skep vip_10_0_1_203
                add rule ip skep vip_10_0_1_203 meta l4proto tcp reject with tcp reset
                add rule ip skep vip_10_0_1_203 reject with icmp port-unreachable
                add element ip skep vips { 10.0.1.203 : jump vip_10_0_1_203 }
                flush chain ip skep vip_10_0_1_204
                add rule ip skep vip_10_0_1_204 dnat to numgen inc mod 1 map { 0 : 10.0.1.12 }
                delete element ip skep vips { 10.0.1.200 }
                flush chain ip skep vip_10_0_1_200
                delete chain ip skep vip_10_0_1_200
                delete element ip skep vips { 10.0.1.201 }
                flush chain ip skep vip_10_0_1_201
                delete chain ip skep vip_10_0_1_201
            "]],
        );
    }

    #[test]
    fn equal_rules_need_no_transaction() {
        assert_eq!(difference(&rules(&[(200, &[A])]), &rules(&[(200, &[A])])), Change::Nothing);
    }
}
