//! Both ends of `make bench-gateway`: engines that cost nothing, and clients.
//!
//! `upstream` answers as an engine would, without thinking; `load` keeps connections busy and prints
//! one line of JSON. Both are made to be cheap, so that what stands between them is what is measured.

mod load;
mod upstream;
mod wire;

use std::process::ExitCode;

fn main() -> ExitCode {
    // `cargo bench` puts a flag of its own behind ours.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    let outcome = match args.first().map(String::as_str) {
        Some("upstream") => runtime.block_on(upstream::serve(&args[1..])),
        Some("load") => runtime.block_on(load::run(&args[1..])),
        // Nothing is measured by `cargo bench` alone.
        _ => {
            eprintln!(
                "usage: upstream EVENTS INTERVAL_US | load ADDRESS CONNECTIONS REQUESTS BYTES PREFIXES stream|whole"
            );
            return ExitCode::SUCCESS;
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gateway bench: {error}");
            ExitCode::FAILURE
        }
    }
}
