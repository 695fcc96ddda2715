//! The staterouter program.

/// Sessions come in all sizes and go in masses. This allocator holds little more than they need
/// and gives the rest back to the system, which the C library's does not (benches/README.md).
/// It does not build for Windows, whose own one serves there.
#[cfg(unix)]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    staterouter::cli::run()
}
