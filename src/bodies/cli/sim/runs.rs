//! Runs of policies and seeds, as many at a time as there are cores, and what is printed of them.

use super::CommandError;
use llmd_brain::sim::{Summary, Workload, World, goodput_requests_per_s, run};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// One run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ran {
    policy: String,
    seed: u64,
    #[serde(flatten)]
    figures: Figures,
    /// Of each tenant, where there are any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    tenants: BTreeMap<u32, Summary>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Figures {
    Run(Box<Summary>),
    Goodput { attainment: f64, goodput_requests_per_s: f64, goodput_load: f64 },
}

/// What is asked of each policy.
#[derive(Debug, Clone, Copy)]
pub(super) enum Question {
    /// One run's figures.
    Run,
    /// The highest rate with this share within the objectives, up to some times this capacity.
    Goodput { attainment: f64, capacity_requests_per_s: f64 },
}

/// Highest load at which a goodput is looked for: prefixes in common raise it over what a flood under
/// least-request completes.
const MOST_LOAD: f64 = 4.0;
/// To a 64th of the capacity.
const HALVINGS: u32 = 8;

impl Question {
    /// Figures of all, and of each tenant.
    fn answer(
        self,
        workload: &Workload,
        world: &World,
    ) -> Result<(Figures, BTreeMap<u32, Summary>), CommandError> {
        match self {
            Self::Run => {
                let outcome = run(workload, world)?;
                let tenants: BTreeSet<u32> = outcome.rows.iter().map(|it| it.tenant).collect();
                let named = tenants.into_iter().filter(|tenant| *tenant > 0);
                let tenants = named.map(|it| (it, outcome.summary_of(it))).collect();
                Ok((Figures::Run(Box::new(outcome.summary())), tenants))
            }
            Self::Goodput { attainment, capacity_requests_per_s: capacity } => {
                let most = MOST_LOAD * capacity;
                let rate = goodput_requests_per_s(workload, world, attainment, most, HALVINGS)?;
                let figures = Figures::Goodput {
                    attainment,
                    goodput_requests_per_s: rate,
                    goodput_load: rate / capacity,
                };
                Ok((figures, BTreeMap::new()))
            }
        }
    }
}

impl Ran {
    /// Makes a run.
    pub(super) fn of(
        (policy, seed, workload): Job<'_>,
        world: &World,
        question: Question,
    ) -> Result<Self, CommandError> {
        let mut world = world.clone().with_policy(policy);
        world.seed = seed;
        let (figures, tenants) = question.answer(workload, &world)?;
        Ok(Self { policy: policy.to_owned(), seed, figures, tenants })
    }

    /// Prints it as a line of JSON.
    pub(super) fn print_json(&self) {
        if let Ok(line) = serde_json::to_string(self) {
            let _ = writeln!(std::io::stdout().lock(), "{line}");
        }
    }
}

/// A run to make: a policy, a seed, and what is played.
pub(super) type Job<'a> = (&'a str, u64, &'a Workload);

/// Makes all runs here, and says how far it is.
pub(super) fn play(
    jobs: &[Job<'_>],
    world: &World,
    question: Question,
    as_json: bool,
) -> Result<Vec<Ran>, CommandError> {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let ran: Mutex<Vec<(usize, Ran)>> = Mutex::new(Vec::new());
    let failed: Mutex<Option<String>> = Mutex::new(None);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(&job) = jobs.get(number) else { return };
            match Ran::of(job, world, question) {
                Ok(it) => {
                    let so_far = done.fetch_add(1, Ordering::Relaxed) + 1;
                    eprint!("\r{so_far} of {} runs", jobs.len());
                    if as_json {
                        it.print_json();
                    }
                    ran.lock().unwrap_or_else(PoisonError::into_inner).push((number, it));
                }
                Err(why) => {
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_string());
                    return;
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(jobs.len()) {
            scope.spawn(work);
        }
    });
    eprintln!();
    if let Some(why) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(why.into());
    }
    let mut ran = ran.into_inner().unwrap_or_else(PoisonError::into_inner);
    ran.sort_by_key(|(number, _)| *number);
    Ok(ran.into_iter().map(|(_, it)| it).collect())
}

/// A row for each policy: means over its seeds.
pub(super) fn print_table(ran: &[Ran]) {
    for (number, runs) in ran.chunk_by(|one, other| one.policy == other.policy).enumerate() {
        let summaries: Vec<&Summary> = runs
            .iter()
            .filter_map(|it| match &it.figures {
                Figures::Run(summary) => Some(&**summary),
                Figures::Goodput { .. } => None,
            })
            .collect();
        if summaries.is_empty() {
            print_goodput(number == 0, runs);
        } else {
            print_summaries(number == 0, &runs[0].policy, &summaries);
            for tenant in runs[0].tenants.keys() {
                let of_tenant: Vec<_> =
                    runs.iter().filter_map(|it| it.tenants.get(tenant)).collect();
                print_summaries(false, &format!("  tenant {tenant}"), &of_tenant);
            }
        }
    }
}

fn print_goodput(is_first: bool, runs: &[Ran]) {
    if is_first {
        println!("{:24} {:>10} {:>6}", "policy", "goodput/s", "load");
    }
    let (mut rates, mut loads) = (0.0, 0.0);
    for it in runs {
        if let Figures::Goodput { goodput_requests_per_s, goodput_load, .. } = it.figures {
            rates += goodput_requests_per_s;
            loads += goodput_load;
        }
    }
    let count = runs.len() as f64;
    println!("{:24} {:10.3} {:6.3}", runs[0].policy, rates / count, loads / count);
}

fn print_summaries(is_first: bool, policy: &str, runs: &[&Summary]) {
    if is_first {
        println!(
            "{:24} {:>6} {:>6} {:>10} {:>9} {:>9} {:>8} {:>8} {:>9} {:>7} {:>9} {:>7} {:>7}",
            "policy",
            "SLO %",
            "hit %",
            "goodput/s",
            "TTFT p50",
            "TTFT p99",
            "TPOT p50",
            "TPOT p99",
            "longest s",
            "retries",
            "$/M tok",
            "repl. h",
            "orders"
        );
    }
    let mean =
        |of: fn(&Summary) -> f64| runs.iter().map(|it| of(it)).sum::<f64>() / runs.len() as f64;
    println!(
        "{:24} {:6.2} {:6.2} {:10.3} {:9.0} {:9.0} {:8.1} {:8.1} {:9.0} {:7.0} {:9.3} {:7.2} {:7.1}",
        policy,
        mean(|it| it.slo_attainment * 100.0),
        mean(|it| it.hit_ratio_with_host * 100.0),
        mean(|it| it.goodput_requests_per_s),
        mean(|it| it.ttft_p50_ms),
        mean(|it| it.ttft_p99_ms),
        mean(|it| it.tpot_p50_ms),
        mean(|it| it.tpot_p99_ms),
        mean(|it| it.longest_wait_ms / 1e3),
        mean(|it| it.retries as f64),
        mean(|it| it.usd_per_million_tokens),
        mean(|it| it.replica_hours),
        mean(|it| it.scale_orders as f64),
    );
}

#[cfg(test)]
pub(super) mod tests {
    use super::Ran;

    /// Runs as they are printed.
    pub(in super::super) fn lines(ran: &[Ran]) -> Vec<String> {
        ran.iter().map(|it| serde_json::to_string(it).unwrap()).collect()
    }
}
