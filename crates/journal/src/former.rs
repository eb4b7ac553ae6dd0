//! What former releases kept in files of their own is taken over once: what they say, and that it is
//! taken over, are saved together; from then on they are only removed, however often that is begun.

use crate::{Error, Journal, Kind, blocking};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) const TAKEN_OVER: Kind<(), ()> = Kind::new("taken over");

impl Journal {
    /// Says whether what former files say is in this one, so that they are only to be removed.
    pub fn has_taken_over(&self) -> bool {
        self.has_taken_over
    }

    /// Notes that what former files say is in this one: for the next [`Journal::save`], with it.
    pub fn take_over(&mut self) -> Result<(), Error> {
        self.has_taken_over = true;
        self.put(&TAKEN_OVER, &(), &())
    }

    /// Removes former files, and folders, that have been taken over.
    pub async fn remove_former(&mut self, paths: Vec<PathBuf>) -> Result<(), Error> {
        if !self.has_taken_over {
            return Ok(());
        }
        blocking(&self.path, move || paths.iter().try_for_each(|path| remove(path))).await?;
        // Whatever stands there later is not taken over.
        self.remove(&TAKEN_OVER, &())?;
        self.save().await?;
        self.has_taken_over = false;
        Ok(())
    }
}

/// Removes a file or a folder; its name is gone from the disk, too.
fn remove(path: &Path) -> Result<(), Error> {
    let removed = || {
        if path.symlink_metadata()?.is_dir() {
            std::fs::remove_dir_all(path)?;
        } else {
            std::fs::remove_file(path)?;
        }
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    match removed() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::Former { path: path.to_owned(), source: error })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
