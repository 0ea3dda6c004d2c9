//! Tool calls over a conversation trace: short prompts behind few long system prompts.

use super::Workload;
use crate::BlockKey;
use crate::rng::Rng;

/// Tools, and the shares of the two that are called most; the others have the rest in equal parts.
const TOOLS: u64 = 24;
const FIRST_SHARE: f64 = 0.62;
const SECOND_SHARE: f64 = 0.30;
/// Chance that a request is followed by one call and not by two.
const ONE_CALL: f64 = 0.55;
/// Blocks of the first two tools' system prompts; the others have 3 to 16.
const FIRST_BLOCKS: u32 = 12;
const SECOND_BLOCKS: u32 = 5;
/// The first tool answers with this many tokens with this chance.
const SHORT_ANSWER: (u32, f64) = (3, 0.55);
/// Most tokens behind a system prompt.
const MOST_INPUT: f64 = 6_000.0;

/// After each request of an open loop one or two tool calls at its time: of 24 tools, each with a
/// system prompt of its own, whose input behind that is lognormal (5.2, 1.3) tokens and whose answer
/// is lognormal (3.1, 0.5), or very short.
#[must_use]
pub fn toolmix(conversation: &Workload, seed: u64) -> Workload {
    let mut rng = Rng::new(seed);
    let block = conversation.block_size();
    let system: Vec<u32> = (0..TOOLS)
        .map(|tool| match tool {
            0 => FIRST_BLOCKS,
            1 => SECOND_BLOCKS,
            _ => 3 + rng.below(14) as u32,
        })
        .collect();
    let mut mix = Workload::new(block);
    for (number, prompt) in conversation.prompts().iter().enumerate() {
        mix.begin_session();
        let keys = conversation.keys(prompt).iter().copied();
        mix.push(prompt.at_ms, prompt.prompt_tokens, prompt.output_tokens, keys);
        let calls = if rng.next_f64() < ONE_CALL { 1 } else { 2 };
        for call in 0..calls {
            let tool = match rng.next_f64() {
                share if share < FIRST_SHARE => 0,
                share if share < FIRST_SHARE + SECOND_SHARE => 1,
                _ => 2 + rng.below(TOOLS - 2),
            };
            let input = lognormal(&mut rng, 5.2, 1.3).min(MOST_INPUT) as u32;
            let is_short = tool == 0 && rng.next_f64() < SHORT_ANSWER.1;
            let long = lognormal(&mut rng, 3.1, 0.5) as u32;
            let output = if is_short { SHORT_ANSWER.0 } else { long };
            let blocks = system[tool as usize];
            let tokens = blocks * block + input.max(1);
            let shared = (0..blocks).map(|at| tool_key(1, tool, at.into()));
            let own = (blocks..tokens / block)
                .map(|at| tool_key(2, (number as u64) << 2 | call, at.into()));
            mix.begin_session();
            mix.push(prompt.at_ms, tokens, output, shared.chain(own));
        }
    }
    mix
}

/// The key of a block that a number names.
fn tool_key(kind: u64, owner: u64, at: u64) -> BlockKey {
    BlockKey(Rng::new(kind << 60 | owner << 20 | at).next_u64())
}

fn lognormal(rng: &mut Rng, mean: f64, deviation: f64) -> f64 {
    libm::exp(mean + deviation * rng.next_normal())
}
