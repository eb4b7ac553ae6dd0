//! Builds the small init of containers (`init/`), which the crate carries.

#![allow(clippy::unwrap_used, reason = "cargo sets these, and a build that fails should end")]
#![allow(clippy::disallowed_methods, reason = "a compiler is started")]

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=init");
    let program = PathBuf::from(env::var_os("OUT_DIR").unwrap()).join("init");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap();
    if !["x86_64", "aarch64"].contains(&arch.as_str()) {
        // Whoever asks for an init there is told that there is none.
        std::fs::write(program, []).unwrap();
        return;
    }
    let mut compiler = Command::new(env::var_os("RUSTC").unwrap());
    compiler.args(["--edition", "2024", "--crate-name", "init", "init/main.rs"]);
    compiler.arg("--target").arg(env::var_os("TARGET").unwrap()).arg("-o").arg(program);
    let codegen = ["panic=abort", "opt-level=s", "relocation-model=static", "strip=symbols"];
    let linked = ["-nostartfiles", "-nostdlib", "-static", "-Wl,--build-id=none"];
    let linked = linked.map(|option| format!("link-arg={option}"));
    for option in codegen.map(str::to_owned).into_iter().chain(linked) {
        compiler.arg("-C").arg(option);
    }
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        compiler.arg("-C").arg(format!("linker={}", linker.to_string_lossy()));
    }
    assert!(compiler.status().unwrap().success(), "cannot build the init of containers");
}
