//! Runs on other machines: who asks them, what they are sent, and what they send back.
//!
//! An errand is the options and what was found out about the fleet; with it and a number, any process of
//! this release makes that run, and its figures are those of a run here, to the bit.

use super::runs::Ran;
use super::{CommandError, SimArgs};
use serde::{Deserialize, Serialize};

/// Who has runs made on other machines, where the program around the command line can.
pub trait Cluster {
    /// Has [`errand_run`] called somewhere with `errand` and each number below `runs`, and returns what
    /// that gave, in order.
    ///
    /// # Errors
    /// Why there is no cluster, or the first run that failed: a message for whoever typed the command.
    fn play(&self, address: &str, errand: &[u8], runs: usize) -> Result<Vec<Vec<u8>>, String>;
}

#[derive(Debug, Serialize, Deserialize)]
struct Errand {
    release: String,
    options: SimArgs,
}

/// Has all runs made on a cluster.
pub(super) fn play(
    mut options: SimArgs,
    cluster: &dyn Cluster,
    address: &str,
) -> Result<Vec<Ran>, CommandError> {
    options.capacity_requests_per_s =
        options.plan(1..=options.seeds.min(1))?.capacity_requests_per_s;
    options.start_from(&std::env::current_dir()?);
    let runs = options.runs();
    let release = env!("CARGO_PKG_VERSION").to_owned();
    // MessagePack keeps every bit of a float, infinities too.
    let errand = rmp_serde::to_vec_named(&Errand { release, options })?;
    let ran = cluster.play(address, &errand, runs)?;
    ran.iter().map(|it| Ok(rmp_serde::from_slice(it)?)).collect()
}

/// Makes a run of an errand here.
///
/// # Errors
/// What is wrong with the errand, or with the run.
pub fn errand_run(errand: &[u8], number: usize) -> Result<Vec<u8>, String> {
    let made = || -> Result<Vec<u8>, CommandError> {
        let Errand { release, options } = rmp_serde::from_slice(errand).map_err(|why| {
            format!("not what llmd-sched {} sends: {why}", env!("CARGO_PKG_VERSION"))
        })?;
        if release != env!("CARGO_PKG_VERSION") {
            let ours = env!("CARGO_PKG_VERSION");
            let message = format!("sent by llmd-sched {release}, this is {ours}: install the same");
            return Err(message.into());
        }
        if number >= options.runs() {
            return Err(format!("there is no run {number} of {}", options.runs()).into());
        }
        let (policy, seed) = options.run_of(number);
        let plan = options.plan(seed..=seed)?;
        let ran = Ran::of(plan.job((policy, seed)), &plan.world, plan.question)?;
        Ok(rmp_serde::to_vec_named(&ran)?)
    };
    made().map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::runs::tests::lines;
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        options: SimArgs,
    }

    /// A cluster of this process.
    struct Here;

    impl Cluster for Here {
        fn play(&self, _: &str, errand: &[u8], runs: usize) -> Result<Vec<Vec<u8>>, String> {
            (0..runs).map(|number| errand_run(errand, number)).collect()
        }
    }

    fn typed(extra: &[&str]) -> SimArgs {
        let all = ["sim", "--policy", "round-robin,default", "--seeds", "2", "--replicas", "2"];
        Typed::parse_from(all.iter().chain(extra)).options
    }

    #[test]
    fn runs_elsewhere_are_runs_here() {
        for extra in [
            &["--format", "chats", "--requests", "200"][..],
            &["--format", "chats", "--requests", "80", "--goodput", "0.9"],
            &["--format", "two-tenants", "--horizon-s", "20", "--load", "0.5"],
            &["--format", "agents", "--agents", "6", "--horizon-s", "60", "--join", "1@20"],
        ] {
            let options = typed(extra);
            let plan = options.plan(1..=2).unwrap();
            let jobs = (0..4).map(|number| plan.job(options.run_of(number)));
            let here: Vec<Ran> =
                jobs.map(|job| Ran::of(job, &plan.world, plan.question).unwrap()).collect();

            let there = play(typed(extra), &Here, "").unwrap();

            assert_eq!(lines(&there), lines(&here), "{extra:?}");
        }
    }

    #[test]
    fn what_cannot_be_played_is_said() {
        let run = |extra: &[&str], cluster| typed(extra).run(cluster).unwrap_err().to_string();
        let chats = ["--format", "chats", "--requests", "20"];
        let without = run(&[&chats[..], &["--ray"]].concat(), None);
        assert!(without.contains("pip install 'llmd-sched[ray]'"), "{without}");
        let none = run(&["--format", "chats", "--ray=auto", "--policy", "none"], Some(&Here));
        assert!(none.contains("policy \"none\" is unknown"), "{none}");
        assert!(errand_run(b"?", 0).unwrap_err().contains("not what llmd-sched"));
        let of = |release: &str| {
            let release = release.to_owned();
            rmp_serde::to_vec_named(&Errand { release, options: typed(&chats) }).unwrap()
        };
        let ours = env!("CARGO_PKG_VERSION");
        assert_eq!(errand_run(&of(ours), 4).unwrap_err(), "there is no run 4 of 4");
        assert!(errand_run(&of("9.9.9"), 0).unwrap_err().contains("sent by llmd-sched 9.9.9"));
    }
}
