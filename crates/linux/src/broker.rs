//! The name server's two halves: one hears strangers and has no rights, the other may enter
//! namespaces and hears nobody but the first.
//!
//! [`Broker`] is the one with rights: it opens sockets in containers' namespaces and hands them
//! over. [`Brokered`] asks it, as the data plane's port; [`confine`] takes all rights from the half
//! that asks, [`keep_capabilities`] those that it does not need from the broker.
//!
//! Invariants: the broker opens sockets in namespaces of one folder and reads one file, and nothing
//! else, whatever is asked of it; a request is one short line.

use crate::error::Error;
use crate::namespace;
use crate::sandboxes::{Purpose, open};
use nix::sys::prctl::{set_no_new_privs, set_pdeathsig};
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv,
    recvmsg, sendmsg, socketpair,
};
use nix::unistd::{Gid, Uid, chdir, chroot, setgroups, setresgid, setresuid};
use std::ffi::OsStr;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Mutex;

/// The longest request, and the longest answer.
const REQUEST_MAX: usize = 512;
const ANSWER_MAX: usize = 64 << 10;
/// Where name servers of containers are.
const RESOLVER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));
/// An answer begins with one of these; after a failure comes the number of the error.
const DONE: u8 = b'+';
const FAILED: u8 = b'-';

/// The half with rights.
#[derive(Debug)]
pub struct Broker {
    /// Where containers' namespaces are mounted.
    pub folder: PathBuf,
    /// The node's list of DNS servers.
    pub resolv_conf: PathBuf,
    /// Where daemons connect.
    pub listener: UnixListener,
}

impl Broker {
    /// The way between the halves: the broker's end, and the other's.
    pub fn way() -> io::Result<(OwnedFd, OwnedFd)> {
        let flags = SockFlag::SOCK_CLOEXEC;
        Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?)
    }

    /// Answers until the other half is gone.
    pub fn serve(&self, way: &OwnedFd) -> io::Result<()> {
        let mut buffer = [0; REQUEST_MAX];
        loop {
            let len = match recv(way.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(0) | Err(nix::Error::ECONNRESET) => return Ok(()),
                Ok(len) => len,
                Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let (text, descriptor) = match self.carry_out(&buffer[..len]) {
                Ok(Granted::Socket(socket)) => (vec![DONE], Some(socket)),
                Ok(Granted::Text(text)) => ([&[DONE], text.as_bytes()].concat(), None),
                Err(error) => {
                    let code = error.raw_os_error().unwrap_or(libc::EINVAL);
                    (format!("{}{code}", char::from(FAILED)).into_bytes(), None)
                }
            };
            match send(way, &text, descriptor.as_ref()) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                outcome => outcome?,
            }
        }
    }

    fn carry_out(&self, request: &[u8]) -> io::Result<Granted> {
        let refused = || io::Error::from_raw_os_error(libc::EPERM);
        let request = str::from_utf8(request).map_err(|_not_text| refused())?;
        let mut words = request.splitn(3, ' ');
        let (kind, address, name) = (words.next(), words.next(), words.next());
        let purpose = match kind {
            Some("listener") => {
                return Ok(Granted::Socket(self.listener.as_fd().try_clone_to_owned()?));
            }
            Some("servers") => return self.servers().map(Granted::Text),
            Some("udp") => Purpose::Datagrams,
            Some("listen") => Purpose::Listen,
            Some("connect") => Purpose::Connect,
            Some(_) | None => return Err(refused()),
        };
        let address: SocketAddr =
            address.and_then(|address| address.parse().ok()).ok_or_else(refused)?;
        let asks = address.ip().is_unspecified() && address.port() == 0;
        let fits = match purpose {
            Purpose::Datagrams => asks || address.ip() == RESOLVER,
            Purpose::Listen => address.ip() == RESOLVER,
            Purpose::Connect => true,
        };
        let name = name.filter(|name| is_name(name) && fits).ok_or_else(refused)?;
        let opened = namespace::run_in(&self.folder.join(name), || open(purpose, address));
        let missing = |_error| io::Error::from_raw_os_error(libc::ENOENT);
        opened.map_err(missing)?.map(|socket| Granted::Socket(socket.into()))
    }

    fn servers(&self) -> io::Result<String> {
        let most = u64::try_from(ANSWER_MAX - 1).unwrap_or(u64::MAX);
        let mut text = String::new();
        std::fs::File::open(&self.resolv_conf)?.take(most).read_to_string(&mut text)?;
        Ok(text)
    }
}

