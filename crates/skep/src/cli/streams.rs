//! Streams of the API: logs and output of processes, framed or raw.

use anyhow::Result;
use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use std::io::{ErrorKind, Write};

/// Bytes of a frame's head: stream, three zeroes, length.
const HEAD: usize = 8;
/// The longest frame that is believed.
const FRAME_MAX: usize = 16 << 20;

/// Takes frames apart.
#[derive(Default)]
pub(crate) struct Frames {
    bytes: BytesMut,
}

impl Frames {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame: whether it is of stderr, and what it holds.
    pub(crate) fn next(&mut self) -> Result<Option<(bool, BytesMut)>> {
        let Some(head) = self.bytes.first_chunk::<HEAD>() else { return Ok(None) };
        let [stream, _, _, _, length @ ..] = *head;
        let length = usize::try_from(u32::from_be_bytes(length))?;
        anyhow::ensure!(length <= FRAME_MAX && stream <= 3, "the daemon's stream is broken");
        if self.bytes.len() < HEAD + length {
            return Ok(None);
        }
        self.bytes.advance(HEAD);
        Ok(Some((stream >= 2, self.bytes.split_to(length))))
    }
}

/// Says whether an answer is framed, or a terminal's raw bytes.
pub(crate) fn framed(answer: &Response<Incoming>) -> bool {
    let kind = answer.headers().get(hyper::header::CONTENT_TYPE);
    kind.is_none_or(|kind| kind != "application/vnd.docker.raw-stream")
}

/// Hands every piece of an answer to `write`, with whether it is of stderr.
pub(crate) async fn follow(
    answer: Response<Incoming>,
    mut write: impl FnMut(bool, &[u8]) -> Result<()>,
) -> Result<()> {
    let raw = !framed(&answer);
    let mut body = answer.into_body();
    let mut frames = Frames::default();
    while let Some(part) = body.frame().await {
        let Ok(data) = part?.into_data() else { continue };
        if raw {
            write(false, &data)?;
            continue;
        }
        frames.push(&data);
        while let Some((stderr, piece)) = frames.next()? {
            write(stderr, &piece)?;
        }
    }
    Ok(())
}

/// Writes to standard output or standard error at once. Whoever closed it wants no more, and no
/// complaint.
pub(crate) fn emit(stderr: bool, bytes: &[u8]) -> Result<()> {
    let written = if stderr {
        let mut out = std::io::stderr().lock();
        out.write_all(bytes).and_then(|()| out.flush())
    } else {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush())
    };
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(super::Silent.into()),
        written => Ok(written?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_apart_wherever_they_were_cut() {
        let mut bytes = vec![1, 0, 0, 0, 0, 0, 0, 2, b'h', b'i'];
        bytes.extend([2, 0, 0, 0, 0, 0, 0, 1, b'!', 1, 0, 0, 0, 0, 0, 0, 0]);
        for cut in 0..bytes.len() {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                frames.push(part);
                while let Some((stderr, piece)) = frames.next().unwrap() {
                    seen.push((stderr, piece.to_vec()));
                }
            }
            let wanted = [(false, b"hi".to_vec()), (true, b"!".to_vec()), (false, Vec::new())];
            assert_eq!(seen, wanted, "{cut}");
        }
    }

    #[test]
    fn a_broken_stream_is_an_error() {
        let mut frames = Frames::default();
        frames.push(b"HTTP/1.1 200 OK");
        assert!(frames.next().is_err());
    }
}
