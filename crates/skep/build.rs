//! How the released program is linked: smaller, on disk and in memory.

use std::env;
use std::process::Command;

/// Functions with the same machine code become one.
const FOLD: &str = "-Wl,--icf=all";
/// What the loader has to adjust is told by bits instead of 24 bytes each.
const PACK: &str = "-Wl,-z,pack-relative-relocs";
/// The first glibc whose loader understands that.
const PACKS: (u32, u32) = (2, 36);

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |variable, value| env::var(variable).is_ok_and(|found| found == value);
    // The linker that Rust brings along is the one used there.
    let brings_linker = is("TARGET", "x86_64-unknown-linux-gnu");
    if brings_linker && is("PROFILE", "release") {
        println!("cargo::rustc-link-arg-bins={FOLD}");
        if glibc().is_some_and(|version| PACKS <= version) {
            println!("cargo::rustc-link-arg-bins={PACK}");
        }
    }
}

/// The version of this machine's glibc.
#[expect(clippy::disallowed_methods, reason = "nobody waits for a build script")]
fn glibc() -> Option<(u32, u32)> {
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(said.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
