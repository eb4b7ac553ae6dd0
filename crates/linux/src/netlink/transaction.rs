//! Transactions of nftables by hand, for the tables in containers' namespaces.
//!
//! They are carried out in every container of a network whenever a task or a service comes or goes.
//! Netfilter's library needs milliseconds for each and then waits for the kernel; this is one
//! message and one answer, from outside the namespace. Each request is told as the command of `nft`
//! that does the same.

use super::Socket;
use super::expression::Expressions;
use super::message::{CREATE, Message};
use crate::error::Error;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::Ipv4Addr;
use types::Protocol;

/// Subsystem 10 (nftables).
const SUBSYSTEM: u16 = 10;
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = (SUBSYSTEM << 8) | 0x02;
const NEW_CHAIN: u16 = (SUBSYSTEM << 8) | 0x03;
const DELETE_CHAIN: u16 = (SUBSYSTEM << 8) | 0x05;
const NEW_RULE: u16 = (SUBSYSTEM << 8) | 0x06;
const SHOW_RULES: u16 = (SUBSYSTEM << 8) | 0x07;
const DELETE_RULE: u16 = (SUBSYSTEM << 8) | 0x08;
const NEW_SET: u16 = (SUBSYSTEM << 8) | 0x09;
const NEW_ELEMENTS: u16 = (SUBSYSTEM << 8) | 0x0c;
const SHOW_ELEMENTS: u16 = (SUBSYSTEM << 8) | 0x0d;
const DELETE_ELEMENTS: u16 = (SUBSYSTEM << 8) | 0x0e;
const APPEND: u16 = 0x800;

pub(super) const FAMILY_IPV4: u8 = 2;
/// `struct nfgenmsg`
const FIXED: [u8; 4] = [FAMILY_IPV4, 0, 0, 0];
const BEGIN_GENERATION: u16 = 1;

/// The table's name is the first attribute of every request.
const TABLE: u16 = 1;
const CHAIN: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK: [u16; 2] = [1, 2];
const HOOK_OUTPUT: u32 = 3;
/// -100, where destinations are rewritten.
const PRIORITY: u32 = 100_u32.wrapping_neg();
const ACCEPT: u32 = 1;
const JUMP: u32 = 3_u32.wrapping_neg();

const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_NOTES: u16 = 7;
/// A comment in a rule's notes: kind, length, text with its NUL.
const COMMENT: u8 = 0;
const LIST_ELEMENT: u16 = 1;

const SET: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LENGTH: u16 = 7;
const SET_DESCRIPTION: u16 = 9;
const SET_SIZE: u16 = 1;
const SET_ID: u16 = 10;
const SET_NOTES: u16 = 13;
const MAP: u32 = 8;
/// Anonymous, constant, a map.
const ANONYMOUS_MAP: u32 = 1 | 2 | MAP;
/// Rules add elements.
const DYNAMIC: u32 = 0x20;
const TYPE_INTEGER: u32 = 4;
const TYPE_ADDRESS: u32 = 7;
const TYPE_PROTOCOL: u32 = 12;
/// An address and then a protocol, as `nft` counts.
const TYPE_BOTH: u32 = (TYPE_ADDRESS << 6) | TYPE_PROTOCOL;
const TYPE_VERDICT: u32 = 0xffff_ff00;
/// For `nft list`: the keys are in the machine's byte order, the data in the network's.
const NOTES: [u8; 12] = [0, 4, 1, 0, 0, 0, 1, 4, 2, 0, 0, 0];
/// The kernel gives an anonymous set a number in place of this.
const ANONYMOUS: &str = "__map%d";

const ELEMENTS: u16 = 3;
const ELEMENTS_SET_ID: u16 = 4;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
/// Elements in one message: an attribute's length has 16 bits, an element takes 28 bytes.
const PIECE: usize = 1000;
/// Elements of a set that rules fill.
const SIZE: u32 = 65_536;

const TCP: u8 = 6;
const UDP: u8 = 17;
const DNS: u16 = 53;

/// An address and a protocol that were used.
pub(crate) type Use = (Ipv4Addr, Protocol);

/// Requests for one table of the family `ip`, of which all are carried out or none.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    table: &'static str,
    requests: Vec<Message>,
    /// Sets that were made.
    sets: u32,
}

impl Transaction {
    pub(crate) fn on(table: &'static str) -> Self {
        Self { table, requests: Vec::new(), sets: 0 }
    }

