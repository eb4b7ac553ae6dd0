//! Bytes as tokens: what stands alone, and what begins a list or a map.

use crate::Error;
use serde::de::Unexpected;

/// The next thing that the bytes say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    /// So many items follow.
    List(u32),
    /// So many pairs of key and value follow.
    Map(u32),
}

impl<'a> Token<'a> {
    /// As `serde` calls it, where something else was wanted.
    pub(crate) fn unexpected(self) -> Unexpected<'a> {
        match self {
            Self::Nil => Unexpected::Unit,
            Self::Bool(value) => Unexpected::Bool(value),
            Self::Unsigned(value) => Unexpected::Unsigned(value),
            Self::Signed(value) => Unexpected::Signed(value),
            Self::Float(value) => Unexpected::Float(value),
            Self::Text(value) => Unexpected::Str(value),
            Self::Bytes(value) => Unexpected::Bytes(value),
            Self::List(_) => Unexpected::Seq,
            Self::Map(_) => Unexpected::Map,
        }
    }

    /// Takes the next token off the bytes.
    pub(crate) fn take(bytes: &mut &'a [u8]) -> Result<Self, Error> {
        let [marker] = array(bytes)?;
        Ok(match marker {
            0x00..=0x7f => Self::Unsigned(marker.into()),
            0x80..=0x8f => Self::Map((marker & 0x0f).into()),
            0x90..=0x9f => Self::List((marker & 0x0f).into()),
            0xa0..=0xbf => text(slice(bytes, (marker & 0x1f).into())?)?,
            0xc0 => Self::Nil,
            0xc2 => Self::Bool(false),
            0xc3 => Self::Bool(true),
            0xc4 => Self::Bytes(sized(bytes, one)?),
            0xc5 => Self::Bytes(sized(bytes, two)?),
            0xc6 => Self::Bytes(sized(bytes, four)?),
            0xca => Self::Float(f32::from_be_bytes(array(bytes)?).into()),
            0xcb => Self::Float(f64::from_be_bytes(array(bytes)?)),
            0xcc => Self::Unsigned(one(bytes)?.into()),
            0xcd => Self::Unsigned(two(bytes)?.into()),
            0xce => Self::Unsigned(four(bytes)?.into()),
            0xcf => Self::Unsigned(u64::from_be_bytes(array(bytes)?)),
            0xd0 => Self::Signed(i8::from_be_bytes(array(bytes)?).into()),
            0xd1 => Self::Signed(i16::from_be_bytes(array(bytes)?).into()),
            0xd2 => Self::Signed(i32::from_be_bytes(array(bytes)?).into()),
            0xd3 => Self::Signed(i64::from_be_bytes(array(bytes)?)),
            0xd9 => text(sized(bytes, one)?)?,
            0xda => text(sized(bytes, two)?)?,
            0xdb => text(sized(bytes, four)?)?,
            0xdc => Self::List(two(bytes)?),
            0xdd => Self::List(four(bytes)?),
            0xde => Self::Map(two(bytes)?),
            0xdf => Self::Map(four(bytes)?),
            0xe0..=0xff => Self::Signed(i8::from_be_bytes([marker]).into()),
            // Kinds of an application's own, which we never write, and one that is never used.
            0xc1 | 0xc7..=0xc9 | 0xd4..=0xd8 => return Err(Error::Marker(marker)),
        })
    }
}

fn array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Error> {
    let (first, rest) = bytes.split_first_chunk().ok_or(Error::Short)?;
    *bytes = rest;
    Ok(*first)
}

fn one(bytes: &mut &[u8]) -> Result<u32, Error> {
    Ok(u8::from_be_bytes(array(bytes)?).into())
}

fn two(bytes: &mut &[u8]) -> Result<u32, Error> {
    Ok(u16::from_be_bytes(array(bytes)?).into())
}

fn four(bytes: &mut &[u8]) -> Result<u32, Error> {
    Ok(u32::from_be_bytes(array(bytes)?))
}

fn slice<'a>(bytes: &mut &'a [u8], len: u32) -> Result<&'a [u8], Error> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    bytes.split_off(..len).ok_or(Error::Short)
}

/// So many bytes as stands before them.
fn sized<'a>(
    bytes: &mut &'a [u8],
    len: fn(&mut &'a [u8]) -> Result<u32, Error>,
) -> Result<&'a [u8], Error> {
    let len = len(bytes)?;
    slice(bytes, len)
}

fn text(bytes: &[u8]) -> Result<Token<'_>, Error> {
    Ok(Token::Text(str::from_utf8(bytes)?))
}
