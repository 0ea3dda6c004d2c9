//! One file for each thing that the fleet keeps.

mod health;
mod ledger;
mod ledger_oracle;
mod loras;
mod metrics;
mod others;
mod peers;
mod roster;

use super::{Booking, EndpointSpec, Fleet, FleetConfig};
use crate::{EndpointId, Ticket, Time};

fn at(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

fn spec(address: &str) -> EndpointSpec {
    EndpointSpec::new(address, "qwen")
}

/// A fleet of `n` endpoints, `e0` and so on.
fn fleet_of(n: usize) -> (Fleet, Vec<EndpointId>) {
    let mut fleet = Fleet::new(FleetConfig { router: "me".into(), ..FleetConfig::default() });
    let ids = (0..n).map(|i| fleet.join(at(0), spec(&format!("e{i}"))).unwrap()).collect();
    (fleet, ids)
}

fn booking(ticket: u64, prompt_tokens: u32, uncached_tokens: u32) -> Booking {
    Booking {
        ticket: Ticket(ticket),
        prompt_tokens,
        uncached_tokens,
        predicted: Default::default(),
        objective_tpot_ms: None,
        expected_output_tokens: None,
        first_token_is_untold: false,
    }
}
