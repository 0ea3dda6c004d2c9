//! Runs of steps are the same steps.

use crate::engine::{EngineConfig, EngineModel, EngineRequest, RequestId, Step};
use crate::predict::EngineProfile;
use crate::{BlockKey, Time};
use proptest::prelude::*;
use std::time::Duration;

/// When each request had its first and its last token, and each block left.
type Told = Vec<(Time, &'static str, u64)>;

fn play(arrivals: &[(u64, u32, u32)], most: u32, step_jitter: f64) -> Told {
    let mut config = EngineConfig::new(*EngineProfile::named("llama-3.1-8b_h100_tp1").unwrap());
    config.kv_blocks = 120;
    config.step_jitter = step_jitter;
    let mut engine = EngineModel::new(config).unwrap();
    let (mut told, mut step, mut now) = (Told::new(), Step::default(), Time::ZERO);
    let mut coming = arrivals.iter().enumerate().peekable();
    let mut arrives = Time::ZERO;
    loop {
        let planned = engine.begin_run(now, most);
        let next =
            coming.peek().map(|(_, (pause_us, ..))| arrives + Duration::from_micros(*pause_us));
        match (planned, next) {
            (None, None) => return told,
            (Some(planned), next) if next.is_none_or(|next| planned.ends <= next) => {
                now = planned.ends;
                engine.finish_step(&mut step);
                let mut tell = |what, ids: &[RequestId]| {
                    told.extend(ids.iter().map(|id| (now, what, id.0)));
                };
                tell("first", &step.first_tokens);
                tell("finished", &step.finished);
                tell("preempted", &step.preempted);
                told.push((now, "changes", step.changes.len() as u64));
            }
            (_, Some(next)) => {
                let Some((number, &(_, prompt_tokens, output_tokens))) = coming.next() else {
                    continue;
                };
                arrives = next;
                now = now.max(next);
                let keys = (0..u64::from(prompt_tokens) / 16)
                    .map(|at| BlockKey((number as u64 % 3) << 32 | at))
                    .collect();
                let id = RequestId(number as u64);
                let request = EngineRequest { id, prompt_tokens, output_tokens, keys };
                engine.submit_at(next, request).unwrap();
            }
            (Some(_), None) => unreachable!("nothing comes before it ends"),
        }
    }
}

proptest! {
    #[test]
    fn a_run_is_its_steps(
        arrivals in prop::collection::vec((0_u64..400_000, 1_u32..600, 1_u32..90), 1..12),
        step_jitter in prop::sample::select(vec![0.0, 0.2]),
    ) {
        let changed = |told: Told| -> Told {
            told.into_iter().filter(|(_, what, count)| *what != "changes" || *count > 0).collect()
        };
        let one_by_one = changed(play(&arrivals, 1, step_jitter));
        prop_assert_eq!(&changed(play(&arrivals, 256, step_jitter)), &one_by_one);
        prop_assert_eq!(&changed(play(&arrivals, 3, step_jitter)), &one_by_one);
    }
}
