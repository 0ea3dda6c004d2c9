//! The `llmd-sched` binary.

fn main() -> std::process::ExitCode {
    llmd_bodies::cli::run(std::env::args_os(), None).into()
}
