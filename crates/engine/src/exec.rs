//! Further processes in containers, and connections to standard streams.

use bytes::Bytes;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

/// A further process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecConfig {
    pub command: Vec<String>,
    pub env: Vec<String>,
    /// The container's own where empty.
    pub dir: String,
    /// The container's own where empty.
    pub user: String,
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub privileged: bool,
}

/// What is known of such a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecInfo {
    pub id: String,
    /// The container's id.
    pub container: String,
    pub config: ExecConfig,
    pub running: bool,
    /// On the host; 0 before it starts.
    pub pid: u32,
    /// None before it has ended.
    pub exit_code: Option<i32>,
}

/// What a client wants of a container's standard streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// First what is in the log.
    pub logs: bool,
    /// Then what comes.
    pub stream: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub stderr: bool,
    pub bytes: Bytes,
}

/// A client's ends of the standard streams.
#[derive(Debug)]
pub struct Attached {
    /// Output is raw bytes of a terminal, to be sent without frames.
    pub tty: bool,
    /// Ends when the process has ended and all it wrote was received.
    pub output: mpsc::Receiver<Chunk>,
    /// Shutting it down ends the process's standard input. `None` where it has none.
    pub input: Option<DuplexStream>,
}
