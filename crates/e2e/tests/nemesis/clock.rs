//! The clock of one manager, which jumps.
//!
//! The machine's own clock is everybody's, so the manager is started with a library before the system's
//! that adds what a file says to the time of day; the time that only goes on stays as it is.

use e2e::{Lab, Shown};
use std::path::PathBuf;

/// The manager whose clock it is.
pub(crate) const CLOCKED: u8 = 4;

/// Debian's package `faketime`.
fn library() -> PathBuf {
    let arch = std::env::consts::ARCH;
    format!("/usr/lib/{arch}-linux-gnu/faketime/libfaketimeMT.so.1").into()
}

fn file(lab: &Lab) -> PathBuf {
    lab.folder().join("clock")
}

/// Has the clock go ahead of the machine's by so many seconds, or behind it.
pub(crate) fn set(lab: &Lab, seconds: i64) {
    let next = file(lab).with_extension("next");
    std::fs::write(&next, format!("{seconds:+}\n")).unwrap();
    std::fs::rename(next, file(lab)).unwrap();
}

/// Runs a verb of `skep lab` whose daemon has this clock.
pub(crate) fn lab_with_clock(lab: &Lab, arguments: &[&str]) -> Shown {
    let text = |path: PathBuf| path.display().to_string();
    lab.lab_in(
        &[
            ("LD_PRELOAD", &text(library())),
            ("FAKETIME_TIMESTAMP_FILE", &text(file(lab))),
            // It jumps at once, and leaves nothing behind.
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DISABLE_SHM", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ],
        arguments,
    )
}

/// Starts the manager anew, with this clock, which is right at first.
pub(crate) fn give(lab: &Lab) {
    assert!(library().exists(), "the package faketime is not installed");
    set(lab, 0);
    lab.lab(&["kill", &format!("node-{CLOCKED}")]).good();
    lab_with_clock(lab, &["start", &format!("node-{CLOCKED}")]).good();
}

/// Says whether the manager sees the time of day as it was set: so many seconds from the machine's own.
pub(crate) fn is_seen(lab: &Lab, seconds: i64) -> Result<(), String> {
    let (own, other) = (time_of_day(lab, CLOCKED)?, time_of_day(lab, 1)?);
    let off = own - other - seconds;
    if off.abs() < 60 { Ok(()) } else { Err(format!("{off} s off from {seconds:+} s")) }
}

/// In seconds since some day, as a node's daemon sees it.
fn time_of_day(lab: &Lab, node: u8) -> Result<i64, String> {
    let shown = lab.docker_at(node, &["info", "--format", "{{.SystemTime}}"]);
    let read = || {
        let mut parts = shown.out.trim().split(['-', 'T', ':', '.', 'Z']);
        let mut next = || parts.next()?.parse::<i64>().ok();
        let (year, month, day) = (next()?, next()?, next()?);
        // Of a year that begins in March, months have 153 days in five.
        let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
        let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day;
        Some(days * 24 * 3600 + next()? * 3600 + next()? * 60 + next()?)
    };
    read().ok_or_else(|| format!("{shown:?}"))
}
