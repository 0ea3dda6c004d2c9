//! What the model "says": a deterministic function of the tokens before, as greedy decoding is.
//!
//! The next token depends on every token so far and on nothing else (and on the adapter and the
//! choice, where there are several), so that a prompt continued by its own output goes on with the
//! same output, on every replica, and after a retry in the middle. Every token is a word of two
//! syllables, which text tokenises back to: the conversation sent with the next turn has the very
//! tokens that the engine generated.

use super::chat::ASSISTANT;
use super::tokenizer::{self, END_OF_TURN};

/// The generator of one choice of one request.
#[derive(Debug, Clone)]
pub struct ModelOutput {
    state: u64,
    /// Whether the text begins here, so that the next word has no space before it.
    opens: bool,
}

const CONSONANTS: &[u8; 16] = b"bdfghklmnprstvwz";
const VOWELS: &[u8; 4] = b"aeio";

/// Shortest and longest of the outputs that end by themselves, their end token included.
const NATURAL_TOKENS: std::ops::RangeInclusive<u64> = 32..=288;

impl ModelOutput {
    /// What follows `prompt`. `variant` tells adapters and choices apart.
    #[must_use]
    pub fn after(prompt: &[u32], variant: u64) -> Self {
        let mut output = Self { state: mix(variant), opens: false };
        prompt.iter().for_each(|&token| output.absorb(token));
        output
    }

    /// Generates exactly `count` tokens.
    pub fn generate(&mut self, count: usize, out: &mut Vec<u32>) {
        for _ in 0..count {
            let token = self.next_word();
            self.absorb(token);
            out.push(token);
        }
    }

    /// Generates until the model would end its turn, which it does with an end token, or to
    /// `limit` tokens. Says whether it ended.
    pub fn generate_turn(&mut self, limit: usize, out: &mut Vec<u32>) -> bool {
        let span = NATURAL_TOKENS.end() - NATURAL_TOKENS.start() + 1;
        let natural = (NATURAL_TOKENS.start() + mix(!self.state) % span) as usize;
        if natural > limit {
            self.generate(limit, out);
            return false;
        }
        self.generate(natural - 1, out);
        out.push(END_OF_TURN);
        true
    }

    fn next_word(&self) -> u32 {
        let bits = mix(self.state);
        let pick = |from: &[u8], shift: u32| from[(bits >> shift) as usize % from.len()];
        let mut word =
            [pick(CONSONANTS, 0), pick(VOWELS, 8), pick(CONSONANTS, 16), pick(VOWELS, 24)];
        if self.opens {
            word[0].make_ascii_uppercase();
        }
        tokenizer::word_token(&word, !self.opens)
    }

    fn absorb(&mut self, token: u32) {
        self.state = (self.state ^ u64::from(token)).wrapping_mul(0x9FB2_1C65_1E98_DF25);
        self.state ^= self.state >> 32;
        self.opens = token == ASSISTANT;
    }
}

/// The finaliser of SplitMix64: every bit depends on every bit.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine_server::chat::{self, Message};

    fn output(prompt: &[u32], variant: u64, count: usize) -> Vec<u32> {
        let mut tokens = Vec::new();
        ModelOutput::after(prompt, variant).generate(count, &mut tokens);
        tokens
    }

    #[test]
    fn output_depends_on_all_tokens_before_and_on_the_variant() {
        let prompt = [5, 6, 7];
        assert_eq!(output(&prompt, 0, 20), output(&prompt, 0, 20));
        assert_ne!(output(&prompt, 0, 20), output(&prompt, 1, 20));
        assert_ne!(output(&prompt, 0, 20), output(&[6, 5, 7], 0, 20));
        let whole = output(&prompt, 0, 20);
        let resumed = [&prompt[..], &whole[..8]].concat();
        assert_eq!(output(&resumed, 0, 12), whole[8..], "resuming in the middle changes nothing");
    }

    #[test]
    fn text_of_a_completion_continues_the_prompt_with_the_same_tokens() {
        let mut prompt = Vec::new();
        tokenizer::encode("Once upon a time", &mut prompt);
        let generated = output(&prompt, 0, 50);
        let text = format!("Once upon a time{}", tokenizer::decode_lossy(&generated));
        let mut again = Vec::new();
        tokenizer::encode(&text, &mut again);
        assert_eq!(again, [prompt, generated].concat());
    }

    #[test]
    fn text_of_a_turn_comes_back_as_the_same_tokens() {
        let question = Message { role: "user".into(), content: "Why is the sky blue?".into() };
        let mut prompt = Vec::new();
        chat::render(std::slice::from_ref(&question), true, &mut prompt);
        let mut generated = Vec::new();
        assert!(ModelOutput::after(&prompt, 0).generate_turn(1_000, &mut generated));
        let said = tokenizer::decode_lossy(&generated);
        assert_eq!(said.trim(), said, "clients strip");

        let answer = Message { role: "assistant".into(), content: said.into() };
        let mut conversation = Vec::new();
        chat::render(&[question, answer], true, &mut conversation);

        let before = [prompt, generated].concat();
        assert_eq!(conversation[..before.len()], before);
    }

    #[test]
    fn a_turn_ends_by_itself_within_bounds_or_at_the_limit() {
        for variant in 0..200 {
            let mut tokens = Vec::new();
            let ended = ModelOutput::after(&[1], variant).generate_turn(100, &mut tokens);
            assert_eq!(ended, tokens.last() == Some(&END_OF_TURN));
            assert!(if ended { tokens.len() >= 32 } else { tokens.len() == 100 });
        }
    }
}
