//! All that the cluster knows, in one file for a bad day.
//!
//! `skep backup 1`, a newline, how it is kept (`0` in the clear, `1` sealed by the unlock key), the
//! SHA-256 digest of what follows, and that: a snapshot of the log, whose form says its release.

use ca::UnlockKey;
use sha2::{Digest, Sha256};
use store::View;
use types::{Fault, FaultKind};

const MAGIC: &[u8] = b"skep backup 1\n";
const CLEAR: u8 = b'0';
const SEALED: u8 = b'1';

/// The file of a state. Where managers are locked it takes their unlock key.
pub fn write(view: &View) -> Result<Vec<u8>, Fault> {
    let cluster = view.cluster().ok_or_else(|| Fault::unavailable("there is no cluster yet"))?;
    let state = raft::write_state(view).map_err(|error| Fault::internal(error.to_string()))?;
    let (kind, body) = match UnlockKey::parse(&cluster.unlock_key.0) {
        Some(key) => (SEALED, key.seal().seal(MAGIC, &state)),
        None => (CLEAR, state),
    };
    Ok([MAGIC, &[kind], &Sha256::digest(&body), &body].concat())
}

/// Reads a file, whole or not at all.
pub fn read(file: &[u8], unlock_key: &str) -> Result<View, Fault> {
    let damaged = || Fault::invalid("this is no backup of a cluster, or it is damaged");
    let rest = file.strip_prefix(MAGIC).ok_or_else(damaged)?;
    let (kind, rest) = rest.split_first().ok_or_else(damaged)?;
    let (digest, body) = rest.split_first_chunk::<32>().ok_or_else(damaged)?;
    if Sha256::digest(body).as_slice() != digest {
        return Err(damaged());
    }
    let opened;
    let state = match *kind {
        CLEAR => body,
        SEALED => {
            opened = open(body, unlock_key)?;
            &opened
        }
        _ => return Err(damaged()),
    };
    let view = raft::read_state(state);
    let view = view.map_err(|error| Fault::invalid(format!("cannot read the backup: {error}")))?;
    if view.cluster().is_none() { Err(damaged()) } else { Ok(view) }
}

fn open(body: &[u8], unlock_key: &str) -> Result<Vec<u8>, Fault> {
    if unlock_key.is_empty() {
        let text = "this backup is locked by the unlock key that the cluster had then";
        return Err(Fault::new(FaultKind::Unauthorized, text));
    }
    let key = UnlockKey::parse(unlock_key).ok_or_else(|| Fault::invalid("invalid key string"))?;
    let wrong = |_| Fault::new(FaultKind::Unauthorized, "the backup is locked by another key");
    key.seal().open(MAGIC, body).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Tx;
    use types::{Cluster, SecretText, Timestamp, Version};

    fn view(unlock_key: &str) -> View {
        let mut tx = Tx::new(&View::default());
        let unlock_key = SecretText(unlock_key.to_owned());
        let mut cluster = Cluster { id: "c1".into(), unlock_key, ..Cluster::default() };
        cluster.root_ca.key = "a private key".to_owned();
        tx.put_cluster(cluster);
        let mut view = View::default();
        view.apply(&tx.finish(), Version(7), Timestamp(7));
        view
    }

    fn holds(file: &[u8], word: &[u8]) -> bool {
        file.windows(word.len()).any(|window| window == word)
    }

    #[test]
    fn a_backup_is_read_whole_or_not_at_all() {
        let file = write(&view("")).unwrap();
        let read_back = read(&file, "").unwrap();
        assert_eq!((read_back.cluster(), read_back.version()), (view("").cluster(), Version(7)));
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(read(&changed, "").is_err(), "byte {at}");
        }
        assert!(read(&file[..file.len() - 1], "").is_err());
        assert!(read(b"", "").is_err());
        assert!(write(&View::default()).is_err());
    }

    #[test]
    fn a_backup_of_locked_managers_is_locked_as_well() {
        let key = UnlockKey::draw().render();
        let file = write(&view(&key)).unwrap();
        assert!(!holds(&file, b"private key") && holds(&write(&view("")).unwrap(), b"private key"));
        assert_eq!(read(&file, &key).unwrap().cluster(), view(&key).cluster());
        for wrong in ["", &UnlockKey::draw().render()] {
            assert_eq!(read(&file, wrong).unwrap_err().kind, FaultKind::Unauthorized);
        }
        assert_eq!(read(&file, "x").unwrap_err().kind, FaultKind::Invalid);
    }
}
