//! What rules are made of: expressions, one after the other, that hand values on in registers.

use super::message::Message;
use super::transaction::{FAMILY_IPV4, big};
use std::net::Ipv4Addr;

const ELEMENT: u16 = 1;
const NAME: u16 = 1;
const DATA: u16 = 2;
const VALUE: u16 = 1;

/// The first register of 16 bytes, and the second.
const FIRST: u32 = 1;
const SECOND: u32 = 2;
/// The second quarter of the first register.
const FIRST_SECOND_WORD: u32 = 9;

const PAYLOAD: [u16; 4] = [1, 2, 3, 4];
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// Where an IPv4 packet has its destination, and a TCP or UDP packet its destination port.
const DESTINATION: u32 = 16;
const DESTINATION_PORT: u32 = 2;
const META: [u16; 2] = [1, 2];
const META_PROTOCOL: u32 = 16;
const COMPARE: [u16; 3] = [1, 2, 3];
const COMPARE_EQUAL: u32 = 0;
const LOOKUP_SET: u16 = 1;
const LOOKUP: [u16; 2] = [2, 3];
const LOOKUP_SET_ID: u16 = 4;
/// The register of verdicts.
const VERDICT: u32 = 0;
const NOTE_SET: u16 = 1;
const NOTE: [u16; 2] = [3, 4];
const NOTE_ADD: u32 = 0;
const NUMGEN: [u16; 4] = [1, 2, 3, 4];
const IMMEDIATE_REGISTER: u16 = 1;
const IMMEDIATE_DATA: u16 = 2;
const VERDICT_DATA: u16 = 2;
const VERDICT_CODE: u16 = 1;
const RETURN: u32 = 5_u32.wrapping_neg();
const NAT: [u16; 3] = [1, 2, 3];
const NAT_PORT: [u16; 2] = [5, 7];
const NAT_DESTINATION: u32 = 1;
const NAT_PORT_SPECIFIED: u32 = 2;
const REJECT: [u16; 2] = [1, 2];
const REJECT_UNREACHABLE: u32 = 0;
const REJECT_RESET: u32 = 1;
const PORT_UNREACHABLE: u8 = 3;

/// The expressions of a rule.
pub(super) struct Expressions(pub(super) Message);

impl Expressions {
    /// `ip daddr`
    pub(super) fn destination(self) -> Self {
        let place = [FIRST, NETWORK_HEADER, DESTINATION, 4];
        self.add("payload", |data| numbers(data, PAYLOAD, place))
    }

    /// `th dport`
    pub(super) fn port(self) -> Self {
        let place = [FIRST, TRANSPORT_HEADER, DESTINATION_PORT, 2];
        self.add("payload", |data| numbers(data, PAYLOAD, place))
    }

    /// `meta l4proto`
    pub(super) fn protocol(self) -> Self {
        self.add("meta", |data| numbers(data, META, [FIRST, META_PROTOCOL]))
    }

    /// Goes on where the last value is this.
    pub(super) fn is(self, value: &[u8]) -> Self {
        self.add("cmp", |data| {
            numbers(data, [COMPARE[0], COMPARE[1]], [FIRST, COMPARE_EQUAL])
                .nest(COMPARE[2], |inner| inner.bytes(VALUE, value))
        })
    }

    /// `vmap @MAP`
    pub(super) fn verdict_of(self, map: &str) -> Self {
        self.add("lookup", |data| numbers(data.text(LOOKUP_SET, map), LOOKUP, [FIRST, VERDICT]))
    }

    /// `add @SET { ip daddr . meta l4proto }`
    pub(super) fn note(self, set: &str) -> Self {
        let both = self
            .destination()
            .add("meta", |data| numbers(data, META, [FIRST_SECOND_WORD, META_PROTOCOL]));
        both.add("dynset", |data| numbers(data.text(NOTE_SET, set), NOTE, [NOTE_ADD, FIRST]))
    }

    /// `dnat to numgen inc mod COUNT map @MAP`, where the map is anonymous and of this transaction.
    pub(super) fn take_turns(self, count: u32, map: (&str, u32)) -> Self {
        let turn = self.add("numgen", |data| numbers(data, NUMGEN, [FIRST, count, 0, 0]));
        let address = turn.add("lookup", |data| {
            let data = numbers(data.text(LOOKUP_SET, map.0), LOOKUP, [FIRST, FIRST]);
            big(data, (LOOKUP_SET_ID, map.1))
        });
        address.add("nat", |data| numbers(data, NAT, [NAT_DESTINATION, FAMILY_IPV4.into(), FIRST]))
    }

    /// `dnat to ADDRESS:PORT`
    pub(super) fn lead_to(self, address: Ipv4Addr, port: u16) -> Self {
        let loaded = self.load(FIRST, &address.octets()).load(SECOND, &port.to_be_bytes());
        loaded.add("nat", |data| {
            let data = numbers(data, NAT, [NAT_DESTINATION, FAMILY_IPV4.into(), FIRST]);
            numbers(data, NAT_PORT, [SECOND, NAT_PORT_SPECIFIED])
        })
    }

    /// `reject with tcp reset`
    pub(super) fn reset(self) -> Self {
        self.add("reject", |data| big(data, (REJECT[0], REJECT_RESET)).byte(REJECT[1], 0))
    }

    /// `reject with icmp port-unreachable`
    pub(super) fn unreachable(self) -> Self {
        self.add("reject", |data| {
            big(data, (REJECT[0], REJECT_UNREACHABLE)).byte(REJECT[1], PORT_UNREACHABLE)
        })
    }

    /// `return`
    pub(super) fn leave(self) -> Self {
        self.add("immediate", |data| {
            big(data, (IMMEDIATE_REGISTER, VERDICT)).nest(IMMEDIATE_DATA, |inner| {
                inner.nest(VERDICT_DATA, |verdict| big(verdict, (VERDICT_CODE, RETURN)))
            })
        })
    }

    fn load(self, register: u32, value: &[u8]) -> Self {
        self.add("immediate", |data| {
            big(data, (IMMEDIATE_REGISTER, register))
                .nest(IMMEDIATE_DATA, |inner| inner.bytes(VALUE, value))
        })
    }

    fn add(self, name: &str, data: impl FnOnce(Message) -> Message) -> Self {
        Self(self.0.nest(ELEMENT, |element| element.text(NAME, name).nest(DATA, data)))
    }
}

fn numbers<const N: usize>(data: Message, kinds: [u16; N], values: [u32; N]) -> Message {
    kinds.into_iter().zip(values).fold(data, big)
}