    /// The same as commands of `nft`, one a line.
    pub(crate) fn text(&self) -> String {
        let mut lines: Vec<&str> = self.requests.iter().map(|one| one.doing.as_str()).collect();
        // A rule with a map of its own takes several requests.
        lines.dedup();
        lines.iter().fold(String::new(), |text, line| text + line + "\n")
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Makes the table be there and be empty.
    pub(crate) fn renew_table(&mut self) {
        self.push(format!("add table ip {}", self.table), (NEW_TABLE, CREATE), |table| table);
        self.push(format!("delete table ip {}", self.table), (DELETE_TABLE, 0), |table| table);
        self.push(format!("add table ip {}", self.table), (NEW_TABLE, CREATE), |table| table);
    }

    pub(crate) fn add_chain(&mut self, chain: &str) {
        let doing = format!("add chain ip {} {chain}", self.table);
        self.push(doing, (NEW_CHAIN, CREATE), |request| request.text(CHAIN, chain));
    }

    /// Adds a chain through which the first packet of each own connection goes.
    pub(crate) fn add_output_chain(&mut self, chain: &str) {
        let kind = "{ type nat hook output priority -100; policy accept; }";
        let doing = format!("add chain ip {} {chain} {kind}", self.table);
        self.push(doing, (NEW_CHAIN, CREATE), |request| {
            let request = request.text(CHAIN, chain).text(CHAIN_TYPE, "nat");
            big(request, (CHAIN_POLICY, ACCEPT)).nest(CHAIN_HOOK, |hook| {
                big(big(hook, (HOOK[0], HOOK_OUTPUT)), (HOOK[1], PRIORITY))
            })
        });
    }

    pub(crate) fn flush_chain(&mut self, chain: &str) {
        let doing = format!("flush chain ip {} {chain}", self.table);
        self.push(doing, (DELETE_RULE, 0), |request| request.text(RULE_CHAIN, chain));
    }

    pub(crate) fn delete_chain(&mut self, chain: &str) {
        let doing = format!("delete chain ip {} {chain}", self.table);
        self.push(doing, (DELETE_CHAIN, 0), |request| request.text(CHAIN, chain));
    }

    /// Adds a map from addresses to chains.
    pub(crate) fn add_chains_map(&mut self, name: &str) {
        let doing = format!("add map ip {} {name} {{ type ipv4_addr : verdict; }}", self.table);
        let shape = [
            (SET_FLAGS, MAP),
            (SET_KEY_TYPE, TYPE_ADDRESS),
            (SET_KEY_LENGTH, 4),
            (SET_DATA_TYPE, TYPE_VERDICT),
            (SET_DATA_LENGTH, 0),
        ];
        self.add_set(doing, name, shape, |set| set);
    }

    /// Adds a set in which rules note what was used.
    pub(crate) fn add_uses_set(&mut self, name: &str) {
        let kind = format!("{{ type ipv4_addr . inet_proto; size {SIZE}; flags dynamic; }}");
        let doing = format!("add set ip {} {name} {kind}", self.table);
        let shape = [(SET_FLAGS, DYNAMIC), (SET_KEY_TYPE, TYPE_BOTH), (SET_KEY_LENGTH, 8)];
        self.add_set(doing, name, shape, |set| {
            set.nest(SET_DESCRIPTION, |inner| big(inner, (SET_SIZE, SIZE)))
        });
    }

    /// Makes the map lead from an address to a chain.
    pub(crate) fn add_chain_of(&mut self, map: &str, address: Ipv4Addr, chain: &str) {
        let doing = format!("add element ip {} {map} {{ {address} : jump {chain} }}", self.table);
        self.elements(doing, (NEW_ELEMENTS, CREATE), map, |element| {
            let element = element.nest(ELEMENT_KEY, |key| key.bytes(DATA_VALUE, &address.octets()));
            element.nest(ELEMENT_DATA, |data| {
                data.nest(DATA_VERDICT, |verdict| {
                    big(verdict, (VERDICT_CODE, JUMP)).text(VERDICT_CHAIN, chain)
                })
            })
        });
    }

    pub(crate) fn delete_chain_of(&mut self, map: &str, address: Ipv4Addr) {
        let doing = format!("delete element ip {} {map} {{ {address} }}", self.table);
        self.elements(doing, (DELETE_ELEMENTS, 0), map, |element| {
            element.nest(ELEMENT_KEY, |key| key.bytes(DATA_VALUE, &address.octets()))
        });
    }

    pub(crate) fn add_use(&mut self, set: &str, (address, protocol): Use) {
        let [a, b, c, d] = address.octets();
        let (name, number) = words(protocol);
        let doing = format!("add element ip {} {set} {{ {address} . {name} }}", self.table);
        self.elements(doing, (NEW_ELEMENTS, CREATE), set, |element| {
            let key = [a, b, c, d, number, 0, 0, 0];
            element.nest(ELEMENT_KEY, |inner| inner.bytes(DATA_VALUE, &key))
        });
    }

    /// `add rule … ip daddr vmap @MAP`
    pub(crate) fn follow_map(&mut self, chain: &str, map: &str) {
        self.rule(chain, &format!("ip daddr vmap @{map}"), |rule| {
            rule.destination().verdict_of(map)
        });
    }

    /// `add rule … add @SET { ip daddr . meta l4proto }`
    pub(crate) fn note_use(&mut self, chain: &str, set: &str) {
        let text = format!("add @{set} {{ ip daddr . meta l4proto }}");
        self.rule(chain, &text, |rule| rule.note(set));
    }

    /// `add rule … ip daddr ADDRESS udp dport 53 dnat to ADDRESS:PORT`, and the same for TCP.
    pub(crate) fn lead_dns(&mut self, chain: &str, address: Ipv4Addr, port: u16) {
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let (name, number) = words(protocol);
            let text = format!("ip daddr {address} {name} dport {DNS} dnat to {address}:{port}");
            self.rule(chain, &text, |rule| {
                let rule = rule.destination().is(&address.octets()).protocol().is(&[number]);
                rule.port().is(&DNS.to_be_bytes()).lead_to(address, port)
            });
        }
    }

