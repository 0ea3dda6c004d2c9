use super::sim::chat::CHAT;
use super::sim::{Scenario, run};
use crate::schedule::{ProfileChoice, ScheduleConfig};

fn named(name: &str) -> ScheduleConfig {
    ScheduleConfig { profile: ProfileChoice::Named(name.into()), ..ScheduleConfig::default() }
}

#[test]
fn table() {
    let profiles = std::env::var("PROFILES").unwrap_or("default".into());
    let base = Scenario { chat: CHAT, endpoints: 4, kv_share: 0.7, engine: "qwen3-32b_h100_tp2", predicts: std::env::var("PRED").is_ok(), samples: std::env::var("NOSAMPLE").is_err() };
    let mut lines = vec![String::new(); 20];
    let (mut gh, mut gp, mut gm) = (vec![0.0; 20], vec![0.0; 20], vec![0.0; 20]);
    let n = 8.0;
    for (think, sys, user, out) in [(1000.0, 1536, 256, 128), (0.0, 1536, 256, 128), (4000.0, 1536, 256, 128), (1000.0, 4096, 256, 128), (1000.0, 512, 512, 64), (3000.0, 2048, 1024, 256),(0.0, 512, 128, 64), (0.0, 2048, 1024, 32)] {
        let mut s = base; s.chat.think_ms = think; s.chat.system_tokens = sys; s.chat.user_tokens = user; s.chat.output_tokens = out;
        for (i, p) in profiles.split(',').enumerate() {
            let mut h = 0.0; let mut p50 = 0.0; let mut p99 = 0.0; let mut m = 0.0;
            for seed in 1..=4 { let o = run(&s, &named(p), seed); h += o.hit_tokens as f64 / o.prompt_tokens as f64 / 4.0; p50 += o.ttft_percentile_ms(50) / 4.0; p99 += o.ttft_percentile_ms(99) / 4.0; m += o.makespan_ms / 4e3;  }
            gh[i] += h / n; gp[i] += f64::ln(p50) / n; gm[i] += f64::ln(p99) / n; 
            lines[i] += &format!(" {h:.3}/{p50:.0}/{p99:.0}/{m:.0}");
        }
    }
    for (i, p) in profiles.split(',').enumerate() { println!("{p:>24} H {:.4} P50 {:.2} P99 {:.1} |{}", gh[i], gp[i].exp(), gm[i].exp(), lines[i]); }
}

#[test]
fn open_table() {
    let profiles = std::env::var("PROFILES").unwrap_or("default".into());
    for (systems, sys, user, out, per_s, kv) in [(1, 4096, 256, 64, 60.0, 0.3), (1, 4096, 256, 64, 120.0, 0.3), (4, 2048, 512, 128, 60.0, 0.2), (32, 4096, 512, 128, 30.0, 0.3), (32, 8192, 512, 128, 30.0, 0.3), (2000, 4096, 1024, 256, 8.0, 0.05), (2000, 4096, 1024, 256, 12.0, 0.05)] {
        let n = 800;
        let s = Scenario { chat: super::sim::chat::Chat { sessions: n, turns: 1, system_prompts: systems, system_tokens: sys, user_tokens: user, output_tokens: out, think_ms: 0.0, start_ms: n as f64 / per_s * 1e3 }, endpoints: 4, kv_share: kv, engine: "qwen3-32b_h100_tp2", predicts: std::env::var("PRED").is_ok(), samples: true };
        println!("{systems} {sys} {user} {out} {per_s}/s");
        for p in profiles.split(',') {
            let o = run(&s, &named(p), 1);
            println!("  {p:>24} hit {:.3} p50 {:.0} p90 {:.0} p99 {:.0} {:?} {}", o.hit_tokens as f64 / o.prompt_tokens as f64, o.ttft_percentile_ms(50), o.ttft_percentile_ms(90), o.ttft_percentile_ms(99), o.requests, o.preemptions);
        }
    }
}