enum Granted {
    Socket(OwnedFd),
    Text(String),
}

/// Says whether this names a file of a folder, and not a way out of it.
fn is_name(name: &str) -> bool {
    !name.contains('/') && !name.contains('\0') && !["", ".", ".."].contains(&name)
}

fn send(way: &OwnedFd, text: &[u8], descriptor: Option<&OwnedFd>) -> io::Result<()> {
    let raw: Vec<RawFd> = descriptor.map(AsRawFd::as_raw_fd).into_iter().collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &[] } else { &rights[..] };
    let text = [IoSlice::new(text)];
    sendmsg::<()>(way.as_raw_fd(), &text, rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// The half without rights asks by this. Clones share the way.
#[derive(Clone, Debug)]
pub struct Brokered {
    way: Arc<Mutex<OwnedFd>>,
}

impl Brokered {
    /// Asks at this end of [`Broker::way`].
    pub fn new(way: OwnedFd) -> Self {
        Self { way: Arc::new(Mutex::new(way)) }
    }

    /// Where daemons connect.
    pub async fn listener(&self) -> io::Result<UnixListener> {
        self.socket("listener".to_owned()).await.map(Into::into)
    }

    async fn open(&self, kind: &str, path: &Path, address: SocketAddr) -> io::Result<OwnedFd> {
        let name = path.file_name().and_then(OsStr::to_str).ok_or(ErrorKind::NotFound)?;
        self.socket(format!("{kind} {address} {name}")).await
    }

    async fn socket(&self, request: String) -> io::Result<OwnedFd> {
        let (_, socket) = self.ask(request).await?;
        socket.ok_or_else(|| io::Error::other("the broker handed nothing over"))
    }

    /// One asks at a time. Who gives up waiting leaves nothing half said.
    async fn ask(&self, request: String) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
        let way = Arc::clone(&self.way).lock_owned().await;
        tokio::task::spawn_blocking(move || {
            send(&way, request.as_bytes(), None)?;
            receive(&way)
        })
        .await
        .map_err(io::Error::other)?
    }
}

impl dataplane::Sockets for Brokered {
    async fn bind_udp(&self, path: &Path, address: SocketAddr) -> io::Result<UdpSocket> {
        self.open("udp", path, address).await.map(Into::into)
    }

    async fn bind_tcp(&self, path: &Path, address: SocketAddr) -> io::Result<TcpListener> {
        self.open("listen", path, address).await.map(Into::into)
    }

    async fn open_tcp(&self, path: &Path, to: SocketAddr) -> io::Result<TcpStream> {
        self.open("connect", path, to).await.map(Into::into)
    }

    /// The broker knows the path.
    async fn resolv_conf(&self, _path: &Path) -> io::Result<String> {
        let (text, _) = self.ask("servers".to_owned()).await?;
        String::from_utf8(text).map_err(io::Error::other)
    }
}

/// What an answer says, and what it carries.
fn receive(way: &OwnedFd) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut buffer = vec![0; ANSWER_MAX];
    let mut rights = nix::cmsg_space!([RawFd; 1]);
    let (len, descriptor) = {
        let mut text = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(way.as_raw_fd(), &mut text, Some(&mut rights), flags)?;
        let mut descriptor = None;
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = part {
                for raw in raw {
                    // SAFETY: the kernel has just made this descriptor for us, and nobody else
                    // knows of it.
                    descriptor = Some(unsafe { OwnedFd::from_raw_fd(raw) });
                }
            }
        }
        (message.bytes, descriptor)
    };
    buffer.truncate(len);
    match buffer.first() {
        Some(&DONE) => Ok((buffer.split_off(1), descriptor)),
        Some(&FAILED) => {
            let code = str::from_utf8(&buffer[1..]).ok().and_then(|code| code.parse().ok());
            Err(io::Error::from_raw_os_error(code.unwrap_or(libc::EIO)))
        }
        Some(_) | None => Err(io::Error::new(ErrorKind::BrokenPipe, "the broker is gone")),
    }
}