    /// `add rule … dnat to numgen inc mod 2 map { 0 : A, 1 : B }`
    pub(crate) fn take_turns(&mut self, chain: &str, backends: &[Ipv4Addr]) {
        let count = u32::try_from(backends.len()).unwrap_or(u32::MAX);
        let mut slots = String::with_capacity(backends.len() * 20);
        for (slot, backend) in backends.iter().enumerate() {
            let comma = if slot == 0 { "" } else { ", " };
            // Writing to a String cannot fail.
            let _ = write!(slots, "{comma}{slot} : {backend}");
        }
        let text = format!("dnat to numgen inc mod {count} map {{ {slots} }}");
        let doing = format!("add rule ip {} {chain} {text}", self.table);
        let shape = [
            (SET_FLAGS, ANONYMOUS_MAP),
            (SET_KEY_TYPE, TYPE_INTEGER),
            (SET_KEY_LENGTH, 4),
            (SET_DATA_TYPE, TYPE_ADDRESS),
            (SET_DATA_LENGTH, 4),
        ];
        let id = self.add_set(doing.clone(), ANONYMOUS, shape, |set| set.bytes(SET_NOTES, &NOTES));
        for (piece, backends) in backends.chunks(PIECE).enumerate() {
            let first = u32::try_from(piece * PIECE).unwrap_or(u32::MAX);
            self.push(doing.clone(), (NEW_ELEMENTS, CREATE), |request| {
                let request = big(request.text(SET, ANONYMOUS), (ELEMENTS_SET_ID, id));
                request.nest(ELEMENTS, |list| {
                    (first..).zip(backends).fold(list, |list, (slot, backend)| {
                        list.nest(LIST_ELEMENT, |element| {
                            element
                                .nest(ELEMENT_KEY, |key| key.number(DATA_VALUE, slot))
                                .nest(ELEMENT_DATA, |data| data.address(DATA_VALUE, *backend))
                        })
                    })
                })
            });
        }
        self.rule(chain, &text, |rule| rule.take_turns(count, (ANONYMOUS, id)));
    }

    /// `add rule … meta l4proto tcp reject with tcp reset` and `… reject with icmp port-unreachable`
    pub(crate) fn refuse(&mut self, chain: &str) {
        self.rule(chain, "meta l4proto tcp reject with tcp reset", |rule| {
            rule.protocol().is(&[TCP]).reset()
        });
        self.rule(chain, "reject with icmp port-unreachable", Expressions::unreachable);
    }

    /// `add rule … return comment "TEXT"`, of at most 128 characters.
    pub(crate) fn comment(&mut self, chain: &str, text: &str) {
        let doing = format!("add rule ip {} {chain} return comment \"{text}\"", self.table);
        let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
        let notes = [&[COMMENT, length], text.as_bytes(), &[0]].concat();
        self.push(doing, (NEW_RULE, CREATE | APPEND), |request| {
            let request = request.text(RULE_CHAIN, chain);
            let request = request.nest(RULE_EXPRESSIONS, |list| Expressions(list).leave().0);
            request.bytes(RULE_NOTES, &notes)
        });
    }

