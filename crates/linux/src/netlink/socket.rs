//! One socket: requests with their acknowledgements, and dumps.

use super::message::{ACK, DUMP, HEADER, Message, REQUEST, Received, u32_at};
use crate::error::Error;
use socket2::{Domain, Protocol, Socket as Raw, Type};
use std::cell::RefCell;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::time::Duration;

const ROUTE: i32 = 0;
const NETFILTER: i32 = 12;

const KIND_ERROR: u16 = 2;
const KIND_DONE: u16 = 3;
/// The kernel added attributes to an error: a sentence among them.
const FLAG_ACK_ATTRIBUTES: u16 = 0x200;
/// The kernel left the request out of the acknowledgement.
const FLAG_CAPPED: u16 = 0x100;
const ATTRIBUTE_SENTENCE: u16 = 1;

/// Acknowledgements of one send must fit into the socket's receive buffer (212992 bytes, of which
/// each takes about 800): more at a time would be lost.
const BATCH: usize = 100;
/// The kernel answers within the call; a longer wait means that it never will.
const PATIENCE: Duration = Duration::from_secs(10);
/// What can be sent at once without asking for room; less than the kernel's default.
const ROOM: usize = 64 * 1024;
/// The kernel never fills more than 32 KiB at once.
const BUFFER: usize = 64 * 1024;

thread_local! {
    /// There are hundreds of sockets, and a few threads.
    static ROOM_TO_READ: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER]);
}

/// A netlink socket in the namespace where it was opened.
#[derive(Debug)]
pub(crate) struct Socket {
    raw: Raw,
    sequence: u32,
}

impl Socket {
    /// Opens a socket for interfaces, addresses, routes and neighbours.
    pub(crate) fn route() -> Result<Self, Error> {
        Self::open(ROUTE)
    }

    /// Opens a socket for nftables and connection tracking.
    pub(crate) fn netfilter() -> Result<Self, Error> {
        Self::open(NETFILTER)
    }

