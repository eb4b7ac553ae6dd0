//! `skep check`: what this machine needs, and whether it has it.

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
    code
}
