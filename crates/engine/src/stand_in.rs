//! Keeps containers from waiting while no engine runs: their output is put aside.
//!
//! A process that outlives the daemon calls [`stand_in`]. Whose turn it is to read the FIFOs is told by
//! two file locks, which the kernel releases when their holder dies, however it dies: whoever has
//! `turn` reads; an engine that starts holds `next` while it waits for its turn. What was put aside
//! is taken over by the next engine before it reads on ([`take`]).
//!
//! Invariant: of each stream at most [`STREAM_MAX`] is put aside, and at most [`ALL_MAX`] of all of
//! them, which are in memory: the run directory is a tmpfs. What comes later is lost, because a
//! container must go on. So is what further processes write: who had asked for them has gone.

use nix::fcntl::{Flock, FlockArg};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Bytes of one stream, and of all streams of a node.
const STREAM_MAX: u64 = 4 << 20;
const ALL_MAX: u64 = 32 << 20;
/// How often FIFOs are looked at while no engine runs. A FIFO takes [`crate::fifo::CAPACITY`]
/// meanwhile.
const PAUSE: Duration = Duration::from_millis(20);
/// An engine does not wait longer for its turn.
const TURN_MAX: Duration = Duration::from_secs(3);
const READ: usize = 64 << 10;
/// What a FIFO's name ends with where its output is kept.
const ASIDE: &str = "aside";
/// Output is for root alone, and so are locks, which whoever may open them may hold.
const PRIVATE: u32 = 0o600;

/// The right to read the FIFOs.
pub(crate) type ReaderLock = Flock<File>;

/// What a thread has to run to stand in for the engine whose `Config::run` this is, whenever it does
/// not run. It does not end.
pub fn stand_in(run: PathBuf) -> io::Result<impl FnOnce() + Send> {
    let (turn, next) = paths(&run);
    // Opened once to find out here whether they can be.
    drop((lock_file(&turn)?, lock_file(&next)?));
    Ok(move || {
        loop {
            if let Err(error) = stand_in_once(&run, &turn, &next) {
                tracing::error!(%error, "output of containers is not put aside");
                thread::sleep(TURN_MAX);
            }
        }
    })
}

/// Waits until no engine runs, reads in its place, and makes room for the next one.
fn stand_in_once(run: &Path, turn: &Path, next: &Path) -> io::Result<()> {
    let held = lock(turn)?;
    let Found { mut streams, aside } = find(run);
    let mut left = ALL_MAX.saturating_sub(aside);
    // One for all: most have nothing to say at most looks.
    let mut buffer = vec![0; READ];
    loop {
        // Asked first: what was written before an engine came is read.
        let ends = is_locked(next)?;
        streams.retain(|path, fifo| match put_aside(path, fifo, &mut buffer, &mut left) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "output is not put aside");
                false
            }
        });
        if ends {
            break;
        }
        thread::sleep(PAUSE);
    }
    drop(held);
    // The engine has its turn when it gives this back.
    lock(next).map(drop)
}

/// What is in the run directory.
struct Found {
    streams: BTreeMap<PathBuf, File>,
    /// Bytes that were put aside before.
    aside: u64,
}

/// Opens the FIFOs that are there. Without an engine, there will be no more.
fn find(run: &Path) -> Found {
    let folders = fs::read_dir(run).into_iter().flatten().flatten();
    let entries = folders.flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten());
    let mut found = Found { streams: BTreeMap::new(), aside: 0 };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let is_fifo = entry.file_type().is_ok_and(|kind| kind.is_fifo());
        let output = [&b"stdout"[..], b"stderr"];
        if is_fifo && output.iter().any(|end| name.as_encoded_bytes().ends_with(end)) {
            let mut options = OpenOptions::new();
            // For reading alone, the end of its writers would be an end of file.
            options.read(true).write(true).custom_flags(nix::libc::O_NONBLOCK);
            match options.open(&path) {
                Ok(fifo) => drop(found.streams.insert(path, fifo)),
                Err(error) => tracing::warn!(path = %path.display(), %error, "cannot open output"),
            }
        } else if path.extension().is_some_and(|extension| extension == ASIDE) {
            found.aside += entry.metadata().map_or(0, |file| file.len());
        }
    }
    found
}