    fn open(protocol: i32) -> Result<Self, Error> {
        let open = || {
            let domain = Domain::from(libc::AF_NETLINK);
            let raw = Raw::new(domain, Type::RAW, Some(Protocol::from(protocol)))?;
            raw.set_read_timeout(Some(PATIENCE))?;
            for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
                set_option(&raw, (libc::SOL_NETLINK, option), 1)?;
            }
            Ok(raw)
        };
        let raw =
            open().map_err(|source: io::Error| Error::system("open a netlink socket", source))?;
        Ok(Self { raw, sequence: 0 })
    }

    /// Hears from now on what the kernel says to a group.
    pub(crate) fn join(&self, group: u32) -> Result<(), Error> {
        let group = libc::c_int::try_from(group).unwrap_or_default();
        set_option(&self.raw, (libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP), group)
            .map_err(|source| Error::system("listen to the kernel", source))
    }

    /// Waits for what the kernel says to a group, but not for ever; `None` where some of it was
    /// lost.
    pub(crate) fn listen(&mut self) -> Result<Option<Vec<Received>>, Error> {
        match self.read() {
            Ok(received) => Ok(Some(received)),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(None),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(Some(Vec::new())),
                _ => Err(Error::system("listen to the kernel", error)),
            },
        }
    }

    /// Sends requests and waits for all acknowledgements. All are carried out even if one fails;
    /// the first failure is returned.
    pub(crate) fn send(&mut self, messages: &[Message]) -> Result<(), Error> {
        let mut outcome = Ok(());
        for batch in messages.chunks(BATCH) {
            let answered = self.send_batch(batch)?;
            outcome = outcome.and(answered);
        }
        outcome
    }

    /// Sends one request.
    pub(crate) fn send_one(&mut self, message: Message) -> Result<(), Error> {
        self.send(&[message])
    }

    /// The outer failure is of the socket, the inner one of a request.
    fn send_batch(&mut self, batch: &[Message]) -> Result<Result<(), Error>, Error> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(batch.len() * 128);
        for message in batch {
            self.sequence = self.sequence.wrapping_add(1);
            let mut message = message.clone();
            message.flags |= REQUEST | ACK;
            message.write(self.sequence, &mut bytes);
        }
        let about = batch.first().map_or("", |message| message.doing.as_str());
        self.raw.send(&bytes).map_err(|source| Error::system(about, source))?;
        let mut failed: Option<(usize, Error)> = None;
        let mut waiting = batch.len();
        while waiting > 0 {
            for received in self.receive(about)? {
                if received.kind != KIND_ERROR {
                    continue;
                }
                let index = usize::try_from(received.sequence.wrapping_sub(first));
                let Some((index, message)) =
                    index.ok().and_then(|index| Some((index, batch.get(index)?)))
                else {
                    continue;
                };
                waiting = waiting.saturating_sub(1);
                let Some(error) = refusal(&received, message) else { continue };
                if failed.as_ref().is_none_or(|(earlier, _)| index < *earlier) {
                    failed = Some((index, error));
                }
            }
        }
        Ok(failed.map_or(Ok(()), |(_, error)| Err(error)))
    }

    /// Sends a transaction of nftables: its frame is not acknowledged, a failure of any request ends
    /// all of it.
    pub(crate) fn transact(&mut self, mut messages: Vec<Message>) -> Result<(), Error> {
        let first = self.sequence.wrapping_add(1);
        let last = messages.len().saturating_sub(2);
        let mut bytes = Vec::with_capacity(messages.len() * 128);
        for (index, message) in messages.iter_mut().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            message.flags |= if index == last { REQUEST | ACK } else { REQUEST };
            message.write(self.sequence, &mut bytes);
        }
        let about = messages.get(last).map_or("", |message| message.doing.as_str());
        self.make_room(bytes.len()).map_err(|source| Error::system(about, source))?;
        self.raw.send(&bytes).map_err(|source| Error::system(about, source))?;
        loop {
            for received in self.receive(about)? {
                let index = usize::try_from(received.sequence.wrapping_sub(first)).ok();
                let Some((index, message)) =
                    index.and_then(|index| Some((index, messages.get(index)?)))
                else {
                    continue;
                };
                if received.kind != KIND_ERROR {
                    continue;
                }
                if let Some(error) = refusal(&received, message) {
                    return Err(error);
                }
                if index == last {
                    return Ok(());
                }
            }
        }
    }

    /// Lets a message of this length be sent at once. The kernel doubles what it is told.
    fn make_room(&self, length: usize) -> io::Result<()> {
        if length < ROOM {
            return Ok(());
        }
        let length = libc::c_int::try_from(length).unwrap_or(libc::c_int::MAX / 2);
        set_option(&self.raw, (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE), length)
    }

    /// Asks for a list.
    pub(crate) fn dump(&mut self, mut message: Message) -> Result<Vec<Received>, Error> {
        message.flags |= REQUEST | DUMP;
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        message.write(self.sequence, &mut bytes);
        self.raw.send(&bytes).map_err(|source| Error::system(&message.doing, source))?;
        let mut list = Vec::new();
        loop {
            for received in self.receive(&message.doing)? {
                if received.sequence != self.sequence {
                    continue;
                }
                match received.kind {
                    KIND_DONE => return Ok(list),
                    KIND_ERROR => return refusal(&received, &message).map_or(Ok(list), Err),
                    _ => list.push(received),
                }
            }
        }
    }

    /// Asks for one thing; the answer is one message.
    pub(crate) fn ask(&mut self, mut message: Message) -> Result<Received, Error> {
        message.flags |= REQUEST;
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        message.write(self.sequence, &mut bytes);
        self.raw.send(&bytes).map_err(|source| Error::system(&message.doing, source))?;
        loop {
            for received in self.receive(&message.doing)? {
                if received.sequence != self.sequence {
                    continue;
                }
                if received.kind != KIND_ERROR {
                    return Ok(received);
                }
                if let Some(error) = refusal(&received, &message) {
                    return Err(error);
                }
            }
        }
    }

    fn read(&self) -> io::Result<Vec<Received>> {
        ROOM_TO_READ.with_borrow_mut(|buffer| {
            let length = (&self.raw).read(buffer)?;
            Ok(Received::split(&buffer[..length]))
        })
    }

    fn receive(&mut self, doing: &str) -> Result<Vec<Received>, Error> {
        loop {
            match self.read() {
                Ok(received) => return Ok(received),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::system(doing, source)),
            }
        }
    }
}

/// What the kernel objected to, unless it is tolerated.
fn refusal(received: &Received, message: &Message) -> Option<Error> {
    let code = i32::from_ne_bytes(received.body.get(..4)?.try_into().ok()?).wrapping_neg();
    if code == 0 || message.tolerated.contains(&code) {
        return None;
    }
    let sentence = (received.flags & FLAG_ACK_ATTRIBUTES != 0).then(|| {
        let request = match received.flags & FLAG_CAPPED {
            0 => usize::try_from(u32_at(&received.body, 4)).unwrap_or(HEADER),
            _ => HEADER,
        };
        received.attributes(4 + request.next_multiple_of(4)).find_text(ATTRIBUTE_SENTENCE)
    });
    Some(Error::Refused {
        doing: message.doing.clone(),
        sentence: sentence.flatten().map(|text| format!(" ({text})")).unwrap_or_default(),
        source: io::Error::from_raw_os_error(code),
    })
}

fn set_option(socket: &Raw, (level, option): (i32, i32), value: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the kernel reads
    // `size_of::<c_int>()` bytes from a `c_int`.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4),
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