    /// Carries it out, unless the rules of the namespace are not of this generation any more.
    pub(crate) fn commit(self, socket: &mut Socket, generation: u32) -> Result<(), Error> {
        let frame = [0, 0, 0, SUBSYSTEM.to_be_bytes()[1]];
        let begin = Message::new("begin a transaction", BEGIN, 0)
            .fixed(&frame)
            .bytes(BEGIN_GENERATION, &generation.to_be_bytes());
        let end = Message::new("end a transaction", END, 0).fixed(&frame);
        let mut messages = Vec::with_capacity(self.requests.len() + 2);
        messages.push(begin);
        messages.extend(self.requests);
        messages.push(end);
        socket.transact(messages)
    }

    fn rule(
        &mut self,
        chain: &str,
        text: &str,
        expressions: impl FnOnce(Expressions) -> Expressions,
    ) {
        let doing = format!("add rule ip {} {chain} {text}", self.table);
        self.push(doing, (NEW_RULE, CREATE | APPEND), |request| {
            let request = request.text(RULE_CHAIN, chain);
            request.nest(RULE_EXPRESSIONS, |list| expressions(Expressions(list)).0)
        });
    }

    /// Returns the number by which others in this transaction can name the set.
    fn add_set<const N: usize>(
        &mut self,
        doing: String,
        name: &str,
        shape: [(u16, u32); N],
        more: impl FnOnce(Message) -> Message,
    ) -> u32 {
        self.sets += 1;
        let id = self.sets;
        self.push(doing, (NEW_SET, CREATE), |set| {
            more(shape.into_iter().fold(big(set.text(SET, name), (SET_ID, id)), big))
        });
        id
    }

    fn elements(
        &mut self,
        doing: String,
        kind: (u16, u16),
        set: &str,
        element: impl FnOnce(Message) -> Message,
    ) {
        self.push(doing, kind, |request| {
            request.text(SET, set).nest(ELEMENTS, |list| list.nest(LIST_ELEMENT, element))
        });
    }

    fn push(
        &mut self,
        doing: String,
        (kind, flags): (u16, u16),
        more: impl FnOnce(Message) -> Message,
    ) {
        let request = Message::new(doing, kind, flags).fixed(&FIXED).text(TABLE, self.table);
        self.requests.push(more(request));
    }
}

/// `nft list set ip TABLE SET`, for what rules noted; `None` where there is no such set.
pub(crate) fn uses(
    socket: &mut Socket,
    table: &str,
    set: &str,
) -> Result<Option<BTreeSet<Use>>, Error> {
    let question = Message::new("list what was used", SHOW_ELEMENTS, 0).fixed(&FIXED);
    let list = match socket.dump(question.text(TABLE, table).text(SET, set)) {
        Err(error) if error.code() == Some(libc::ENOENT) => return Ok(None),
        list => list?,
    };
    let elements =
        list.iter().filter_map(|part| part.attributes(FIXED.len()).find_nested(ELEMENTS));
    let keys = elements.flatten().filter_map(|(_, element)| {
        super::message::Attributes(element).find_nested(ELEMENT_KEY)?.find(DATA_VALUE)
    });
    let read = |key: &[u8]| {
        let address: [u8; 4] = key.get(..4)?.try_into().ok()?;
        let protocol = match *key.get(4)? {
            TCP => Protocol::Tcp,
            UDP => Protocol::Udp,
            _ => return None,
        };
        Some((Ipv4Addr::from(address), protocol))
    };
    Ok(Some(keys.filter_map(read).collect()))
}

/// `nft list chain ip TABLE CHAIN`, for the comment of its only rule; `None` where there is none.
pub(crate) fn comment(
    socket: &mut Socket,
    table: &str,
    chain: &str,
) -> Result<Option<String>, Error> {
    let question = Message::new("list the rules of a chain", SHOW_RULES, 0).fixed(&FIXED);
    let list = match socket.dump(question.text(TABLE, table).text(RULE_CHAIN, chain)) {
        Err(error) if error.code() == Some(libc::ENOENT) => return Ok(None),
        list => list?,
    };
    let [rule] = list.as_slice() else { return Ok(None) };
    let text = match rule.attributes(FIXED.len()).find(RULE_NOTES) {
        Some([COMMENT, _, text @ .., 0]) => std::str::from_utf8(text).ok(),
        Some(_) | None => None,
    };
    Ok(text.map(str::to_owned))
}

/// A protocol as people and as packets name it.
fn words(protocol: Protocol) -> (&'static str, u8) {
    match protocol {
        Protocol::Tcp => ("tcp", TCP),
        Protocol::Udp => ("udp", UDP),
    }
}

/// A number as nftables has them, in network byte order.
pub(super) fn big(message: Message, (kind, value): (u16, u32)) -> Message {
    message.bytes(kind, &value.to_be_bytes())
}