/// Reads what there is, and keeps as much as may be; `left`: of all streams together.
fn put_aside(path: &Path, fifo: &mut File, buffer: &mut [u8], left: &mut u64) -> io::Result<()> {
    let is_containers_own = path.ends_with("stdout") || path.ends_with("stderr");
    loop {
        let count = match fifo.read(buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        if !is_containers_own {
            continue;
        }
        let mut file =
            OpenOptions::new().create(true).append(true).mode(PRIVATE).open(aside(path))?;
        let kept = STREAM_MAX.saturating_sub(file.metadata()?.len()).min(*left);
        let kept = usize::try_from(kept).unwrap_or(usize::MAX).min(count);
        *left = left.saturating_sub(kept.try_into().unwrap_or(u64::MAX));
        // Without room, also on the disk, it is lost: the container must go on.
        if let Err(error) = file.write_all(&buffer[..kept]) {
            tracing::debug!(path = %path.display(), %error, "output is lost");
        }
    }
}

fn aside(fifo: &Path) -> PathBuf {
    fifo.with_extension(ASIDE)
}

/// What was put aside of a stream. It is gone after this.
pub(crate) fn take(fifo: &Path) -> io::Result<Vec<u8>> {
    let path = aside(fifo);
    match fs::read(&path) {
        Ok(text) => fs::remove_file(&path).map(|()| text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Waits for the turn of an engine that starts. `None` when it does not come: then the engine
/// reads all the same.
pub(crate) fn turn(run: &Path) -> io::Result<Option<ReaderLock>> {
    let (turn, next) = paths(run);
    let mut waiting = None;
    let mut waited = Duration::ZERO;
    while waited < TURN_MAX {
        // Two engines that start at once take turns, too.
        if waiting.is_none() {
            waiting = try_lock(&next)?;
        }
        if waiting.is_some()
            && let Some(turn) = try_lock(&turn)?
        {
            return Ok(Some(turn));
        }
        thread::sleep(PAUSE);
        waited += PAUSE;
    }
    Ok(None)
}

/// Beside the directory, not in it.
fn paths(run: &Path) -> (PathBuf, PathBuf) {
    (run.with_extension("turn"), run.with_extension("next"))
}

fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(PRIVATE).open(path)
}

fn lock(path: &Path) -> io::Result<ReaderLock> {
    Flock::lock(lock_file(path)?, FlockArg::LockExclusive).map_err(|(_, error)| error.into())
}

fn try_lock(path: &Path) -> io::Result<Option<ReaderLock>> {
    match Flock::lock(lock_file(path)?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error.into()),
    }
}

fn is_locked(path: &Path) -> io::Result<bool> {
    Ok(try_lock(path)?.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fifo;
    use std::os::unix::fs::PermissionsExt;

    /// Polls until something is so.
    fn eventually(mut so: impl FnMut() -> bool) {
        for _ in 0..1000 {
            if so() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("it takes too long");
    }

    #[test]
    fn output_is_put_aside_only_while_no_engine_has_its_turn() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("containers");
        fs::create_dir_all(run.join("one")).unwrap();
        let path = run.join("one/stdout");
        fifo::make(&path).unwrap();
        thread::spawn(stand_in(run.clone()).unwrap());
        // Whether the stand-in was first or not.
        let first = turn(&run).unwrap().unwrap();
        let mut engine = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        engine.write_all(b"mine").unwrap();
        let mut read = [0; 4];
        engine.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"mine");
        drop(first);
        engine.write_all(b"while nobody ran").unwrap();
        eventually(|| aside(&path).metadata().is_ok_and(|file| file.len() == 16));
        for path in [aside(&path), paths(&run).0] {
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, PRIVATE);
        }
        let second = turn(&run).unwrap().unwrap();
        assert_eq!(take(&path).unwrap(), b"while nobody ran");
        assert!(take(&path).unwrap().is_empty());
        assert!(turn(&run).unwrap().is_none(), "there is one turn only");
        drop(second);
        // The stand-in's thread ends with the test's process; it must not see the folder go.
        let _last = turn(&run).unwrap().unwrap();
    }

    /// A stream of a container, with this in it.
    fn stream(run: &Path, name: &str, bytes: &[u8]) -> (PathBuf, File) {
        let path = run.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fifo::make(&path).unwrap();
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(nix::libc::O_NONBLOCK);
        let mut file = options.open(&path).unwrap();
        file.write_all(bytes).unwrap();
        (path, file)
    }

    #[test]
    fn what_is_put_aside_is_bounded_over_all_streams_and_nobody_waits() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path();
        fs::create_dir_all(run.join("zero")).unwrap();
        fs::write(run.join("zero/stdout.aside"), "of before").unwrap();
        let mut ends = Vec::new();
        for name in ["one/stdout", "one/stderr", "two/stdout"] {
            ends.push(stream(run, name, b"12345678"));
        }
        let Found { streams, aside: before } = find(run);
        assert_eq!((streams.len(), before), (3, 9));
        let mut left = 20;
        for (path, mut fifo) in streams {
            put_aside(&path, &mut fifo, &mut vec![0; READ], &mut left).unwrap();
        }
        let kept: usize = ends.iter().map(|(path, _)| take(path).unwrap().len()).sum();
        assert_eq!((kept, left), (20, 0));
        for (path, mut fifo) in ends {
            let read = fifo.read(&mut [0; 8]).unwrap_err();
            assert_eq!(read.kind(), io::ErrorKind::WouldBlock, "{} waits", path.display());
        }
    }

    #[test]
    fn what_a_further_process_writes_is_read_and_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (path, mut fifo) = stream(dir.path(), "one/0123-stdout", b"for nobody");
        let mut left = ALL_MAX;
        put_aside(&path, &mut fifo, &mut vec![0; READ], &mut left).unwrap();
        assert_eq!(fifo.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(!aside(&path).exists());
    }
}
