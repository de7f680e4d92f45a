//! The `percolog` program: see `percolog::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    percolog::cli::command::run()
}
