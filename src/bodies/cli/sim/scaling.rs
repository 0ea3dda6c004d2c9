//! Fleets whose size follows the load, and loads that follow a day, from the command line.

use super::CommandError;
use clap::Args;
use llmd_brain::scale::{OngoingConfig, ScaleConfig};
use llmd_brain::sim::{Autoscale, Day, ScaleRule, Workload, World};
use serde::{Deserialize, Serialize};

#[derive(Debug, Args, Serialize, Deserialize)]
pub(super) struct ScalingArgs {
    /// Scale the fleet, from --min-replicas to all engines: `slo` by how near the objectives are,
    /// `ongoing:N` by Ray Serve's rule, N open requests a replica.
    #[arg(long, value_name = "RULE", value_parser = rule)]
    autoscale: Option<Rule>,
    /// Fewest replicas of a fleet that is scaled.
    #[arg(long, default_value_t = 1)]
    min_replicas: u32,
    /// Share of the requests that `slo` is to keep within their objectives.
    #[arg(long, default_value_t = 0.95)]
    attainment: f64,
    /// What a replica takes from the order until it serves.
    #[arg(long, default_value_t = 60.0)]
    startup_s: f64,
    /// How often the autoscaler looks.
    #[arg(long, default_value_t = 10.0)]
    look_s: f64,
    /// Replicas are removed after so long without need; by default 300 for `slo`, Ray's 600 for
    /// `ongoing`.
    #[arg(long)]
    down_after_s: Option<f64>,
    /// Requests of an open loop come in the rhythm of a day, whose nights have this share of the rate
    /// at noon.
    #[arg(long, value_name = "SHARE")]
    day: Option<f64>,
    /// In that day, for a fiftieth of it at 7 tenths, so many times as many requests.
    #[arg(long, default_value_t = 1.0, requires = "day")]
    burst: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Rule {
    Slo,
    Ongoing(f64),
}

fn rule(text: &str) -> Result<Rule, String> {
    match text.split_once(':') {
        None if text == "slo" => Ok(Rule::Slo),
        Some(("ongoing", target)) => {
            target.parse().map(Rule::Ongoing).map_err(|_| format!("{target:?} is no number"))
        }
        _ => Err("give slo, or ongoing:N with N open requests a replica".to_owned()),
    }
}

impl ScalingArgs {
    /// Makes the day of a workload whose requests come when they come.
    pub(super) fn shape(&self, workload: &mut Workload, is_open: bool) -> Result<(), CommandError> {
        let Some(trough) = self.day else { return Ok(()) };
        if !is_open {
            return Err("--day is of an open loop, and this is a closed one".into());
        }
        if !(0.0..=1.0).contains(&trough) || !(0.0..=100.0).contains(&self.burst) {
            return Err("--day is a share from 0 to 1, --burst a factor up to 100".into());
        }
        Day { trough, burst: self.burst, burst_at: 0.7, burst_for: 0.02 }.shape(workload);
        Ok(())
    }

    /// Sets the autoscaler.
    pub(super) fn apply(&self, world: &mut World) {
        let max_replicas = world.engines.len() as u32;
        let min_replicas = self.min_replicas;
        let rule = self.autoscale.map(|rule| match rule {
            Rule::Slo => {
                let usual = ScaleConfig::default();
                ScaleRule::Slo(ScaleConfig {
                    min_replicas,
                    max_replicas,
                    attainment: self.attainment,
                    startup_s: self.startup_s,
                    down_after_s: self.down_after_s.unwrap_or(usual.down_after_s),
                    ..usual
                })
            }
            Rule::Ongoing(target_ongoing_requests) => {
                let usual = OngoingConfig::default();
                ScaleRule::Ongoing(OngoingConfig {
                    min_replicas,
                    max_replicas,
                    target_ongoing_requests,
                    downscale_delay_s: self.down_after_s.unwrap_or(usual.downscale_delay_s),
                    ..usual
                })
            }
        });
        world.autoscale = rule.map(|rule| Autoscale {
            rule,
            period_s: self.look_s,
            startup_s: self.startup_s,
            initial_replicas: min_replicas,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{Rule, rule};

    #[test]
    fn rules_are_read_or_refused() {
        assert_eq!(rule("slo"), Ok(Rule::Slo));
        assert_eq!(rule("ongoing:2.5"), Ok(Rule::Ongoing(2.5)));
        for bad in ["", "ongoing", "ongoing:", "slo:1", "cpu"] {
            assert!(rule(bad).is_err(), "{bad}");
        }
    }
}
