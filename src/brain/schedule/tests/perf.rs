use crate::fleet::*; use crate::index::*; use crate::predict::*; use crate::schedule::*; use crate::*;
#[test]
fn perf() {
    for (name, n) in [("default", 64u32), ("llm-d", 64), ("five", 64), ("least-request", 64), ("default", 1024)] {
        for learned in [false, true] {
        let mut fleet = Fleet::new(FleetConfig::default());
        let mut predictor = Predictor::new(PredictConfig { prior_profile: if learned { "qwen3-32b_h100_tp2".into() } else { String::new() }, ..Default::default() }).unwrap();
        let mut m = Matches::new(); m.reset(n as usize, 512);
        let mut rng = rng::Rng::new(1);
        for i in 0..n {
            let mut spec = EndpointSpec::new(format!("http://e{i}"), "m"); spec.capacity.kv_blocks = 10000; spec.capacity.block_size = 16;
            let id = fleet.join(Time::ZERO, spec).unwrap(); predictor.admit(id.slot, 0, None);
            m.depth_blocks[i as usize] = rng.below(512) as u32; m.generation[i as usize] = 1; m.source[i as usize] = MatchSource::Exact;
            fleet.observe(Time::ZERO, id, &MetricsSample { waiting_requests: Some(rng.next_f64()*9.0), running_requests: Some(3.0), kv_usage: Some(rng.next_f64()), ..Default::default() }).unwrap();
            for _ in 0..rng.below(5) { fleet.book(Time::ZERO, id, &Booking { ticket: Ticket(0), prompt_tokens: 3000, uncached_tokens: 1000, predicted_ttft_ms: None, predicted_tpot_ms: None }).unwrap(); }
        }
        let profile = if name == "five" { ProfileChoice::Inline(ProfileConfig { scorers: ["queue-scorer","kv-cache-utilization-scorer","prefix-cache-scorer","active-request-scorer","token-load-scorer"].iter().map(|n| ScorerConfig::new(n, 1.0)).collect(), ..Default::default() }) } else { ProfileChoice::Named(name.into()) };
        let mut s = Scheduler::new(&ScheduleConfig { profile, ..Default::default() }, 1).unwrap();
        let req = Request { prompt_tokens: 8192, block_tokens: 16, session_id: Some("a".into()), ..Default::default() };
        let mut best = f64::INFINITY;
        for _ in 0..20 { let t = std::time::Instant::now(); for _ in 0..2000 { std::hint::black_box(s.choose(Time::from_nanos(1000), &req, &fleet, &predictor, &m, &[]).unwrap()); } best = best.min(t.elapsed().as_nanos() as f64 / 2000.0); }
        println!("{name} {n} learned {learned}: {best:.0} ns");
        }
    }
}
