//! The index and its rivals in one process, on the same input, in turns.
//!
//! Prints a table of figures, most of them ratios of the rival's cost to ours (higher is better for
//! us), and `BENCH {json}` last. Every answer of ours is compared with an oracle's, off the clock.

mod allocator;
mod clock;
mod contenders;
mod fleet_trace;
mod ops;
mod oracle;
mod ours;
mod parts;
mod race;
mod report;
mod rng;
mod settings;
mod tree3;

use std::process::ExitCode;

fn main() -> ExitCode {
    let settings = match settings::Settings::from_args(std::env::args().skip(1)) {
        Ok(settings) => settings,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(64);
        }
    };
    let mut report = report::Report::default();
    for part in parts::PARTS.iter().filter(|part| settings.wants(part)) {
        println!("# {}", part.names[0]);
        (part.run)(&settings, &mut report);
    }
    report.finish();
    ExitCode::SUCCESS
}
