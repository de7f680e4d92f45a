//! The `percolog` program: see `percolog::cli`.

use std::process::ExitCode;

#[cfg(not(feature = "sim"))]
fn main() -> ExitCode {
    percolog::cli::command::run()
}

/// The simulated runtime has no network to serve.
#[cfg(feature = "sim")]
fn main() -> ExitCode {
    eprintln!("this build has the simulated runtime: it runs tests, not a broker");
    ExitCode::FAILURE
}
