//! DNS messages: from a packet to the question, from the answer to a packet (RFC 1035, 6891).

use discovery::{Answer, Kind, Question, TTL, Zone, answer};
use domain::base::iana::{Class, Opcode, OptRcode, Rcode};
use domain::base::message_builder::{AnswerBuilder, PushError};
use domain::base::name::{Name, ParsedName, ToLabelIter};
use domain::base::{Message, MessageBuilder, Rtype, StaticCompressor};
use domain::rdata::{A, Aaaa, Ptr};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The largest query that is read. Real ones have less than 300 bytes.
pub(crate) const QUERY_MAX: usize = 4096;
/// The largest answer by UDP to who can take it. The server is on the same machine, so no network
/// fragments it.
const PAYLOAD_MAX: u16 = 4096;
/// The largest answer to who does not say otherwise (RFC 1035, 4.2.1).
const PAYLOAD_PLAIN: u16 = 512;
/// The size of an OPT record without options.
const OPT_SIZE: usize = 11;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The reply is written.
    Reply,
    /// Ask upstream.
    Forward,
    /// Not even a header, or not a query: an answer could start a loop.
    Drop,
}

/// A well-formed query.
struct Query<'a> {
    message: &'a Message<[u8]>,
    question: domain::base::Question<ParsedName<&'a [u8]>>,
    edns: bool,
    /// The largest answer that its sender takes.
    limit: usize,
}

/// Answers a packet from a zone. `turn` counts up, so that answers of several addresses rotate.
pub(crate) fn respond(
    packet: &[u8],
    transport: Transport,
    zone: &Zone,
    turn: usize,
    out: &mut Vec<u8>,
) -> Verdict {
    let query = match read(packet, transport) {
        Ok(query) => query,
        Err(None) => return Verdict::Drop,
        Err(Some(rcode)) => return refuse(packet, rcode, out),
    };
    if query.question.qclass() != Class::IN {
        return refuse(packet, OptRcode::REFUSED, out);
    }
    let mut buffer = [0; 255];
    let Some(name) = text(query.question.qname(), &mut buffer) else {
        return Verdict::Forward;
    };
    let kind = match query.question.qtype() {
        Rtype::A => Kind::A,
        Rtype::AAAA => Kind::Aaaa,
        Rtype::PTR => Kind::Pointer,
        Rtype::ANY => Kind::Any,
        Rtype::AXFR | Rtype::IXFR => Kind::Transfer,
        _ => Kind::Other,
    };
    let written = match answer(zone, Question { name, kind }) {
        Answer::Addresses { v4, v6 } => addresses_reply(&query, (v4, v6), turn, out),
        Answer::Name(name) => name_reply(&query, name, out),
        Answer::NoData => write(&query, Rcode::NOERROR, out, |_| Ok(())),
        Answer::NxDomain => write(&query, Rcode::NXDOMAIN, out, |_| Ok(())),
        Answer::Refuse => write(&query, Rcode::REFUSED, out, |_| Ok(())),
        Answer::Fail => write(&query, Rcode::SERVFAIL, out, |_| Ok(())),
        Answer::Forward => return Verdict::Forward,
    };
    if written.is_err() {
        return refuse(packet, OptRcode::SERVFAIL, out);
    }
    Verdict::Reply
}

/// Writes an answer without records to a query, as far as it can be read.
pub(crate) fn refuse(packet: &[u8], rcode: OptRcode, out: &mut Vec<u8>) -> Verdict {
    let Ok(message) = Message::from_slice(packet) else { return Verdict::Drop };
    let target = StaticCompressor::new(std::mem::take(out));
    let Ok(builder) = MessageBuilder::from_target(target);
    let mut builder = builder.start_error(message, rcode.rcode());
    builder.header_mut().set_ra(true);
    let mut builder = builder.additional();
    if message.header_counts().arcount() != 0 && message.opt().is_some() {
        // Without room for it the answer goes without.
        let _ = builder.opt(|opt| {
            opt.set_udp_payload_size(PAYLOAD_MAX);
            opt.set_rcode(rcode);
            Ok(())
        });
    }
    *out = builder.finish().into_target();
    Verdict::Reply
}

/// Cuts an answer from upstream to what its asker can take.
pub(crate) fn fit(packet: &[u8], transport: Transport, reply: Vec<u8>) -> Vec<u8> {
    let limit = read(packet, transport).map_or(usize::from(PAYLOAD_PLAIN), |query| query.limit);
    if reply.len() <= limit {
        return reply;
    }
    let mut out = Vec::new();
    refuse(packet, OptRcode::NOERROR, &mut out);
    if let Some(header) = out.get_mut(2) {
        *header |= 0x02; // TC: ask again by TCP
    }
    out
}

/// Reads a query. An error is the code to answer with, or none if it deserves no answer.
fn read(packet: &[u8], transport: Transport) -> Result<Query<'_>, Option<OptRcode>> {
    let Ok(message) = Message::from_slice(packet) else { return Err(None) };
    if message.header().qr() {
        return Err(None);
    }
    if message.header().opcode() != Opcode::QUERY {
        return Err(Some(OptRcode::NOTIMP));
    }
    let malformed = Err(Some(OptRcode::FORMERR));
    let Ok(question) = message.sole_question() else { return malformed };
    let mut payload = None;
    if message.header_counts().arcount() != 0 {
        if message.additional().is_err() {
            return malformed;
        }
        if let Some(opt) = message.opt() {
            if opt.version() != 0 {
                return Err(Some(OptRcode::BADVERS));
            }
            payload = Some(opt.udp_payload_size());
        }
    }
    let limit = match transport {
        Transport::Udp => payload.unwrap_or(0).clamp(PAYLOAD_PLAIN, PAYLOAD_MAX),
        Transport::Tcp => u16::MAX,
    };
    Ok(Query { message, question, edns: payload.is_some(), limit: limit.into() })
}

