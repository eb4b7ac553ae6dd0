//! What is kept and sent: MessagePack with the names of fields.
//!
//! It knows no type of the cluster. Start with [`encode`] and [`decode`]; what somebody else has sent
//! is read by [`decode_sent`].
//!
//! Fields that the reader does not know are skipped, and missing ones are the type's business. A
//! structure is read from a map alone, never from a list: fields have names. Written is by
//! `rmp-serde`; reading is done here, because that one reads each type as whatever the bytes are (a
//! number where a structure is wanted, a list of structures where bytes are), and its code for all
//! that is made anew for each of our few hundred types.
//!
//! Invariant: no bytes make the reader panic, or ask for memory that they do not fill. Those that are
//! sent ask for no more than [`SENT_FACTOR`] times as much as they are (and as much again while a list
//! grows), however small the elements of their lists are written.

mod read;
#[cfg(test)]
mod tests;
mod token;

use read::Reader;
use serde::{Deserialize, Serialize};

/// How deep values may lie in one another.
const DEPTH_MAX: u16 = 128;
/// What elements of lists and maps may take in memory, for each byte that is sent. What we send
/// ourselves has names of fields, and takes about as much as its bytes.
pub const SENT_FACTOR: usize = 4;
/// What they may take in any message.
const SENT_MIN: usize = 64 << 10;
/// An element counts for as much at least: something may stand behind a pointer in it.
const ELEMENT_MIN: usize = 32;

/// Why a value cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot be written as MessagePack: {0}")]
    Unwritable(#[from] rmp_serde::encode::Error),
    /// What the type says of it.
    #[error("{0}")]
    Refused(String),
    #[error("the bytes end before the value does")]
    Short,
    #[error("{0} bytes follow after the end of the value")]
    Trailing(usize),
    #[error("0x{0:02x} begins no value")]
    Marker(u8),
    #[error("a text is not UTF-8")]
    Text(#[from] std::str::Utf8Error),
    #[error("a list or map has {0} items too many")]
    Items(u32),
    #[error("the bytes are too few for so many elements of lists and maps")]
    Elements,
    #[error("values lie more than {DEPTH_MAX} deep in one another")]
    Depth,
}

impl serde::de::Error for Error {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::Refused(message.to_string())
    }
}

/// Writes a value.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    encode_into(&mut bytes, value)?;
    Ok(bytes)
}

/// Writes a value behind what is there.
pub fn encode_into<T: Serialize + ?Sized>(bytes: &mut Vec<u8>, value: &T) -> Result<(), Error> {
    Ok(rmp_serde::encode::write_named(bytes, value)?)
}

/// Reads a value of our own: all of the bytes.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Error> {
    read(bytes, usize::MAX)
}

/// Reads a value that somebody else has sent: all of the bytes. They are refused where they would take
/// many times as much memory as they are.
pub fn decode_sent<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Error> {
    read(bytes, SENT_MIN.saturating_add(bytes.len().saturating_mul(SENT_FACTOR)))
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8], allowance: usize) -> Result<T, Error> {
    let mut reader = Reader::new(bytes, allowance);
    let value = T::deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}
