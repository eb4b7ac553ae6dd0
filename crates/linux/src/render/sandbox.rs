//! The table in a container's namespace: VIPs to back ends, DNS to this node's server.

use super::{elements, replacing, turns};
use discovery::SandboxRules;
use std::fmt::Write;
use std::net::Ipv4Addr;

pub(crate) const FAMILY: &str = "ip";
pub(crate) const TABLE: &str = "skep";

/// Renders the whole table, replacing what is there.
pub(crate) fn whole(rules: &SandboxRules) -> String {
    let vips = elements(with_backends(rules).map(|(vip, _)| element(vip)));
    let gone = elements(without_backends(rules));
    let mut text = replacing(FAMILY, TABLE);
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "table ip {TABLE} {{
	map vips {{ type ipv4_addr : verdict;{vips} }}
	set gone {{ type ipv4_addr;{gone} }}"
    );
    for (vip, backends) in with_backends(rules) {
        let _ = writeln!(text, "\tchain {} {{ dnat to {}; }}", chain(vip), turns(backends));
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
    text.push_str(
        "	}
	chain refuse {
		type filter hook output priority 0; policy accept;
		ip daddr @gone meta l4proto tcp reject with tcp reset
		ip daddr @gone reject with icmp port-unreachable
	}
}
",
    );
    text
}

/// Renders what leads from `old` to `new`; `None` where they are the same, as far as the table is
/// concerned.
pub(crate) fn difference(old: &SandboxRules, new: &SandboxRules) -> Option<String> {
    if old.dns_port != new.dns_port {
        return Some(whole(new));
    }
    let mut text = String::new();
    for (vip, backends) in &new.vips {
        let before = old.vips.get(vip);
        if before != Some(backends) {
            change(&mut text, *vip, before.map(Vec::as_slice), backends);
        }
    }
    for (vip, before) in &old.vips {
        if !new.vips.contains_key(vip) {
            forget(&mut text, *vip, before);
        }
    }
    (!text.is_empty()).then_some(text)
}

/// A VIP gets other back ends, or its first, or loses its last.
fn change(text: &mut String, vip: Ipv4Addr, before: Option<&[Ipv4Addr]>, after: &[Ipv4Addr]) {
    let chain = chain(vip);
    if let Some(before) = before {
        if !before.is_empty() && !after.is_empty() {
            let _ = writeln!(text, "flush chain ip {TABLE} {chain}");
            let _ = writeln!(text, "add rule ip {TABLE} {chain} dnat to {}", turns(after));
            return;
        }
        forget(text, vip, before);
    }
    if after.is_empty() {
        let _ = writeln!(text, "add element ip {TABLE} gone {{ {vip} }}");
        return;
    }
    let _ = writeln!(text, "add chain ip {TABLE} {chain}");
    let _ = writeln!(text, "add rule ip {TABLE} {chain} dnat to {}", turns(after));
    let _ = writeln!(text, "add element ip {TABLE} vips {{ {} }}", element(vip));
}

fn forget(text: &mut String, vip: Ipv4Addr, before: &[Ipv4Addr]) {
    if before.is_empty() {
        let _ = writeln!(text, "delete element ip {TABLE} gone {{ {vip} }}");
        return;
    }
    let chain = chain(vip);
    let _ = writeln!(text, "delete element ip {TABLE} vips {{ {vip} }}");
    let _ = writeln!(text, "flush chain ip {TABLE} {chain}");
    let _ = writeln!(text, "delete chain ip {TABLE} {chain}");
}

fn with_backends(rules: &SandboxRules) -> impl Iterator<Item = (Ipv4Addr, &[Ipv4Addr])> {
    let vips = rules.vips.iter().filter(|(_, backends)| !backends.is_empty());
    vips.map(|(vip, backends)| (*vip, backends.as_slice()))
}

fn without_backends(rules: &SandboxRules) -> impl Iterator<Item = Ipv4Addr> {
    rules.vips.iter().filter(|(_, backends)| backends.is_empty()).map(|(vip, _)| *vip)
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
        expected.assert_eq(&difference(&rules(old), &rules(new)).unwrap_or_default());
    }

    #[test]
    fn a_table_balances_vips_refuses_empty_ones_and_leads_to_the_dns_server() {
        expect![[r"
            table ip skep { }
            delete table ip skep
            table ip skep {
            	map vips { type ipv4_addr : verdict; elements = { 10.0.1.200 : jump vip_10_0_1_200 }; }
            	set gone { type ipv4_addr; elements = { 10.0.1.201 }; }
            	chain vip_10_0_1_200 { dnat to numgen inc mod 2 map { 0 : 10.0.1.11, 1 : 10.0.1.12 }; }
            	chain output {
            		type nat hook output priority -100; policy accept;
            		ip daddr vmap @vips
            		ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:40053
            		ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:40053
            	}
            	chain refuse {
            		type filter hook output priority 0; policy accept;
            		ip daddr @gone meta l4proto tcp reject with tcp reset
            		ip daddr @gone reject with icmp port-unreachable
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
                flush chain ip skep vip_10_0_1_200
                add rule ip skep vip_10_0_1_200 dnat to numgen inc mod 1 map { 0 : 10.0.1.12 }
            "]],
        );
    }

    #[test]
    fn a_vip_that_loses_its_last_back_end_is_refused_from_then_on() {
        check(
            &[(200, &[A])],
            &[(200, &[])],
            &expect![[r"
                delete element ip skep vips { 10.0.1.200 }
                flush chain ip skep vip_10_0_1_200
                delete chain ip skep vip_10_0_1_200
                add element ip skep gone { 10.0.1.200 }
            "]],
        );
        check(
            &[(200, &[])],
            &[(200, &[A])],
            &expect![[r"
                delete element ip skep gone { 10.0.1.200 }
                add chain ip skep vip_10_0_1_200
                add rule ip skep vip_10_0_1_200 dnat to numgen inc mod 1 map { 0 : 10.0.1.11 }
                add element ip skep vips { 10.0.1.200 : jump vip_10_0_1_200 }
            "]],
        );
    }

    #[test]
    fn vips_come_and_go_in_one_transaction() {
        check(
            &[(200, &[A]), (201, &[])],
            &[(202, &[B]), (203, &[])],
            &expect![[r"
                add chain ip skep vip_10_0_1_202
                add rule ip skep vip_10_0_1_202 dnat to numgen inc mod 1 map { 0 : 10.0.1.12 }
                add element ip skep vips { 10.0.1.202 : jump vip_10_0_1_202 }
                add element ip skep gone { 10.0.1.203 }
                delete element ip skep vips { 10.0.1.200 }
                flush chain ip skep vip_10_0_1_200
                delete chain ip skep vip_10_0_1_200
                delete element ip skep gone { 10.0.1.201 }
            "]],
        );
    }

    #[test]
    fn equal_rules_need_no_transaction() {
        assert_eq!(difference(&rules(&[(200, &[A])]), &rules(&[(200, &[A])])), None);
    }
}
