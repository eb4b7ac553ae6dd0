//! Named pipes between a process in a container and the engine.
//!
//! The engine opens both ends of each: so a restart of the engine is neither an end of file nor a
//! broken pipe for the container. The price is that the end of the output is not seen in the pipe;
//! it is known from the runtime, and then the rest is drained.

use crate::exec::Chunk;
use bytes::Bytes;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::Mode;
use std::io;
use std::path::Path;
use tokio::net::unix::pipe::{OpenOptions, Receiver, Sender};

/// What a pipe holds by default, pipe(7).
const READ: usize = 64 << 10;
/// What our pipes hold: containers go on for longer while nobody reads. It is the most that a
/// process may ask for without further rights.
pub(crate) const CAPACITY: i32 = 1 << 20;

/// Makes a pipe; one that is there is replaced.
pub(crate) fn make(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
    Ok(())
}

/// Opens a pipe to write to a process.
pub(crate) fn writer(path: &Path) -> io::Result<Sender> {
    OpenOptions::new().read_write(true).open_sender(path)
}

/// The output of a process.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: Receiver,
    stderr: Option<Receiver>,
    buffer: Vec<u8>,
}

impl Output {
    /// Opens the pipes to read from.
    pub(crate) fn open(stdout: &Path, stderr: Option<&Path>) -> io::Result<Self> {
        let open = |path: &Path| {
            let pipe = OpenOptions::new().read_write(true).open_receiver(path)?;
            if let Err(error) = fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(CAPACITY)) {
                tracing::debug!(path = %path.display(), %error, "a pipe stays small");
            }
            io::Result::Ok(pipe)
        };
        let stderr = stderr.map(open).transpose()?;
        Ok(Self { stdout: open(stdout)?, stderr, buffer: vec![0; READ] })
    }

    /// Waits for output. Loses nothing when it is dropped before it is ready.
    pub(crate) async fn next(&mut self) -> io::Result<Chunk> {
        loop {
            let stderr = tokio::select! {
                ready = self.stdout.readable() => ready.map(|()| false)?,
                ready = readable(self.stderr.as_ref()) => ready.map(|()| true)?,
            };
            let pipe = if stderr { self.stderr.as_ref() } else { Some(&self.stdout) };
            let Some(pipe) = pipe else { continue };
            match pipe.try_read(&mut self.buffer) {
                Ok(count) => return Ok(chunk(stderr, &self.buffer[..count])),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes what is in the pipes right now; `None` when they are empty.
    pub(crate) fn take(&mut self) -> Option<Chunk> {
        // The kernel is asked itself: what tokio knows of readiness may be older.
        let mut read = |pipe: &Receiver, stderr| match nix::unistd::read(pipe, &mut self.buffer) {
            Ok(count) if 0 < count => Some(chunk(stderr, &self.buffer[..count])),
            _ => None,
        };
        let first = read(&self.stdout, false);
        first.or_else(|| self.stderr.as_ref().and_then(|pipe| read(pipe, true)))
    }
}

async fn readable(pipe: Option<&Receiver>) -> io::Result<()> {
    match pipe {
        Some(pipe) => pipe.readable().await,
        None => std::future::pending().await,
    }
}

fn chunk(stderr: bool, bytes: &[u8]) -> Chunk {
    Chunk { stderr, bytes: Bytes::copy_from_slice(bytes) }
}

/// Writes all of it, as fast as the process reads.
pub(crate) async fn write_all(pipe: &Sender, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        pipe.writable().await?;
        match pipe.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_written_before_the_end_is_drained() {
        let dir = tempfile::tempdir().unwrap();
        let (out, err) = (dir.path().join("out"), dir.path().join("err"));
        make(&out).unwrap();
        make(&err).unwrap();
        let mut output = Output::open(&out, Some(&err)).unwrap();
        let write = |path: &Path, text: &str| std::fs::write(path, text).unwrap();
        write(&out, "one");
        assert_eq!(output.next().await.unwrap(), chunk(false, b"one"));
        write(&err, "two");
        write(&out, "three");
        assert_eq!(output.take(), Some(chunk(false, b"three")));
        assert_eq!(output.take(), Some(chunk(true, b"two")));
        assert_eq!(output.take(), None);
    }
}
