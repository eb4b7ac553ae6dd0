//! Messages as bytes: a header, a fixed part, attributes (type, length, value, padded to four).

use std::net::Ipv4Addr;

/// The length of a message's header.
pub(crate) const HEADER: usize = 16;

pub(crate) const REQUEST: u16 = 0x01;
pub(crate) const ACK: u16 = 0x04;
pub(crate) const REPLACE: u16 = 0x100;
pub(crate) const EXCLUSIVE: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;
pub(crate) const DUMP: u16 = 0x300;

const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// A request, and in words what it is for.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) doing: String,
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    /// An error that is as good as success, e.g. "there is none" for a removal.
    pub(crate) tolerated: &'static [i32],
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// Starts a request; `doing` completes the sentence "cannot …".
    pub(crate) fn new(doing: impl Into<String>, kind: u16, flags: u16) -> Self {
        Self { doing: doing.into(), kind, flags, tolerated: &[], body: Vec::with_capacity(128) }
    }

    pub(crate) fn tolerating(mut self, errors: &'static [i32]) -> Self {
        self.tolerated = errors;
        self
    }

    pub(crate) fn with_flags(mut self, flags: u16) -> Self {
        self.flags |= flags;
        self
    }

    /// Appends the fixed part.
    pub(crate) fn fixed(mut self, bytes: &[u8]) -> Self {
        self.body.extend_from_slice(bytes);
        self.pad();
        self
    }

    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.body.extend_from_slice(&length.to_ne_bytes());
        self.body.extend_from_slice(&kind.to_ne_bytes());
        self.body.extend_from_slice(value);
        self.pad();
        self
    }

    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub(crate) fn byte(self, kind: u16, value: u8) -> Self {
        self.bytes(kind, &[value])
    }

    pub(crate) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// A port: the one thing in rtnetlink that is in network byte order.
    pub(crate) fn port(self, kind: u16, value: u16) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn address(self, kind: u16, value: Ipv4Addr) -> Self {
        self.bytes(kind, &value.octets())
    }

    /// Attributes inside an attribute.
    pub(crate) fn nest(mut self, kind: u16, inner: impl FnOnce(Self) -> Self) -> Self {
        let start = self.body.len();
        self.body.extend_from_slice(&[0; 4]);
        let mut whole = inner(self);
        let length = u16::try_from(whole.body.len() - start).unwrap_or(u16::MAX);
        whole.body[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        whole.body[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
        whole
    }

    /// Appends the message as the kernel wants it.
    pub(crate) fn write(&self, sequence: u32, out: &mut Vec<u8>) {
        let length = u32::try_from(HEADER + self.body.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_ne_bytes());
        out.extend_from_slice(&self.kind.to_ne_bytes());
        out.extend_from_slice(&self.flags.to_ne_bytes());
        out.extend_from_slice(&sequence.to_ne_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.body);
        while !out.len().is_multiple_of(4) {
            out.push(0);
        }
    }

    fn pad(&mut self) {
        while !self.body.len().is_multiple_of(4) {
            self.body.push(0);
        }
    }
}

/// A message from the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) body: Vec<u8>,
}

impl Received {
    /// Splits what one read returned into messages. What is cut off is left out.
    pub(crate) fn split(mut bytes: &[u8]) -> Vec<Self> {
        let mut messages = Vec::new();
        while let Some(header) = bytes.get(..HEADER) {
            let length = usize::try_from(u32_at(header, 0)).unwrap_or(usize::MAX);
            let Some(body) = bytes.get(HEADER..length) else { break };
            messages.push(Self {
                kind: u16_at(header, 4),
                flags: u16_at(header, 6),
                sequence: u32_at(header, 8),
                body: body.to_vec(),
            });
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        messages
    }

    /// The attributes after a fixed part of `fixed` bytes.
    pub(crate) fn attributes(&self, fixed: usize) -> Attributes<'_> {
        Attributes(self.body.get(fixed..).unwrap_or_default())
    }
}

/// Attributes, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.0.get(..4)?;
        let length = usize::from(u16_at(header, 0));
        let value = self.0.get(4..length)?;
        let kind = u16_at(header, 2) & TYPE_MASK;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

impl<'a> Attributes<'a> {
    /// The value of the first attribute of this kind.
    pub(crate) fn find(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone().find_map(|(found, value)| (found == kind).then_some(value))
    }

    pub(crate) fn find_nested(&self, kind: u16) -> Option<Attributes<'a>> {
        self.find(kind).map(Attributes)
    }

    pub(crate) fn find_number(&self, kind: u16) -> Option<u32> {
        self.find(kind)?.try_into().ok().map(u32::from_ne_bytes)
    }

    pub(crate) fn find_port(&self, kind: u16) -> Option<u16> {
        self.find(kind)?.try_into().ok().map(u16::from_be_bytes)
    }

    pub(crate) fn find_byte(&self, kind: u16) -> Option<u8> {
        self.find(kind)?.first().copied()
    }

    pub(crate) fn find_address(&self, kind: u16) -> Option<Ipv4Addr> {
        let bytes: [u8; 4] = self.find(kind)?.try_into().ok()?;
        Some(bytes.into())
    }

    pub(crate) fn find_text(&self, kind: u16) -> Option<String> {
        let bytes = self.find(kind)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }
}

/// Reads a number of the host's byte order; 0 where there are no four bytes.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    four.map(u32::from_ne_bytes).unwrap_or_default()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let two = bytes.get(at..at + 2).and_then(|bytes| bytes.try_into().ok());
    two.map(u16::from_ne_bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let message = Message::new("try", 16, REQUEST)
            .fixed(&[1; 16])
            .text(3, "eth0")
            .nest(18, |inner| inner.text(1, "veth").nest(2, |data| data.number(7, 1450)));
        let mut bytes = Vec::new();
        message.write(5, &mut bytes);
        message.write(6, &mut bytes);
        let read = Received::split(&bytes);
        assert_eq!(read.iter().map(|message| message.sequence).collect::<Vec<_>>(), [5, 6]);
        let attributes = read[0].attributes(16);
        assert_eq!(attributes.find_text(3).as_deref(), Some("eth0"));
        let info = attributes.find_nested(18).unwrap();
        assert_eq!(info.find_nested(2).unwrap().find_number(7), Some(1450));
        assert_eq!(info.find_number(9), None);
    }

    #[test]
    fn cut_off_messages_are_left_out() {
        let mut bytes = Vec::new();
        Message::new("try", 16, REQUEST).fixed(&[1; 16]).write(5, &mut bytes);
        assert!(Received::split(&bytes[..20]).is_empty());
        assert!(Received::split(&[3; 7]).is_empty());
        assert!(Attributes(&[200, 0, 1, 0, 5]).next().is_none());
        assert!(Attributes(&[0, 0, 1, 0, 5]).next().is_none());
    }
}
