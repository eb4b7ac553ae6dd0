//! The table in a container's namespace: VIPs to back ends, DNS to this node's server.

use crate::ipv4::{SandboxRules, Vips};
use crate::netlink::{Transaction, Use};
use discovery::in_turn;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;

pub(crate) const TABLE: &str = "skep";
/// The set in which the table notes which VIPs were used, and by which protocols: nobody else can
/// have tracked connections to back ends.
pub(crate) const USES: &str = "used";
/// The chain whose comment says what the table is and when it was made so. No packet comes here.
pub(crate) const STAMP: &str = "stamp";
/// Counts up when the same rules are rendered in another way.
const RENDERING: u32 = 1;
const VIPS: &str = "vips";
const OUTPUT: &str = "output";
const DNS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// Renders the whole table, replacing what is there, with what was used until now; as the
/// `generation` of the namespace's rules.
pub(crate) fn whole(
    rules: &SandboxRules,
    uses: &BTreeSet<Use>,
    (digest, generation): (u64, u32),
) -> Transaction {
    let mut table = Transaction::on(TABLE);
    table.renew_table();
    table.add_chains_map(VIPS);
    table.add_uses_set(USES);
    for one in uses {
        table.add_use(USES, *one);
    }
    for (vip, backends) in &*rules.vips {
        add(&mut table, *vip, (backends, rules.turn));
    }
    table.add_output_chain(OUTPUT);
    table.follow_map(OUTPUT, VIPS);
    if rules.dns_port != 0 {
        // `redirect` would turn the server's address into 127.0.0.1.
        table.lead_dns(OUTPUT, DNS, rules.dns_port);
    }
    table.add_chain(STAMP);
    table.comment(STAMP, &stamp(rules, digest, generation));
    table
}

/// What the stamp's comment says of a table that holds `rules`, if nobody has touched it since:
/// then the rules of the namespace are of this generation still.
pub(crate) fn stamp(rules: &SandboxRules, digest: u64, generation: u32) -> String {
    let mut hasher = DefaultHasher::new();
    (RENDERING, rules.dns_port, rules.turn, digest).hash(&mut hasher);
    format!("{generation} {:016x}", hasher.finish())
}

/// What leads from one table of VIPs to another. It is the same for all sandboxes that share them.
#[derive(Debug)]
pub(crate) struct Step {
    /// Those that come, go, or get other back ends.
    pub(crate) vips: Vec<Ipv4Addr>,
    /// Of the new table.
    pub(crate) digest: u64,
}

impl Step {
    pub(crate) fn between(old: &Vips, new: &Vips) -> Self {
        let changed = new.iter().filter(|(vip, backends)| old.get(*vip) != Some(*backends));
        let gone = old.keys().filter(|vip| !new.contains_key(*vip));
        let mut digest = DefaultHasher::new();
        new.hash(&mut digest);
        Self {
            vips: changed.map(|(vip, _)| *vip).chain(gone.copied()).collect(),
            digest: digest.finish(),
        }
    }
}

/// Works out what leads from `old` to `new`, as far as the table is concerned, as the `generation`
/// of the namespace's rules; `None` where that is the whole.
pub(crate) fn difference(
    old: &SandboxRules,
    new: &SandboxRules,
    step: &Step,
    generation: u32,
) -> Option<Transaction> {
    if (old.dns_port, old.turn) != (new.dns_port, new.turn) {
        return None;
    }
    let mut table = Transaction::on(TABLE);
    for vip in &step.vips {
        let chain = chain(*vip);
        match (old.vips.get(vip), new.vips.get(vip)) {
            (None, Some(backends)) => add(&mut table, *vip, (backends, new.turn)),
            (Some(_), Some(backends)) => {
                table.flush_chain(&chain);
                lead(&mut table, &chain, (backends, new.turn));
            }
            (_, None) => {
                table.delete_chain_of(VIPS, *vip);
                table.flush_chain(&chain);
                table.delete_chain(&chain);
            }
        }
    }
    if !table.is_empty() {
        table.flush_chain(STAMP);
        table.comment(STAMP, &stamp(new, step.digest, generation));
    }
    Some(table)
}

