//! The ports to this machine's network namespaces and to the sockets in them.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};

/// Network namespaces of containers, each bind-mounted at a path.
pub trait Namespaces: Send + Sync + 'static {
    /// Makes a namespace at `path`, with its loopback interface up (the DNS server binds there
    /// before any other interface is made). It is fine if it is there already.
    fn create(&self, path: &Path) -> impl Future<Output = io::Result<()>> + Send;

    /// Unmounts the namespace and removes the file. It is fine if it has gone.
    fn remove(&self, path: &Path) -> impl Future<Output = io::Result<()>> + Send;

    /// Says whether there is a namespace at `path` (a file that is a mount of one; after a reboot
    /// an empty file may be left).
    fn exists(&self, path: &Path) -> impl Future<Output = bool> + Send;

    /// Lists what is in a folder of namespaces, also files that are none. A folder that is not there
    /// is empty.
    fn list(&self, folder: &Path) -> impl Future<Output = io::Result<Vec<PathBuf>>> + Send {
        let files = std::fs::read_dir(folder);
        async {
            match files {
                Ok(files) => files.map(|file| Ok(file?.path())).collect(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                Err(error) => Err(error),
            }
        }
    }
}

/// What the name server needs of the machine: sockets in containers' namespaces. Each stays in its
/// namespace, and keeps it alive, until it is closed.
pub trait Sockets: Send + Sync + 'static {
    /// Binds a UDP socket inside the namespace at `path`. Port 0 asks for any free one.
    fn bind_udp(
        &self,
        path: &Path,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<UdpSocket>> + Send;

    /// Binds and listens on TCP inside the namespace, with SO_REUSEADDR: after a restart of the
    /// name server the same port is wanted again, while old connections may still be in TIME_WAIT.
    fn bind_tcp(
        &self,
        path: &Path,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<TcpListener>> + Send;

    /// Opens a TCP socket inside the namespace that can be connected to `to`, and is not yet.
    fn open_tcp(
        &self,
        path: &Path,
        to: SocketAddr,
    ) -> impl Future<Output = io::Result<TcpStream>> + Send;

    /// Reads the node's list of DNS servers.
    fn resolv_conf(&self, path: &Path) -> impl Future<Output = io::Result<String>> + Send {
        tokio::fs::read_to_string(path.to_owned())
    }
}
