//! One kind of nftables transaction by hand: other back ends for a VIP.
//!
//! It is carried out in every container of a network whenever a task comes or goes. Netfilter's
//! library needs half a millisecond for it, most of which it looks around; this is one message and
//! one answer, from outside the namespace.

use super::Socket;
use super::message::{CREATE, Message};
use crate::error::Error;
use std::net::Ipv4Addr;

/// Subsystem 10 (nftables).
const SUBSYSTEM: u16 = 10;
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
const NEW_RULE: u16 = (SUBSYSTEM << 8) | 0x06;
const DELETE_RULE: u16 = (SUBSYSTEM << 8) | 0x08;
const NEW_SET: u16 = (SUBSYSTEM << 8) | 0x09;
const NEW_ELEMENTS: u16 = (SUBSYSTEM << 8) | 0x0c;
const APPEND: u16 = 0x800;

const FAMILY_IPV4: u8 = 2;
/// `struct nfgenmsg`
const FIXED: [u8; 4] = [FAMILY_IPV4, 0, 0, 0];
const BEGIN_GENERATION: u16 = 1;

const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;

const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LENGTH: u16 = 7;
const SET_ID: u16 = 10;
const SET_NOTES: u16 = 13;
/// Anonymous, constant, a map.
const ANONYMOUS_MAP: u32 = 1 | 2 | 8;
const TYPE_INTEGER: u32 = 4;
const TYPE_ADDRESS: u32 = 7;
/// For `nft list`: the keys are in the machine's byte order, the data in the network's.
const NOTES: [u8; 12] = [0, 4, 1, 0, 0, 0, 1, 4, 2, 0, 0, 0];
/// The kernel gives an anonymous set a number in place of this.
const ANONYMOUS: &str = "__map%d";

const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS_LIST: u16 = 3;
const ELEMENTS_SET_ID: u16 = 4;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;

const REGISTER: u32 = 1;
const NUMGEN: [u16; 4] = [1, 2, 3, 4];
const LOOKUP: [u16; 4] = [1, 2, 3, 4];
const NAT: [u16; 3] = [1, 2, 3];
const NAT_DESTINATION: u32 = 1;
const META: [u16; 2] = [1, 2];
const META_PROTOCOL: u32 = 16;
const COMPARE: [u16; 3] = [1, 2, 3];
const REJECT: [u16; 2] = [1, 2];
const REJECT_UNREACHABLE: u32 = 0;
const REJECT_RESET: u32 = 1;
const PORT_UNREACHABLE: u8 = 3;
const TCP: u8 = 6;

/// The chain of a VIP gets other back ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Balance {
    pub(crate) chain: String,
    pub(crate) backends: Vec<Ipv4Addr>,
}

/// Carries out for each chain, as one transaction, all or nothing:
///
/// ```text
/// flush chain ip TABLE CHAIN
/// add rule ip TABLE CHAIN dnat to numgen inc mod 2 map { 0 : A, 1 : B }
/// ```
///
/// and without back ends, `meta l4proto tcp reject with tcp reset` and `reject`. The kernel refuses
/// it where the rules of the namespace are not of this generation any more.
pub(crate) fn balance(
    socket: &mut Socket,
    table: &str,
    changes: &[Balance],
    generation: u32,
) -> Result<(), Error> {
    let frame = [0, 0, 0, SUBSYSTEM.to_be_bytes()[1]];
    let begin = Message::new("begin a transaction", BEGIN, 0)
        .fixed(&frame)
        .bytes(BEGIN_GENERATION, &generation.to_be_bytes());
    let mut messages = vec![begin];
    for (id, change) in (1..).zip(changes) {
        flush(&mut messages, table, change);
        if change.backends.is_empty() {
            refuse(&mut messages, table, change);
        } else {
            lead(&mut messages, table, change, id);
        }
    }
    messages.push(Message::new("end a transaction", END, 0).fixed(&frame));
    socket.transact(&messages)
}

fn flush(messages: &mut Vec<Message>, table: &str, change: &Balance) {
    let doing = format!("empty the chain {}", change.chain);
    let flush = Message::new(doing, DELETE_RULE, 0).fixed(&FIXED);
    messages.push(flush.text(RULE_TABLE, table).text(RULE_CHAIN, &change.chain));
}