/// Back ends, and whose turn it is at first.
type Turns<'a> = (&'a [Ipv4Addr], u64);

fn add(table: &mut Transaction, vip: Ipv4Addr, backends: Turns<'_>) {
    let chain = chain(vip);
    table.add_chain(&chain);
    lead(table, &chain, backends);
    table.add_chain_of(VIPS, vip, &chain);
}

/// The rules of a VIP: its first packet of each connection comes here.
fn lead(table: &mut Transaction, chain: &str, (backends, turn): Turns<'_>) {
    if backends.is_empty() {
        table.refuse(chain);
    } else {
        table.note_use(chain, USES);
        let backends: Vec<Ipv4Addr> = in_turn(backends, turn).collect();
        table.take_turns(chain, &backends);
    }
}

fn chain(vip: Ipv4Addr) -> String {
    let [a, b, c, d] = vip.octets();
    format!("vip_{a}_{b}_{c}_{d}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use std::sync::Arc;
    use types::Protocol;

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 11);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 12);

    fn rules(vips: &[(u8, &[Ipv4Addr])]) -> SandboxRules {
        SandboxRules {
            netns: "/run/netns/c".into(),
            gateway_address: [172, 30, 0, 2].into(),
            default_route: true,
            attachments: Vec::new(),
            dns_port: 40053,
            vips: Arc::new(
                vips.iter()
                    .map(|(last, backends)| ([10, 0, 1, *last].into(), backends.to_vec()))
                    .collect(),
            ),
            turn: 0,
        }
    }

    fn check(old: &[(u8, &[Ipv4Addr])], new: &[(u8, &[Ipv4Addr])], expected: &Expect) {
        let (old, new) = (rules(old), rules(new));
        let step = Step::between(&old.vips, &new.vips);
        expected.assert_eq(&text(&difference(&old, &new, &step, 7).unwrap(), &new));
    }

    /// Without the digest, which differs from one compiler to another.
    fn text(change: &Transaction, rules: &SandboxRules) -> String {
        change.text().replace(&stamp(rules, digest(rules), 7), "STAMP")
    }

    fn digest(rules: &SandboxRules) -> u64 {
        Step::between(&Vips::new(), &rules.vips).digest
    }

    #[test]
    fn a_table_balances_vips_refuses_empty_ones_and_leads_to_the_dns_server() {
        let rules = rules(&[(200, &[A, B]), (201, &[])]);
        let used = [(A, Protocol::Udp)].into();
        expect![[r#"
            add table ip skep
            delete table ip skep
            add table ip skep
            add map ip skep vips { type ipv4_addr : verdict; }
            add set ip skep used { type ipv4_addr . inet_proto; size 65536; flags dynamic; }
            add element ip skep used { 10.0.1.11 . udp }
            add chain ip skep vip_10_0_1_200
            add rule ip skep vip_10_0_1_200 add @used { ip daddr . meta l4proto }
            add rule ip skep vip_10_0_1_200 dnat to numgen inc mod 2 map { 0 : 10.0.1.11, 1 : 10.0.1.12 }
            add element ip skep vips { 10.0.1.200 : jump vip_10_0_1_200 }
            add chain ip skep vip_10_0_1_201
            add rule ip skep vip_10_0_1_201 meta l4proto tcp reject with tcp reset
            add rule ip skep vip_10_0_1_201 reject with icmp port-unreachable
            add element ip skep vips { 10.0.1.201 : jump vip_10_0_1_201 }
            add chain ip skep output { type nat hook output priority -100; policy accept; }
            add rule ip skep output ip daddr vmap @vips
            add rule ip skep output ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:40053
            add rule ip skep output ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:40053
            add chain ip skep stamp
            add rule ip skep stamp return comment "STAMP"
        "#]]
        .assert_eq(&text(&whole(&rules, &used, (digest(&rules), 7)), &rules));
    }

    #[test]
    fn other_back_ends_touch_only_the_chain_of_their_vip() {
        check(
            &[(200, &[A, B]), (201, &[A])],
            &[(200, &[B]), (201, &[A])],
            &expect![[r#"
                flush chain ip skep vip_10_0_1_200
                add rule ip skep vip_10_0_1_200 add @used { ip daddr . meta l4proto }
                add rule ip skep vip_10_0_1_200 dnat to numgen inc mod 1 map { 0 : 10.0.1.12 }
                flush chain ip skep stamp
                add rule ip skep stamp return comment "STAMP"
            "#]],
        );
    }

    #[test]
    fn a_vip_that_loses_its_last_back_end_or_has_its_first_keeps_its_chain() {
        check(
            &[(200, &[A])],
            &[(200, &[])],
            &expect![[r#"
                flush chain ip skep vip_10_0_1_200
                add rule ip skep vip_10_0_1_200 meta l4proto tcp reject with tcp reset
                add rule ip skep vip_10_0_1_200 reject with icmp port-unreachable
                flush chain ip skep stamp
                add rule ip skep stamp return comment "STAMP"
            "#]],
        );
        check(
            &[(200, &[])],
            &[(200, &[A])],
            &expect![[r#"
                flush chain ip skep vip_10_0_1_200
                add rule ip skep vip_10_0_1_200 add @used { ip daddr . meta l4proto }
                add rule ip skep vip_10_0_1_200 dnat to numgen inc mod 1 map { 0 : 10.0.1.11 }
                flush chain ip skep stamp
                add rule ip skep stamp return comment "STAMP"
            "#]],
        );
    }

    #[test]
    fn vips_come_and_go_in_one_transaction() {
        check(
            &[(200, &[A]), (201, &[]), (204, &[A])],
            &[(202, &[B]), (203, &[]), (204, &[B])],
            &expect![[r#"
                add chain ip skep vip_10_0_1_202
                add rule ip skep vip_10_0_1_202 add @used { ip daddr . meta l4proto }
                add rule ip skep vip_10_0_1_202 dnat to numgen inc mod 1 map { 0 : 10.0.1.12 }
                add element ip skep vips { 10.0.1.202 : jump vip_10_0_1_202 }
                add chain ip skep vip_10_0_1_203
                add rule ip skep vip_10_0_1_203 meta l4proto tcp reject with tcp reset
                add rule ip skep vip_10_0_1_203 reject with icmp port-unreachable
                add element ip skep vips { 10.0.1.203 : jump vip_10_0_1_203 }
                flush chain ip skep vip_10_0_1_204
                add rule ip skep vip_10_0_1_204 add @used { ip daddr . meta l4proto }
                add rule ip skep vip_10_0_1_204 dnat to numgen inc mod 1 map { 0 : 10.0.1.12 }
                delete element ip skep vips { 10.0.1.200 }
                flush chain ip skep vip_10_0_1_200
                delete chain ip skep vip_10_0_1_200
                delete element ip skep vips { 10.0.1.201 }
                flush chain ip skep vip_10_0_1_201
                delete chain ip skep vip_10_0_1_201
                flush chain ip skep stamp
                add rule ip skep stamp return comment "STAMP"
            "#]],
        );
    }

    #[test]
    fn each_sandbox_has_its_own_turn_and_another_stamp_for_other_rules() {
        let rules = rules(&[(200, &[A, B])]);
        let other = SandboxRules { turn: 1, ..rules.clone() };
        let table = whole(&other, &[].into(), (0, 1)).text();
        assert!(table.contains("mod 2 map { 0 : 10.0.1.12, 1 : 10.0.1.11 }"), "{table}");
        let stamps = [
            stamp(&rules, 1, 1),
            stamp(&other, 1, 1),
            stamp(&rules, 2, 1),
            stamp(&rules, 1, 2),
            stamp(&SandboxRules { dns_port: 1, ..rules }, 1, 1),
        ];
        assert_eq!(BTreeSet::from(stamps).len(), 5);
    }

    #[test]
    fn equal_rules_need_no_transaction() {
        check(&[(200, &[A])], &[(200, &[A])], &expect![""]);
    }
}
