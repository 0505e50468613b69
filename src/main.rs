//! The `sightline` binary.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

// The system's allocator keeps what ten thousand connections took, long after they are gone; this one
// gives it back (`.cargo/config.toml`), and holds them in less.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    sightline::cli::main()
}
