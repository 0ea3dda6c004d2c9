//! How much of an answer has gone by: tokens, as its events or its `usage` tell.

use memchr::memmem::{Finder, FinderRev};
use std::sync::LazyLock;

const COMPLETION: &[u8] = b"\"completion_tokens\":";
const PROMPT: &[u8] = b"\"prompt_tokens\":";
// Made once: making one costs as much as searching an event with it.
static EVENTS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"data: {"));
static COMPLETIONS: LazyLock<FinderRev<'static>> = LazyLock::new(|| FinderRev::new(COMPLETION));
static PROMPTS: LazyLock<FinderRev<'static>> = LazyLock::new(|| FinderRev::new(PROMPT));

/// What has been seen of one answer.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Events with data, of which an engine sends one a token or a few.
    events: u32,
    /// What `usage` said of the answer.
    usage: Option<u32>,
    /// What it said of the prompt.
    prompt_tokens: Option<u32>,
}

impl Tally {
    /// Takes in the next piece of an answer. An event that is split between pieces counts where it
    /// begins; where a split hides it, it is one token less in an estimate.
    pub(super) fn take(&mut self, piece: &[u8], is_stream: bool) {
        if is_stream {
            self.events += u32::try_from(EVENTS.find_iter(piece).count()).unwrap_or(0);
        }
        // Of several the last counts: some engines tell it with every event.
        if let Some(at) = COMPLETIONS.rfind(piece) {
            self.usage = number(&piece[at + COMPLETION.len()..]).or(self.usage);
            if let Some(at) = PROMPTS.rfind(piece) {
                self.prompt_tokens = number(&piece[at + PROMPT.len()..]).or(self.prompt_tokens);
            }
        }
    }

    /// Tokens of the prompt, where the engine told.
    pub(super) fn prompt_tokens(&self) -> Option<u32> {
        self.prompt_tokens
    }

    /// Tokens so far.
    pub(super) fn tokens(&self) -> Option<u32> {
        self.usage.or((self.events > 0).then_some(self.events))
    }

    /// Events so far.
    pub(super) fn events(&self) -> u32 {
        self.events
    }
}

/// The number that a value begins with.
fn number(value: &[u8]) -> Option<u32> {
    let said = value.trim_ascii_start();
    let digits = said.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&said[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_count_until_usage_says_better() {
        let mut tally = Tally::default();
        tally.take(b"data: {\"a\": 1}\n\ndata: {\"a\": 2}\n\n", true);
        assert_eq!(tally.tokens(), Some(2));
        tally.take(b"data: {\"usage\":{\"prompt_tokens\":5,\"completion_tokens\": 7}}\n\n", true);
        tally.take(b"data: [DONE]\n\n", true);
        assert_eq!((tally.tokens(), tally.events()), (Some(7), 3));
        assert_eq!(tally.prompt_tokens(), Some(5));
    }

    #[test]
    fn a_whole_answer_tells_by_its_usage_or_not_at_all() {
        let mut tally = Tally::default();
        tally.take(b"{\"choices\":[{\"text\":\"data: {\"}],", false);
        assert_eq!(tally.tokens(), None);
        tally.take(b"\"usage\":{\"completion_tokens\":12}}", false);
        assert_eq!(tally.tokens(), Some(12));
        tally.take(b"\"completion_tokens\":x", false);
        assert_eq!(tally.tokens(), Some(12));
    }
}