/// Writes a name in lower case, without the dot at the end. A label that has a dot inside is no
/// name of ours.
fn text<'b>(name: &ParsedName<&[u8]>, buffer: &'b mut [u8; 255]) -> Option<&'b str> {
    let mut end = 0;
    for label in name.iter_labels() {
        let label = label.as_slice();
        if label.is_empty() {
            break;
        }
        if end != 0 {
            *buffer.get_mut(end)? = b'.';
            end += 1;
        }
        let target = buffer.get_mut(end..end + label.len())?;
        target.copy_from_slice(label);
        target.make_ascii_lowercase();
        if label.contains(&b'.') {
            return None;
        }
        end += label.len();
    }
    str::from_utf8(buffer.get(..end)?).ok()
}

type Builder = AnswerBuilder<StaticCompressor<Vec<u8>>>;

fn addresses_reply(
    query: &Query<'_>,
    (v4, v6): (&[Ipv4Addr], &[Ipv6Addr]),
    turn: usize,
    out: &mut Vec<u8>,
) -> Result<(), PushError> {
    let name = || query.question.qname();
    write(query, Rcode::NOERROR, out, |builder| {
        let mut fit = rotated(v4, turn).all(|it| builder.push((name(), TTL, A::new(*it))).is_ok());
        fit &= rotated(v6, turn).all(|it| builder.push((name(), TTL, Aaaa::new(*it))).is_ok());
        if !fit {
            // What fits is of use, but the asker must know that there is more.
            builder.header_mut().set_tc(true);
        }
        Ok(())
    })
}

fn rotated<A>(addresses: &[A], turn: usize) -> impl Iterator<Item = &A> {
    let (end, start) = addresses.split_at(turn.checked_rem(addresses.len()).unwrap_or(0));
    start.iter().chain(end)
}

fn name_reply(query: &Query<'_>, name: &str, out: &mut Vec<u8>) -> Result<(), PushError> {
    let Ok(name) = Name::<Vec<u8>>::from_str(name) else { return Err(PushError::ShortBuf) };
    write(query, Rcode::NOERROR, out, |builder| {
        builder.push((query.question.qname(), TTL, Ptr::new(name)))
    })
}

fn write(
    query: &Query<'_>,
    rcode: Rcode,
    out: &mut Vec<u8>,
    records: impl FnOnce(&mut Builder) -> Result<(), PushError>,
) -> Result<(), PushError> {
    let target = StaticCompressor::new(std::mem::take(out));
    let Ok(builder) = MessageBuilder::from_target(target);
    let mut builder = builder.start_answer(query.message, rcode)?;
    builder.set_push_limit(query.limit - if query.edns { OPT_SIZE } else { 0 });
    builder.header_mut().set_aa(true);
    builder.header_mut().set_ra(true);
    records(&mut builder)?;
    builder.clear_push_limit();
    let mut builder = builder.additional();
    if query.edns {
        builder.opt(|opt| {
            opt.set_udp_payload_size(PAYLOAD_MAX);
            Ok(())
        })?;
    }
    *out = builder.finish().into_target();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A question for web.example, with an OPT record that offers 1232 bytes.
    const QUERY: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\
        \x03web\x07example\x00\x00\x01\x00\x01\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";

    fn damaged() -> impl Strategy<Value = Vec<u8>> {
        let edits = proptest::collection::vec((0..QUERY.len(), any::<u8>()), 0..6);
        (edits, 0..=QUERY.len()).prop_map(|(edits, len)| {
            let mut packet = QUERY.to_vec();
            for (at, byte) in edits {
                packet[at] = byte;
            }
            packet.truncate(len);
            packet
        })
    }

    proptest! {
        #[test]
        fn any_packet_gets_a_small_answer_to_itself_or_none(
            packet in prop_oneof![proptest::collection::vec(any::<u8>(), 0..600), damaged()],
        ) {
            let mut out = Vec::new();
            match respond(&packet, Transport::Udp, &Zone::default(), 1, &mut out) {
                Verdict::Reply => {
                    let reply = Message::from_slice(&out).unwrap();
                    prop_assert!(reply.header().qr());
                    prop_assert_eq!(&out[..2], &packet[..2]);
                    prop_assert!(out.len() <= packet.len() + OPT_SIZE);
                }
                // Only what is well-formed goes upstream.
                Verdict::Forward => prop_assert!(read(&packet, Transport::Udp).is_ok()),
                Verdict::Drop => prop_assert!(packet.len() < 12 || packet[2] & 0x80 != 0),
            }
        }
    }

    #[test]
    fn an_upstream_answer_that_is_too_long_says_so() {
        let reply = fit(QUERY, Transport::Udp, vec![0; 1300]);
        let message = Message::from_slice(&reply).unwrap();
        assert!(message.header().tc() && message.header().id() == 0x1234);
        assert_eq!(fit(QUERY, Transport::Udp, vec![0; 1200]).len(), 1200);
        assert_eq!(fit(QUERY, Transport::Tcp, vec![0; 1300]).len(), 1300);
    }
}
