//! Cuts output into lines.

use bytes::{Bytes, BytesMut};

/// A line that is longer is written in pieces, as with Docker.
const LINE_MAX: usize = 16 << 10;
/// A character of UTF-8 takes at most so much.
const CHARACTER_MAX: usize = 4;

/// Says whether more of the same line follows. Bytes that are no UTF-8 make a piece longer when it
/// is written, never shorter.
pub(super) fn is_piece(text: &[u8]) -> bool {
    LINE_MAX - CHARACTER_MAX < text.len() && !text.ends_with(b"\n")
}

/// Where a text that ends may be cut so that no character is.
fn whole_characters(text: &[u8]) -> usize {
    let tail = text.len().saturating_sub(CHARACTER_MAX - 1);
    let first = (tail..text.len()).rev().find(|at| text[*at] & 0xc0 != 0x80);
    let is_cut = |at: usize| {
        let length = match text[at] {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        text.len() - at < length
    };
    first.filter(|at| is_cut(*at)).unwrap_or(text.len())
}

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
            if end == Some(take) {
                lines.push(self.partial.split().freeze());
            } else if self.partial.len() == LINE_MAX {
                let whole = whole_characters(&self.partial);
                lines.push(self.partial.split_to(whole).freeze());
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
        assert!(pieces.iter().all(|piece| is_piece(piece)));
        let exact = [vec![b'y'; LINE_MAX - 1], vec![b'\n']].concat();
        assert_eq!(lines.feed(&exact).len(), 1);
    }

    #[test]
    fn a_long_line_is_not_cut_within_a_character() {
        for sign in ["ü", "€", "🐝"] {
            for before in 0..4 {
                let mut lines = Lines::default();
                let text = "x".repeat(before) + &sign.repeat(LINE_MAX / sign.len() + 4);
                let pieces = [lines.feed(text.as_bytes()), lines.feed(b"\n")].concat();
                assert!(is_piece(&pieces[0]) && !is_piece(&pieces[1]));
                let parts: Vec<&str> =
                    pieces.iter().map(|piece| std::str::from_utf8(piece).unwrap()).collect();
                assert_eq!(parts.concat(), text + "\n");
            }
        }
        // Bytes that are no characters are cut where the room ends.
        let mut lines = Lines::default();
        assert_eq!(lines.feed(&vec![0x80; LINE_MAX + 1])[0].len(), LINE_MAX);
        assert_eq!(lines.rest().unwrap().len(), 1);
    }
}
