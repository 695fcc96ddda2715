//! The staterouter program.

fn main() -> std::process::ExitCode {
    staterouter::cli::run()
}
