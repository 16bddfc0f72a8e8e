//! The `vitalbridge` program: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    vitalbridge::cli::main()
}
