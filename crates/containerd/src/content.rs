//! Blobs in containerd's content store.
//!
//! The store is shared by all namespaces of a containerd: a blob that another node of the lab has
//! written is there at once, and only has to be claimed. What is written is checked against its
//! digest by containerd when it is committed.

use crate::client::{BULKY, Client, QUICK};
use crate::error::{Error, Gone};
use crate::free_space;
use crate::oci::{self, Descriptor};
use bytes::{Bytes, BytesMut};
use containerd_client::services::v1::{
    AbortRequest, Info, ReadContentRequest, UpdateRequest, WriteAction, WriteContentRequest,
    WriteContentResponse,
};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeek, AsyncSeekExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};
use types::Labels;

/// How much goes into one message; containerd takes up to 16 MiB.
const CHUNK: usize = 1 << 20;
/// One message is on its way while the next one waits.
const WRITES_MAX: usize = 2;
/// Manifests and configurations are kept in memory; a real one has some tens of kilobytes.
const DOCUMENT_MAX: u64 = 8 << 20;
const LOCKED_PAUSE: Duration = Duration::from_millis(200);
/// How long one answer to a chunk may take; a commit syncs the whole blob to the disk.
const CHUNK_MAX: Duration = Duration::from_mins(2);

/// What a writer found in the store.
pub(crate) enum Opened {
    /// The blob is there: nothing to do.
    Present,
    /// Bytes are wanted from this offset on.
    Wanted(Box<BlobWriter>),
}

/// A blob that is being written.
pub(crate) struct BlobWriter {
    requests: mpsc::Sender<WriteContentRequest>,
    responses: Streaming<WriteContentResponse>,
    reference: String,
    digest: String,
    pub(crate) offset: u64,
    size: u64,
    /// Where the store is, as far as that is known.
    store: Option<PathBuf>,
    steps: free_space::Steps,
}

impl Client {
    /// Writes a blob from a seekable source, beginning where an earlier attempt ended.
    pub(crate) async fn write_blob<S>(&self, blob: &Descriptor, mut source: S) -> Result<(), Error>
    where
        S: AsyncRead + AsyncSeek + Unpin,
    {
        let Opened::Wanted(mut writer) = self.open_blob(blob).await? else { return Ok(()) };
        let read = |source| Error::file("read", &blob.digest, source);
        source.seek(std::io::SeekFrom::Current(signed(writer.offset))).await.map_err(read)?;
        let mut source = source.take(blob.size - writer.offset);
        loop {
            let mut chunk = BytesMut::with_capacity(CHUNK);
            while chunk.len() < CHUNK && source.read_buf(&mut chunk).await.map_err(read)? != 0 {}
            if chunk.is_empty() {
                break;
            }
            writer.write(chunk.freeze()).await?;
        }
        self.commit_blob(writer).await
    }

    /// Writes a small document.
    pub(crate) async fn write_document(
        &self,
        blob: &Descriptor,
        content: &[u8],
    ) -> Result<(), Error> {
        self.write_blob(blob, std::io::Cursor::new(content)).await
    }

    /// Begins to write a blob, or goes on with an attempt that was cut off. Waits while someone
    /// else writes the same blob.
    pub(crate) async fn open_blob(&self, blob: &Descriptor) -> Result<Opened, Error> {
        let opened = async {
            loop {
                match self.try_open(blob).await {
                    Err(error) if error.is_taken() => return Ok(Opened::Present),
                    Err(error) if error.code() == Some(Code::Unavailable) => {
                        tokio::time::sleep(LOCKED_PAUSE).await;
                    }
                    Err(error) => return Err(error),
                    Ok(writer) => return Ok(Opened::Wanted(Box::new(writer))),
                }
            }
        };
        let elapsed = |_| Error::TimedOut { call: "write content", limit: BULKY };
        tokio::time::timeout(BULKY, opened).await.map_err(elapsed)?
    }

    async fn try_open(&self, blob: &Descriptor) -> Result<BlobWriter, Error> {
        let call = "write content";
        let (requests, receiver) = mpsc::channel(WRITES_MAX);
        let reference = format!("skep-{}", blob.digest);
        let first = WriteContentRequest {
            action: WriteAction::Stat.into(),
            r#ref: reference.clone(),
            total: signed(blob.size),
            expected: blob.digest.clone(),
            ..Default::default()
        };
        let fits = requests.try_send(first);
        fits.map_err(|_full| Error::NoAnswer { call })?;
        let failed = |status| Error::Call { call, status: Box::new(status) };
        let request = self.request(ReceiverStream::new(receiver));
        // Not through `call`: the stream can be sent only once.
        let mut content = self.content();
        let answer = tokio::time::timeout(QUICK, content.write(request)).await;
        let answer = answer.map_err(|_elapsed| Error::TimedOut { call, limit: QUICK })?;
        let mut writer = BlobWriter {
            requests,
            responses: answer.map_err(failed)?.into_inner(),
            reference,
            digest: blob.digest.clone(),
            offset: 0,
            size: blob.size,
            store: self.store().map(Path::to_owned),
            steps: free_space::Steps::new(),
        };
        writer.offset = writer.answer().await?;
        writer.ensure_free_space(0).await?;
        Ok(writer)
    }

