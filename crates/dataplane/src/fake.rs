//! Stand-ins for the kernel and for namespaces, for tests of this crate and of its users.
//!
//! Namespaces are names only: their sockets are bound on the loopback of the test's own namespace.

use crate::port;
use discovery::{Depth, Desired, Outcome};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// A kernel that stalls looks this often whether it may go on.
const STALL: Duration = Duration::from_millis(10);
/// Where sockets are that fail.
const FAILING: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Remembers what was applied. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    state: Arc<Mutex<KernelState>>,
    stalled: Arc<AtomicBool>,
    disturbed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct KernelState {
    held: Desired,
    applied: usize,
    retried: usize,
    repaired: usize,
    failures: usize,
    outcome: Outcome,
    is_lost: bool,
}

/// The kernel was told to fail.
#[derive(Debug, thiserror::Error)]
#[error("told to fail")]
pub struct KernelFailure;

impl Kernel {
    /// What the kernel holds.
    pub fn held(&self) -> Desired {
        locked(&self.state).held.clone()
    }

    /// How often it was asked to apply something.
    pub fn applied(&self) -> usize {
        locked(&self.state).applied
    }

    /// How often it was asked to try what failed again.
    pub fn retried(&self) -> usize {
        locked(&self.state).retried
    }

    /// How often it was asked to look at more than what differs.
    pub fn repaired(&self) -> usize {
        locked(&self.state).repaired
    }

    /// Lets the next `times` applies fail as a whole.
    pub fn fail(&self, times: usize) {
        locked(&self.state).failures = times;
    }

    /// Says from now on that these cannot be made.
    pub fn fail_alone(&self, outcome: Outcome) {
        locked(&self.state).outcome = outcome;
    }

    /// Says that others have touched what is held.
    pub fn disturb(&self) {
        self.disturbed.notify_one();
    }

    /// Is of no use from now on.
    pub fn lose(&self) {
        locked(&self.state).is_lost = true;
    }

    /// Lets applies wait, or lets them go on.
    pub fn stall(&self, stalled: bool) {
        self.stalled.store(stalled, Ordering::Relaxed);
    }
}

impl discovery::Kernel for Kernel {
    type Error = KernelFailure;

    async fn apply(
        &mut self,
        desired: &Arc<Desired>,
        depth: Depth,
    ) -> Result<Outcome, KernelFailure> {
        while self.stalled.load(Ordering::Relaxed) {
            tokio::time::sleep(STALL).await;
        }
        let mut state = locked(&self.state);
        if state.is_lost {
            return Err(KernelFailure);
        }
        state.applied += 1;
        state.retried += usize::from(depth == Depth::Retry);
        state.repaired += usize::from(depth > Depth::Retry);
        if state.failures > 0 {
            state.failures -= 1;
            let node = Some(KernelFailure.to_string());
            return Ok(Outcome { node, ..Outcome::default() });
        }
        state.held = Desired::clone(desired);
        Ok(state.outcome.clone())
    }

    async fn disturbed(&mut self) {
        self.disturbed.notified().await;
    }
}

/// Namespaces that are names only. Clones share them: they outlive a data plane that is started
/// again.
#[derive(Clone, Debug, Default)]
pub struct Namespaces {
    /// By path, the ports that were bound there.
    state: Arc<Mutex<BTreeMap<PathBuf, BTreeSet<u16>>>>,
    refusing: Arc<AtomicBool>,
    failing: Arc<AtomicBool>,
}

impl Namespaces {
    fn bound(&self, path: &Path, port: u16) -> io::Result<()> {
        if self.refusing.load(Ordering::Relaxed) {
            return Err(io::Error::other("told to refuse"));
        }
        let mut state = locked(&self.state);
        let ports = state.get_mut(path).ok_or(io::ErrorKind::NotFound)?;
        ports.insert(port);
        Ok(())
    }

    /// The ports that were bound in a namespace; 0 where others were asked from there.
    pub fn ports(&self, path: &Path) -> BTreeSet<u16> {
        locked(&self.state).get(path).cloned().unwrap_or_default()
    }

    /// Lets no socket be opened, or lets them again.
    pub fn refuse_sockets(&self, refusing: bool) {
        self.refusing.store(refusing, Ordering::Relaxed);
    }

    /// Makes the next UDP socket one that fails when somebody connects to its port at 127.0.0.2.
    pub fn fail_socket(&self) {
        self.failing.store(true, Ordering::Relaxed);
    }

    /// Removes a namespace behind the data plane's back, as a reboot does.
    pub fn lose(&self, path: &Path) {
        locked(&self.state).remove(path);
    }
}

impl port::Namespaces for Namespaces {
    async fn create(&self, path: &Path) -> io::Result<()> {
        locked(&self.state).entry(path.to_owned()).or_default();
        Ok(())
    }

    /// Fails while a socket is open: in a real namespace that would leak it.
    async fn remove(&self, path: &Path) -> io::Result<()> {
        let Some(ports) = locked(&self.state).remove(path) else { return Ok(()) };
        for port in ports {
            let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
            drop(UdpSocket::bind(address)?);
            drop(TcpListener::bind(address)?);
        }
        Ok(())
    }

    async fn exists(&self, path: &Path) -> bool {
        locked(&self.state).contains_key(path)
    }

    async fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let state = locked(&self.state);
        Ok(state.keys().filter(|path| path.parent() == Some(folder)).cloned().collect())
    }
}

impl port::Sockets for Namespaces {
    async fn bind_udp(&self, path: &Path, address: SocketAddr) -> io::Result<UdpSocket> {
        let socket = if self.failing.swap(false, Ordering::Relaxed) {
            // Receiving from a listener is an error, once there is something to receive.
            OwnedFd::from(TcpListener::bind((FAILING, address.port()))?).into()
        } else {
            UdpSocket::bind((Ipv4Addr::LOCALHOST, address.port()))?
        };
        // Who asks others is noted at port 0.
        let asks = address.ip().is_unspecified();
        self.bound(path, if asks { 0 } else { socket.local_addr()?.port() })?;
        Ok(socket)
    }

    async fn bind_tcp(&self, path: &Path, address: SocketAddr) -> io::Result<TcpListener> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, address.port()))?;
        self.bound(path, listener.local_addr()?.port())?;
        Ok(listener)
    }

    async fn open_tcp(&self, path: &Path, _to: SocketAddr) -> io::Result<TcpStream> {
        self.bound(path, 0)?;
        let socket = tokio::net::TcpSocket::new_v4()?;
        Ok(socket.as_fd().try_clone_to_owned()?.into())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
