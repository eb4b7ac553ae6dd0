//! Streams that are put into a temporary file, and reading parts of it.

use crate::error::Error;
use crate::{free_space, oci};
use flate2::read::MultiGzDecoder;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

const COPY: usize = 1 << 20;

/// A range of the temporary file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

/// Puts a stream into a temporary file without a name, unpacked where it was gzip.
pub(crate) async fn spool<R>(mut stream: R, directory: &Path) -> Result<File, Error>
where
    R: AsyncRead + Unpin,
{
    let failed = |source| Error::file("write an archive to", directory, source);
    let mut file = tokio::fs::File::from_std(unnamed(directory)?);
    let mut buffer = vec![0; COPY];
    let mut head: Vec<u8> = Vec::new();
    let mut steps = free_space::Steps::new();
    loop {
        let cut = |source| Error::Archive(format!("the archive was cut off: {source}"));
        let count = stream.read(&mut buffer).await.map_err(cut)?;
        if count == 0 {
            break;
        }
        if head.len() < 4 {
            head.extend_from_slice(&buffer[..count.min(4)]);
        }
        if steps.is_due(count as u64) {
            free_space::check_async(directory, free_space::STEP).await?;
        }
        file.write_all(&buffer[..count]).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    let file = file.into_std().await;
    match compression(&head) {
        Compression::None => Ok(file),
        Compression::Gzip => {
            let plain = unnamed(directory)?;
            let directory = directory.to_path_buf();
            blocking(move || gunzip(file, plain, &directory)).await
        }
        Compression::Zstd => {
            let reason = "it is compressed with zstd; use a plain tar or one with gzip";
            Err(Error::Archive(reason.to_owned()))
        }
    }
}

fn gunzip(mut packed: File, mut plain: File, directory: &Path) -> Result<File, Error> {
    let failed = |source| Error::file("unpack an archive to", directory, source);
    packed.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut unpacked = MultiGzDecoder::new(io::BufReader::with_capacity(COPY, packed));
    let mut buffer = vec![0; COPY];
    let mut steps = free_space::Steps::new();
    loop {
        let broken = |source| Error::Archive(format!("its gzip data is damaged: {source}"));
        let count = unpacked.read(&mut buffer).map_err(broken)?;
        if count == 0 {
            return Ok(plain);
        }
        if steps.is_due(count as u64) {
            free_space::check(directory, free_space::STEP)?;
        }
        plain.write_all(&buffer[..count]).map_err(failed)?;
    }
}

/// Makes a file that has no name and so cannot be left behind.
fn unnamed(directory: &Path) -> Result<File, Error> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    std::fs::create_dir_all(directory)
        .map_err(|source| Error::file("make the directory", directory, source))?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path: PathBuf = directory.join(format!("spool-{}-{number}", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    let opened = options.read(true).write(true).create(true).truncate(true).open(&path);
    let file = opened.map_err(|source| Error::file("make", &path, source))?;
    std::fs::remove_file(&path).map_err(|source| Error::file("remove", &path, source))?;
    Ok(file)
}

/// Runs work that reads or writes files for a while.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Error> + Send + 'static,
{
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|panic| Error::Archive(format!("reading it failed: {panic}")))?
}

pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

pub(crate) fn compression(head: &[u8]) -> Compression {
    match head {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// Opens a part of a file for reading, at its start. The file has a position of its own.
pub(crate) fn reader(file: &File, part: Part) -> Result<tokio::fs::File, Error> {
    // A clone would share its position, and parts are read side by side.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let failed = |source| Error::file("open", &path, source);
    let mut own = File::open(&path).map_err(failed)?;
    own.seek(SeekFrom::Start(part.offset)).map_err(failed)?;
    Ok(tokio::fs::File::from_std(own))
}

/// Says whether a file is a tar archive, and which part of it: all.
pub(crate) fn check_tar(file: &File) -> Result<Part, Error> {
    let broken = |source: io::Error| Error::Archive(format!("it is no tar archive: {source}"));
    let size = file.metadata().map_err(broken)?.len();
    let mut reader = file;
    reader.seek(SeekFrom::Start(0)).map_err(broken)?;
    check_headers(file)?;
    reader.seek(SeekFrom::Start(0)).map_err(broken)?;
    let mut archive = tar::Archive::new(reader);
    match archive.entries().map_err(broken)?.next() {
        Some(Ok(_)) => Ok(Part { offset: 0, size }),
        Some(Err(error)) => Err(broken(error)),
        None => Err(Error::Archive("it is empty".to_owned())),
    }
}

/// Files, folders and links of one archive.
const ENTRIES_MAX: usize = 1_000_000;
/// Long names and extended attributes are read into memory; the kernel's paths have 4 KiB.
const EXTENSION_MAX: u64 = 1 << 20;

/// Looks at an archive's headers as they stand, before anything is made of them. Refuses more
/// entries, longer names and larger parts than an image has.
pub(crate) fn check_headers(file: &File) -> Result<(), Error> {
    let broken = |source: io::Error| Error::Archive(format!("it is no tar archive: {source}"));
    let size = file.metadata().map_err(broken)?.len();
    let mut reader = file;
    reader.seek(SeekFrom::Start(0)).map_err(broken)?;
    let mut archive = tar::Archive::new(reader);
    let entries = archive.entries_with_seek().map_err(broken)?.raw(true);
    for (number, entry) in entries.enumerate() {
        if ENTRIES_MAX <= number {
            return Err(Error::Archive(format!("it has more than {ENTRIES_MAX} entries")));
        }
        let entry = entry.map_err(broken)?;
        let kind = entry.header().entry_type();
        let extension = kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_global_extensions()
            || kind.is_pax_local_extensions();
        if extension && EXTENSION_MAX < entry.size() {
            return Err(Error::Archive("a name or an attribute in it is too long".to_owned()));
        }
        if size < entry.raw_file_position().saturating_add(entry.size()) {
            return Err(Error::Archive("the archive was cut off".to_owned()));
        }
    }
    Ok(())
}

/// Computes the digest of a part.
pub(crate) fn digest_of(file: &File, part: Part) -> Result<String, Error> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; COPY];
    let mut done = 0;
    while done < part.size {
        let count = usize::try_from(part.size - done).unwrap_or(COPY).min(COPY);
        read_at(file, &mut buffer[..count], part.offset + done)?;
        hash.update(&buffer[..count]);
        done += count as u64;
    }
    Ok(oci::hex(&hash.finalize()))
}

pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> Result<(), Error> {
    let cut = |source| Error::Archive(format!("the archive was cut off: {source}"));
    file.read_exact_at(buffer, offset).map_err(cut)
}