/// Takes all rights from this process: it is `user`, in no group, sees the files in `root` alone,
/// and gets nothing back by running a program. It ends with its parent. To be called before there
/// is a second thread.
pub fn confine(root: &Path, user: u32) -> Result<(), Error> {
    let failed = |errno: nix::Error| Error::system("give up root's rights", errno.into());
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    set_no_new_privs().map_err(failed)?;
    chroot(root).and_then(|()| chdir("/")).map_err(failed)?;
    setgroups(&[]).map_err(failed)?;
    setresgid(gid, gid, gid).map_err(failed)?;
    // With root, all capabilities go.
    setresuid(uid, uid, uid).map_err(failed)?;
    // A change of user would have cleared it.
    set_pdeathsig(Signal::SIGKILL).map_err(failed)
}

/// `CAP_KILL`
const KILL: u32 = 5;
/// `CAP_SYS_ADMIN`, which entering a namespace takes.
const SYS_ADMIN: u32 = 21;
/// `_LINUX_CAPABILITY_VERSION_3`
const VERSION: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Takes all capabilities from this process but those that a broker needs: to enter namespaces,
/// and to end the other half. To be called before there is a second thread.
pub fn keep_capabilities() -> Result<(), Error> {
    let doing = "give up capabilities";
    set_no_new_privs().map_err(|errno| Error::system(doing, errno.into()))?;
    let kept = 1 << KILL | 1 << SYS_ADMIN;
    let header = Header { version: VERSION, pid: 0 };
    let data = [Data { effective: kept, permitted: kept, inheritable: 0 }, Data::default()];
    // SAFETY: header and data are laid out as capset(2) says for this version, and live on.
    let outcome = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    if outcome == 0 { Ok(()) } else { Err(Error::system(doing, io::Error::last_os_error())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_else() {
        for (name, fits) in
            [("c1", true), ("", false), (".", false), ("..", false), ("../c1", false), ("/", false)]
        {
            assert_eq!(is_name(name), fits, "{name:?}");
        }
    }

    #[test]
    fn a_broker_does_nothing_that_it_is_not_there_for() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("resolv.conf"), "nameserver 192.0.2.1\n").unwrap();
        let broker = Broker {
            folder: dir.path().to_owned(),
            resolv_conf: dir.path().join("resolv.conf"),
            listener: UnixListener::bind(dir.path().join("sock")).unwrap(),
        };
        let (ours, theirs) = Broker::way().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| broker.serve(&ours).unwrap());
            let ask = |request: &[u8]| {
                send(&theirs, request, None).unwrap();
                receive(&theirs)
            };
            for (request, code) in [
                (&b"udp 127.0.0.11:0 gone"[..], libc::ENOENT),
                (b"udp 127.0.0.11:0 resolv.conf", libc::ENOENT),
                (b"udp 127.0.0.11:0 ../gone", libc::EPERM),
                (b"udp 0.0.0.0:53 gone", libc::EPERM),
                (b"udp 192.0.2.1:53 gone", libc::EPERM),
                (b"listen 0.0.0.0:0 gone", libc::EPERM),
                (b"listen 127.0.0.11:0", libc::EPERM),
                (b"read /etc/shadow", libc::EPERM),
                (b"\xff\xfe", libc::EPERM),
                (&[b'a'; 4 * REQUEST_MAX], libc::EPERM),
            ] {
                assert_eq!(ask(request).unwrap_err().raw_os_error(), Some(code), "{request:?}");
            }
            assert_eq!(ask(b"servers").unwrap().0, b"nameserver 192.0.2.1\n");
            assert!(ask(b"listener").unwrap().1.is_some());
            drop(theirs);
        });
    }
}