    /// Ends writing: containerd compares size and digest. What does not match is thrown away.
    pub(crate) async fn commit_blob(&self, mut writer: Box<BlobWriter>) -> Result<(), Error> {
        let request = WriteContentRequest {
            action: WriteAction::Commit.into(),
            total: signed(writer.size),
            expected: writer.digest.clone(),
            offset: signed(writer.offset),
            ..writer.request()
        };
        match writer.send(request).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_taken() => Ok(()),
            Err(Error::Call { status, .. }) if status.code() == Code::FailedPrecondition => {
                let BlobWriter { reference, digest, .. } = *writer;
                let body = AbortRequest { r#ref: reference };
                let aborted = self.call("drop damaged content", QUICK, body);
                aborted.await.or_gone()?;
                Err(Error::Digest { expected: digest, reason: status.message().to_owned() })
            }
            Err(error) => Err(error),
        }
    }

    /// Reads a document and checks that it is what its digest says.
    pub(crate) async fn read_document(&self, digest: &str) -> Result<Vec<u8>, Error> {
        let body = ReadContentRequest { digest: digest.to_owned(), ..Default::default() };
        let call = "read content";
        let failed = |status| Error::Call { call, status: Box::new(status) };
        let answer =
            self.stream(call, QUICK, body, |request| async { self.content().read(request).await });
        let mut stream = answer.await?;
        let mut content = Vec::new();
        let read = async {
            while let Some(part) = stream.message().await.map_err(failed)? {
                content.extend_from_slice(&part.data);
                if DOCUMENT_MAX < content.len() as u64 {
                    let reason = "a document of this size is not an image's".to_owned();
                    return Err(Error::Digest { expected: digest.to_owned(), reason });
                }
            }
            Ok(())
        };
        let elapsed = |_| Error::TimedOut { call, limit: QUICK };
        tokio::time::timeout(QUICK, read).await.map_err(elapsed)??;
        let found = oci::sha256(&content);
        if found != digest {
            let reason = format!("found {found}");
            return Err(Error::Digest { expected: digest.to_owned(), reason });
        }
        Ok(content)
    }

    pub(crate) async fn read_json<T: DeserializeOwned>(&self, digest: &str) -> Result<T, Error> {
        let content = self.read_document(digest).await?;
        serde_json::from_slice(&content).map_err(|source| Error::json(digest, source))
    }

    /// Sets labels of a blob. Those that keep other content alive are the reason to have them:
    /// a blob that already was there may lack them.
    pub(crate) async fn label_blob(&self, digest: &str, labels: Labels) -> Result<(), Error> {
        let paths = labels.keys().map(|name| format!("labels.{name}")).collect();
        let info = Info {
            digest: digest.to_owned(),
            labels: labels.into_iter().collect(),
            ..Default::default()
        };
        let body =
            UpdateRequest { info: Some(info), update_mask: Some(prost_types::FieldMask { paths }) };
        let answer = self.call("label content", QUICK, body);
        answer.await.map(|_| ())
    }
}

impl BlobWriter {
    /// Appends to the blob, which gets no larger than it was said to be.
    pub(crate) async fn write(&mut self, data: Bytes) -> Result<(), Error> {
        let length = data.len() as u64;
        if self.left() < length {
            let reason = format!("it is larger than the {} bytes of its manifest", self.size);
            return Err(Error::Digest { expected: self.digest.clone(), reason });
        }
        self.ensure_free_space(length).await?;
        let request = WriteContentRequest {
            action: WriteAction::Write.into(),
            offset: signed(self.offset),
            data: data.to_vec(),
            ..self.request()
        };
        self.send(request).await?;
        self.offset += length;
        Ok(())
    }

    fn left(&self) -> u64 {
        self.size.saturating_sub(self.offset)
    }

    /// Looks from time to time whether the file system takes all that is to come.
    async fn ensure_free_space(&mut self, length: u64) -> Result<(), Error> {
        match &self.store {
            Some(store) if self.left() > 0 && self.steps.is_due(length) => {
                free_space::check_async(store, self.left()).await
            }
            _ => Ok(()),
        }
    }

    fn request(&self) -> WriteContentRequest {
        WriteContentRequest { r#ref: self.reference.clone(), ..Default::default() }
    }

    async fn send(&mut self, request: WriteContentRequest) -> Result<u64, Error> {
        // A closed channel means that the answer holds the reason.
        let _closed = self.requests.send(request).await;
        self.answer().await
    }

    /// Waits for the answer: the offset up to which containerd has the blob.
    async fn answer(&mut self) -> Result<u64, Error> {
        let call = "write content";
        let answer = tokio::time::timeout(CHUNK_MAX, self.responses.message()).await;
        let answer = answer.map_err(|_elapsed| Error::TimedOut { call, limit: CHUNK_MAX })?;
        let answer = answer.map_err(|status| Error::Call { call, status: Box::new(status) })?;
        let answer = answer.ok_or(Error::NoAnswer { call })?;
        Ok(u64::try_from(answer.offset).unwrap_or(0))
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
