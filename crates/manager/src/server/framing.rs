//! Where the messages of a call begin, in gRPC's frames: a byte of flags, a length, the message.

/// Before each message: a byte of flags, and its length.
const HEAD: usize = 5;

/// Where in a stream of messages its reader is.
#[derive(Debug, Default)]
pub(super) struct Reader {
    head: [u8; HEAD],
    /// Bytes of the head that were read.
    known: usize,
    /// Bytes of the present message that are still to come.
    rest: usize,
}

impl Reader {
    /// Reads on; the length of the longest message that begins in `data`.
    pub(super) fn pass(&mut self, mut data: &[u8]) -> Option<usize> {
        let mut longest = None;
        while !data.is_empty() {
            let (read, rest) = if self.rest > 0 {
                let (read, rest) = data.split_at(self.rest.min(data.len()));
                self.rest -= read.len();
                (read, rest)
            } else {
                let (read, rest) = data.split_at((HEAD - self.known).min(data.len()));
                self.head[self.known..][..read.len()].copy_from_slice(read);
                self.known += read.len();
                (read, rest)
            };
            if self.known == HEAD {
                let [_, a, b, c, d] = self.head;
                self.rest = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
                self.known = 0;
                longest = longest.max(Some(self.rest));
            }
            debug_assert!(!read.is_empty(), "each step reads something");
            data = rest;
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_however_the_bytes_are_cut() {
        let message = |len: u32| {
            let body = vec![7; usize::try_from(len).unwrap()];
            [[&[0][..], &len.to_be_bytes()].concat(), body].concat()
        };
        let all = [message(3), message(0), message(70_000), message(1)].concat();
        for cut in [1, 2, 4, 5, 7, 1000, all.len()] {
            let mut reader = Reader::default();
            let begun: Vec<usize> = all.chunks(cut).filter_map(|data| reader.pass(data)).collect();
            assert_eq!(begun.iter().max(), Some(&70_000), "cut at {cut}");
            assert_eq!((reader.known, reader.rest), (0, 0));
            if cut == 1 {
                assert_eq!(begun, [3, 0, 70_000, 1]);
            }
        }
    }
}
