//! The path at which programs look for Docker: a link to our socket, where nobody else has one.
//!
//! What stands there and is not our link is somebody's, and stays.

use anyhow::{Context, Result};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Makes the link to `socket`, and says in the log whether it could.
pub(super) fn link(path: &Path, socket: &Path) {
    if is_ours(path, socket) {
        return;
    }
    match symlink(socket, path) {
        Ok(()) => tracing::info!(path = %path.display(), "the API answers where Docker's would"),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => tracing::warn!(
            path = %path.display(),
            "somebody else's socket is there and stays: programs that look for Docker do not find \
             skep; if it is a leftover, remove it and start skep again"
        ),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot answer where Docker would");
        }
    }
}

/// Removes the link, if it is ours.
///
/// # Errors
/// When the file system refuses.
pub(crate) fn remove(path: &Path, socket: &Path) -> Result<()> {
    if is_ours(path, socket) {
        fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

fn is_ours(path: &Path, socket: &Path) -> bool {
    fs::read_link(path).is_ok_and(|target| target == socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn it_answers_where_docker_would_and_goes_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, socket) = (folder.path().join("docker.sock"), folder.path().join("skep.sock"));
        let _api = UnixListener::bind(&socket).unwrap();
        link(&path, &socket);
        UnixStream::connect(&path).unwrap();
        // A daemon that was killed has left it.
        link(&path, &socket);
        UnixStream::connect(&path).unwrap();
        remove(&path, &socket).unwrap();
        assert!(fs::symlink_metadata(&path).is_err());
        remove(&path, &socket).unwrap();
    }

    #[test]
    fn what_somebody_else_has_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (path, socket) = (folder.path().join("docker.sock"), folder.path().join("skep.sock"));
        let theirs = UnixListener::bind(&path).unwrap();
        link(&path, &socket);
        remove(&path, &socket).unwrap();
        UnixStream::connect(&path).unwrap();
        theirs.accept().unwrap();
        fs::remove_file(&path).unwrap();
        symlink("/elsewhere", &path).unwrap();
        link(&path, &socket);
        remove(&path, &socket).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("/elsewhere"));
    }
}
