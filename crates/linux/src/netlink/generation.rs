//! The number of nftables transactions that a namespace has seen.

use super::Socket;
use super::message::Message;
use crate::error::Error;

/// Subsystem 10 (nftables), message 16 (NFT_MSG_GETGEN).
const SHOW_GENERATION: u16 = (10 << 8) | 16;
const ID: u16 = 1;
/// `struct nfgenmsg`
const FIXED: usize = 4;

/// Reads the generation of the rules in the socket's namespace: it rises by one with every
/// transaction, whoever makes it. So a change by somebody else is seen without reading any rule.
pub(crate) fn generation(socket: &mut Socket) -> Result<u32, Error> {
    let question =
        Message::new("ask for the generation of the rules", SHOW_GENERATION, 0).fixed(&[0; FIXED]);
    let answer = socket.ask(question)?;
    let id = answer.attributes(FIXED).find(ID).and_then(|bytes| bytes.try_into().ok());
    Ok(id.map(u32::from_be_bytes).unwrap_or_default())
}
