//! `skep check`: what this machine needs, and whether it has it; and what others have on it that
//! the daemon will live beside.

use crate::daemon::kernel_config;
use crate::daemon::options::{GATEWAY_SUBNET, RUN};
use std::path::Path;
use std::process::ExitCode;

/// Prints each need; fails when one is missing.
#[expect(clippy::print_stdout, reason = "the user asked for this report")]
pub(crate) fn run() -> ExitCode {
    let needs = linux::check();
    let mut code = ExitCode::SUCCESS;
    for need in &needs {
        let word = if need.present { "yes" } else { "NO " };
        println!("{word}  {:<28} {}", need.name, need.why);
        if !need.present {
            println!("     found: {}; {}", need.found, need.remedy);
            code = ExitCode::FAILURE;
        }
    }
    let config = kernel_config(Path::new(RUN), GATEWAY_SUBNET);
    match linux::Kernel::beside(&config) {
        Ok(notes) => notes.iter().for_each(|note| println!("note {note}")),
        Err(error) => println!("note cannot look for others on this node: {error}"),
    }
    code
}
