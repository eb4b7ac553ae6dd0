//! News of nftables: which tables a transaction touched, whoever made it.

use super::message::Received;
use super::{Socket, generation};
use crate::error::Error;

/// The group of the kernel's notes about nftables.
const GROUP: u32 = 7;
const SUBSYSTEM: u16 = 10;
const NEW_ELEMENTS: u8 = 12;
const DELETE_ELEMENTS: u8 = 14;
const NEW_GENERATION: u8 = 15;
/// The table's name is the first attribute of every note but that of the generation.
const TABLE: u16 = 1;
const GENERATION: u16 = 1;
/// `struct nfgenmsg`
const FIXED: usize = 4;

/// What one transaction did, or what several did of which notes were lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// `None`: some notes were lost.
    pub(crate) generation: Option<u32>,
    /// It touched the table that is watched.
    pub(crate) inside: bool,
    /// It touched chains or rules of another table.
    pub(crate) outside: bool,
}

/// Hears of transactions in the namespace where it was opened.
#[derive(Debug)]
pub(crate) struct Watch {
    socket: Socket,
    table: &'static str,
    seen: News,
}

impl Watch {
    /// Opens one for a table, of whatever family.
    pub(crate) fn open(table: &'static str) -> Result<Self, Error> {
        let mut socket = Socket::netfilter()?;
        // The kernel tells nothing to a socket without an address, and gives it one with the first
        // question.
        generation(&mut socket)?;
        socket.join(GROUP)?;
        Ok(Self { socket, table, seen: News::default() })
    }

    /// Waits for transactions, but not for ever.
    pub(crate) fn wait(&mut self) -> Result<Vec<News>, Error> {
        let Some(notes) = self.socket.listen()? else {
            // More was said than fits: anything may have happened.
            self.seen = News::default();
            return Ok(vec![News { generation: None, inside: true, outside: true }]);
        };
        let mut over = Vec::new();
        for note in notes {
            let [subsystem, kind] = note.kind.to_be_bytes();
            if u16::from(subsystem) != SUBSYSTEM {
                continue;
            }
            if kind == NEW_GENERATION {
                let generation = number(&note);
                over.push(News { generation, ..std::mem::take(&mut self.seen) });
            } else if note.attributes(FIXED).find_text(TABLE).as_deref() == Some(self.table) {
                self.seen.inside = true;
            } else if kind != NEW_ELEMENTS && kind != DELETE_ELEMENTS {
                self.seen.outside = true;
            }
        }
        Ok(over)
    }
}

fn number(note: &Received) -> Option<u32> {
    let bytes = note.attributes(FIXED).find(GENERATION)?;
    bytes.try_into().ok().map(u32::from_be_bytes)
}
