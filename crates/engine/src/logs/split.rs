//! Cuts output into lines.

use bytes::{Bytes, BytesMut};

/// A line that is longer comes in pieces, as with Docker.
const LINE_MAX: usize = 16 << 10;

/// The part of a line that has come so far.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    partial: BytesMut,
}

impl Lines {
    /// Takes output and gives the lines that are whole, with their ends.
    pub(crate) fn feed(&mut self, mut output: &[u8]) -> Vec<Bytes> {
        let mut lines = Vec::new();
        while !output.is_empty() {
            let room = LINE_MAX - self.partial.len();
            let end = output.iter().position(|byte| *byte == b'\n').map(|index| index + 1);
            let take = end.unwrap_or(output.len()).min(room);
            let (head, rest) = output.split_at(take);
            self.partial.extend_from_slice(head);
            output = rest;
            if end == Some(take) || self.partial.len() == LINE_MAX {
                lines.push(self.partial.split().freeze());
            }
        }
        lines
    }

    /// Gives what has come of a line that will not be ended.
    pub(crate) fn rest(&mut self) -> Option<Bytes> {
        Some(self.partial.split().freeze()).filter(|rest| !rest.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_from_pieces() {
        let mut lines = Lines::default();
        assert!(lines.feed(b"on").is_empty());
        assert_eq!(lines.feed(b"e\ntwo\n\nth"), ["one\n", "two\n", "\n"]);
        assert_eq!(lines.rest().unwrap(), "th");
        assert_eq!(lines.rest(), None);
    }

    #[test]
    fn a_line_without_end_comes_in_bounded_pieces() {
        let mut lines = Lines::default();
        let long = vec![b'x'; 2 * LINE_MAX + 5];
        let pieces = lines.feed(&long);
        assert_eq!(pieces.iter().map(Bytes::len).collect::<Vec<_>>(), [LINE_MAX, LINE_MAX]);
        assert_eq!(lines.feed(b"\n")[0].len(), 6);
        let exact = [vec![b'y'; LINE_MAX - 1], vec![b'\n']].concat();
        assert_eq!(lines.feed(&exact).len(), 1);
    }
}
