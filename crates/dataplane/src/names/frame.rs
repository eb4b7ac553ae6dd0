//! Messages on a socket: MessagePack with names, behind their length.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The largest message. What a manager pushes has the same limit.
pub(super) const FRAME_MAX: usize = 64 << 20;
/// Read at once, so that a length alone takes no memory.
const PIECE: usize = 64 << 10;

/// Reads one message; none when the other end is done. Not cancel-safe.
pub(super) async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<T>> {
    let len = match stream.read_u32().await {
        Ok(len) => usize::try_from(len).map_err(io::Error::other)?,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if len > FRAME_MAX {
        let text = format!("a message of {len} bytes is longer than {FRAME_MAX}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let start = bytes.len();
        bytes.resize(len.min(start + PIECE), 0);
        stream.read_exact(&mut bytes[start..]).await?;
    }
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    msgpack::decode(&bytes).map(Some).map_err(invalid)
}

/// Writes one message. Not cancel-safe.
pub(super) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> io::Result<()> {
    let mut bytes = vec![0; size_of::<u32>()];
    msgpack::encode_into(&mut bytes, message).map_err(io::Error::other)?;
    let len = bytes.len() - size_of::<u32>();
    if len > FRAME_MAX {
        let text = format!("a message of {len} bytes is longer than {FRAME_MAX}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let len = u32::try_from(len).map_err(io::Error::other)?;
    bytes[..size_of::<u32>()].copy_from_slice(&len.to_be_bytes());
    stream.write_all(&bytes).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_is_read() {
        let mut wire = Vec::new();
        let long = "a".repeat(3 * PIECE + 1);
        write(&mut wire, &("short", 1)).await.unwrap();
        write(&mut wire, &(&long, 2)).await.unwrap();
        let mut wire = wire.as_slice();
        assert_eq!(read(&mut wire).await.unwrap(), Some(("short".to_owned(), 1)));
        assert_eq!(read(&mut wire).await.unwrap(), Some((long, 2)));
        assert_eq!(read::<String>(&mut wire).await.unwrap(), None);
    }

    #[tokio::test]
    async fn too_long_cut_and_garbled_messages_are_refused() {
        let too_long: &[u8] = &(64_u32 << 20).wrapping_add(1).to_be_bytes();
        for mut wire in [too_long, b"\0\0\0\x05\xa4abc", b"\0\0\0\x01\xc1"] {
            assert!(read::<String>(&mut wire).await.is_err(), "{wire:?}");
        }
    }
}
