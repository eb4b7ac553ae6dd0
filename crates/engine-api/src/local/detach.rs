//! The keys by which a client leaves a terminal and what runs there goes on.

use types::Fault;

/// Docker's default: Ctrl-P, Ctrl-Q.
const DEFAULT: [u8; 2] = [0x10, 0x11];
/// The most keys in a row: a bound for what is compared with each key.
const KEYS_MAX: usize = 32;

/// Reads keys as docker writes them, e.g. `ctrl-p,ctrl-q`, `a` or `DEL`; none where nothing is
/// given.
pub(crate) fn parse(text: &str) -> Result<Vec<u8>, Fault> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
    keys.filter(|keys| keys.len() <= KEYS_MAX).ok_or_else(|| {
        let shown: String = text.chars().take(80).collect();
        Fault::invalid(format!("Invalid detach keys ({shown}) provided"))
    })
}

fn key(text: &str) -> Option<u8> {
    match (text.as_bytes(), text.strip_prefix("ctrl-").map(str::as_bytes)) {
        (&[one], _) => Some(one),
        // Ctrl takes the upper bits of a key away.
        (_, Some(&[key @ (b'@' | b'a'..=b'z' | b'['..=b'_')])) => Some(key & 0x1f),
        (b"DEL", _) => Some(0x7f),
        _ => None,
    }
}

/// Looks for the keys in what a client sends.
#[derive(Debug)]
pub(crate) struct Watch {
    keys: Vec<u8>,
    /// What was sent of them so far, and is held back.
    held: Vec<u8>,
}

impl Watch {
    /// Watches for these keys, or docker's where there are none.
    pub(crate) fn new(keys: Vec<u8>) -> Self {
        let keys = if keys.is_empty() { DEFAULT.to_vec() } else { keys };
        Self { keys, held: Vec::new() }
    }

    /// Gives what is to be handed on, and whether the client leaves; then the rest is not wanted.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut pass = Vec::with_capacity(bytes.len());
        for byte in bytes {
            self.held.push(*byte);
            while !self.keys.starts_with(&self.held) {
                pass.push(self.held.remove(0));
            }
            if self.held.len() == self.keys.len() {
                self.held.clear();
                return (pass, true);
            }
        }
        (pass, false)
    }

    /// What was held back when the client has sent its last.
    pub(crate) fn rest(self) -> Vec<u8> {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::FaultKind;

    #[test]
    fn keys_are_named_as_docker_names_them() {
        assert_eq!(parse("").unwrap(), b"");
        assert_eq!(parse("ctrl-p,ctrl-q").unwrap(), DEFAULT);
        assert_eq!(parse("a,ctrl-@,ctrl-z,ctrl-[,ctrl-_,DEL").unwrap(), b"a\0\x1a\x1b\x1f\x7f");
        let many = vec!["a"; KEYS_MAX + 1].join(",");
        for text in
            ["ctrl-", "ctrl-P", "ctrl-é", "ctrl-pq", "é", "ab", "a,", "del", "ctrl-`", &many]
        {
            assert_eq!(parse(text).unwrap_err().kind, FaultKind::Invalid, "{text}");
        }
        let message = parse("ab").unwrap_err().message;
        assert_eq!(message, "Invalid detach keys (ab) provided");
    }

    #[test]
    fn keys_are_found_in_pieces_and_others_are_handed_on() {
        let pass = |keys: &[u8], pieces: &[&[u8]]| {
            let mut watch = Watch::new(keys.to_vec());
            let mut all = Vec::new();
            for piece in pieces {
                let (pass, leaves) = watch.feed(piece);
                all.extend(pass);
                if leaves {
                    return (all, true);
                }
            }
            all.extend(watch.rest());
            (all, false)
        };
        assert_eq!(pass(b"", &[b"ls\x10", b"\x11no"]), (b"ls".to_vec(), true));
        assert_eq!(pass(b"", &[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(pass(b"", &[b"\x10", b"a\x11"]), (b"\x10a\x11".to_vec(), false));
        assert_eq!(pass(b"", &[b"a\x10"]), (b"a\x10".to_vec(), false));
        assert_eq!(pass(b"aab", &[b"a", b"a", b"a", b"b"]), (b"a".to_vec(), true));
        assert_eq!(pass(b"q", &[b"\x10\x11q"]), (b"\x10\x11".to_vec(), true));
    }
}
