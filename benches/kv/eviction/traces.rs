//! Traces of sessions as one sequence of prompts, each a chain of blocks.

use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// One prompt: when, and its blocks from the first.
pub struct Prompt {
    pub at_s: f64,
    pub tokens: u32,
    pub blocks: Vec<u32>,
}

/// Prompts in the order of time.
pub struct Trace {
    pub name: String,
    pub block_tokens: u32,
    /// Different blocks in it.
    pub blocks: usize,
    pub prompts: Vec<Prompt>,
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Exponential.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// Log-normal, by its median.
    pub fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        median * (sigma * radius * (std::f64::consts::TAU * self.unit()).cos()).exp()
    }
}

/// Seconds between the starts of two sessions, on average. The recorded sessions have no common
/// clock; about a hundred are open at a time so.
const BETWEEN_STARTS_S: f64 = 60.0;

impl Trace {
    fn sorted(name: &str, block_tokens: u32, blocks: usize, mut prompts: Vec<Prompt>) -> Self {
        prompts.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        Self { name: name.to_owned(), block_tokens, blocks, prompts }
    }

    /// A file of sessions, or of Mooncake's requests; `None` where it is absent.
    pub fn read(path: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(path).ok()?;
        let name = path.file_stem()?.to_str()?.to_owned();
        let mut numbers: HashMap<(usize, u64), u32> = HashMap::new();
        let mut number = |scope: usize, id: u64| {
            let next = numbers.len() as u32;
            *numbers.entry((scope, id)).or_insert(next)
        };
        let (mut rng, mut start_s, mut block_tokens) = (Rng(11), 0.0, 512);
        let mut prompts = Vec::new();
        for (line_number, line) in text.lines().enumerate() {
            let line: Value = serde_json::from_str(line).ok()?;
            if let Some(ids) = line["hash_ids"].as_array() {
                let blocks = ids.iter().filter_map(Value::as_u64).map(|id| number(0, id)).collect();
                let at_s = line["timestamp"].as_f64()? / 1e3;
                prompts.push(Prompt {
                    at_s,
                    tokens: line["input_length"].as_u64()? as u32,
                    blocks,
                });
                continue;
            }
            block_tokens = line["block_size"].as_u64()? as u32;
            start_s += rng.exponential(BETWEEN_STARTS_S);
            for request in line["requests"].as_array()? {
                let blocks = match request["ids"].as_array() {
                    Some(ids) => {
                        ids.iter().filter_map(Value::as_u64).map(|id| number(0, id)).collect()
                    }
                    None => {
                        let mut blocks = Vec::new();
                        for range in request["h"].as_array()? {
                            for id in range[0].as_u64()?..=range[1].as_u64()? {
                                blocks.push(number(line_number + 1, id));
                            }
                        }
                        blocks
                    }
                };
                let at_s = start_s + request["t"].as_f64()?;
                prompts.push(Prompt { at_s, tokens: request["in"].as_u64()? as u32, blocks });
            }
        }
        Some(Self::sorted(&name, block_tokens, numbers.len(), prompts))
    }

    /// Agents' sessions: a few system prompts that all share, turns that each add to the last,
    /// tools that answer in seconds and people who take minutes or never come back.
    pub fn agents(sessions: usize) -> Self {
        let mut rng = Rng(7);
        let (mut next, mut start_s) = (0u32, 0.0);
        let mut fresh = |blocks: usize| {
            next += blocks as u32;
            (next - blocks as u32..next).collect::<Vec<_>>()
        };
        let systems: Vec<_> = (0..8).map(|it| fresh(60 + 30 * it)).collect();
        let mut prompts = Vec::new();
        for _ in 0..sessions {
            start_s += rng.exponential(6.0);
            let mut at_s = start_s;
            let mut blocks = systems[(8.0 * rng.unit().powi(2)) as usize].clone();
            // Half of them ask once; an agent at work goes on.
            let more = if rng.unit() < 0.5 { 0.0 } else { 0.94 };
            loop {
                blocks.extend(fresh(rng.log_normal(20.0, 1.0).clamp(1.0, 400.0) as usize));
                let tokens = blocks.len() as u32 * 16;
                prompts.push(Prompt { at_s, tokens, blocks: blocks.clone() });
                if rng.unit() >= more || blocks.len() > 4000 {
                    break;
                }
                let human = rng.unit() < 0.15;
                at_s +=
                    3.0 + if human { rng.log_normal(90.0, 1.2) } else { rng.log_normal(4.0, 0.8) };
            }
        }
        Self::sorted("generated_agents", 16, next as usize, prompts)
    }
}