fn lead(messages: &mut Vec<Message>, table: &str, change: &Balance, id: u32) {
    let count = u32::try_from(change.backends.len()).unwrap_or(u32::MAX);
    let doing = format!("balance in the chain {}", change.chain);
    let set = Message::new(doing.clone(), NEW_SET, CREATE).fixed(&FIXED);
    let set = [
        (SET_FLAGS, ANONYMOUS_MAP),
        (SET_KEY_TYPE, TYPE_INTEGER),
        (SET_KEY_LENGTH, 4),
        (SET_DATA_TYPE, TYPE_ADDRESS),
        (SET_DATA_LENGTH, 4),
        (SET_ID, id),
    ]
    .into_iter()
    .fold(set.text(SET_TABLE, table).text(SET_NAME, ANONYMOUS), big);
    messages.push(set.bytes(SET_NOTES, &NOTES));
    // An attribute's length has 16 bits; an element takes 28 bytes.
    for (piece, backends) in change.backends.chunks(PIECE).enumerate() {
        let list = Message::new(doing.clone(), NEW_ELEMENTS, CREATE).fixed(&FIXED);
        let list = list.text(ELEMENTS_TABLE, table).text(ELEMENTS_SET, ANONYMOUS);
        let first = u32::try_from(piece * PIECE).unwrap_or(u32::MAX);
        messages.push(big(list, (ELEMENTS_SET_ID, id)).nest(ELEMENTS_LIST, |list| {
            (first..).zip(backends).fold(list, |list, (slot, backend)| {
                list.nest(LIST_ELEMENT, |element| {
                    element
                        .nest(ELEMENT_KEY, |key| key.number(DATA_VALUE, slot))
                        .nest(ELEMENT_DATA, |data| data.address(DATA_VALUE, *backend))
                })
            })
        }));
    }
    messages.push(rule(doing, table, change, |list| {
        let numgen = |data| numbers(data, NUMGEN, [REGISTER, count, 0, 0]);
        let lookup = |data: Message| {
            let data = data.text(LOOKUP[0], ANONYMOUS);
            let data = big(big(data, (LOOKUP[1], REGISTER)), (LOOKUP[2], REGISTER));
            big(data, (LOOKUP[3], id))
        };
        let nat = |data| numbers(data, NAT, [NAT_DESTINATION, FAMILY_IPV4.into(), REGISTER]);
        expression(expression(expression(list, "numgen", numgen), "lookup", lookup), "nat", nat)
    }));
}

/// Elements in one message.
const PIECE: usize = 1000;

fn refuse(messages: &mut Vec<Message>, table: &str, change: &Balance) {
    let doing = format!("refuse in the chain {}", change.chain);
    messages.push(rule(doing.clone(), table, change, |list| {
        let meta = |data| numbers(data, META, [REGISTER, META_PROTOCOL]);
        let compare = |data| {
            numbers(data, [COMPARE[0], COMPARE[1]], [REGISTER, 0])
                .nest(COMPARE[2], |value| value.bytes(DATA_VALUE, &[TCP]))
        };
        let reset = |data| big(data, (REJECT[0], REJECT_RESET)).byte(REJECT[1], 0);
        expression(expression(expression(list, "meta", meta), "cmp", compare), "reject", reset)
    }));
    messages.push(rule(doing, table, change, |list| {
        let unreachable =
            |data| big(data, (REJECT[0], REJECT_UNREACHABLE)).byte(REJECT[1], PORT_UNREACHABLE);
        expression(list, "reject", unreachable)
    }));
}

fn rule(
    doing: String,
    table: &str,
    change: &Balance,
    expressions: impl FnOnce(Message) -> Message,
) -> Message {
    Message::new(doing, NEW_RULE, CREATE | APPEND)
        .fixed(&FIXED)
        .text(RULE_TABLE, table)
        .text(RULE_CHAIN, &change.chain)
        .nest(RULE_EXPRESSIONS, expressions)
}

fn expression(list: Message, name: &str, data: impl FnOnce(Message) -> Message) -> Message {
    list.nest(LIST_ELEMENT, |element| {
        element.text(EXPRESSION_NAME, name).nest(EXPRESSION_DATA, data)
    })
}

fn numbers<const N: usize>(data: Message, kinds: [u16; N], values: [u32; N]) -> Message {
    kinds.into_iter().zip(values).fold(data, big)
}

/// A number as nftables has them, in network byte order.
fn big(message: Message, (kind, value): (u16, u32)) -> Message {
    message.bytes(kind, &value.to_be_bytes())
}
