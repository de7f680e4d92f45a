//! The `percolog` program: see `percolog::cli`.

use std::process::ExitCode;

/// glibc's allocator gives every large buffer back to the kernel, which clears new pages for the next
/// one, and searches long lists where cores free what others allocated: 12 to 25 % of the CPU time of
/// Produce requests (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
