//! How much of an answer has gone by: tokens, as its events or its `usage` tell.

use memchr::memmem::{Finder, FinderRev};
use std::sync::LazyLock;

/// What `usage` calls tokens of the answer, and those of the prompt: in chats and completions, and in
/// responses.
const ANSWER: [&str; 2] = ["\"completion_tokens\":", "\"output_tokens\":"];
const PROMPT: [&str; 2] = ["\"prompt_tokens\":", "\"input_tokens\":"];
/// What a stream begins with whose events have names, as those of responses have.
const NAMED: &[u8] = b"event: ";

// Made once: making one costs as much as searching an event with it.
static EVENTS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("data: {"));
/// Of named events those that bring more of the answer; others say that it begins, or repeat it.
static DELTAS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(".delta\ndata: {"));
static ANSWERS: LazyLock<[FinderRev<'static>; 2]> = LazyLock::new(|| ANSWER.map(FinderRev::new));
static PROMPTS: LazyLock<[FinderRev<'static>; 2]> = LazyLock::new(|| PROMPT.map(FinderRev::new));

/// What has been seen of one answer.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Events with data, of which an engine sends one a token or a few.
    events: u32,
    /// What `usage` said of the answer.
    usage: Option<u32>,
    /// What it said of the prompt.
    prompt_tokens: Option<u32>,
    /// Whether its events have names, once the first has come.
    is_named: Option<bool>,
}

impl Tally {
    /// Takes in the next piece of an answer. An event that is split between pieces counts where it
    /// begins; where a split hides it, it is one token less in an estimate.
    pub(super) fn take(&mut self, piece: &[u8], is_stream: bool) {
        if is_stream {
            let is_named = *self.is_named.get_or_insert_with(|| piece.starts_with(NAMED));
            let events = if is_named { &*DELTAS } else { &*EVENTS };
            self.events += u32::try_from(events.find_iter(piece).count()).unwrap_or(0);
        }
        if let Some(tokens) = last(&ANSWERS, piece) {
            self.usage = Some(tokens);
            self.prompt_tokens = last(&PROMPTS, piece).or(self.prompt_tokens);
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

/// The number that `usage` gives under one of these names. Of several the last counts: some engines tell
/// it with every event.
fn last(names: &[FinderRev<'static>; 2], piece: &[u8]) -> Option<u32> {
    names.iter().find_map(|name| {
        let at = name.rfind(piece)?;
        number(&piece[at + name.needle().len()..])
    })
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
    fn of_named_events_those_count_that_bring_more() {
        let mut tally = Tally::default();
        tally.take(b"event: response.created\ndata: {\"a\": 1}\n\n", true);
        assert_eq!(tally.events(), 0);
        let delta = b"event: response.output_text.delta\ndata: {\"delta\":\"a\"}\n\n";
        tally.take(&[&delta[..], &delta[..]].concat(), true);
        tally.take(b"event: response.output_text.done\ndata: {\"text\":\"aa\"}\n\n", true);
        assert_eq!((tally.events(), tally.tokens()), (2, Some(2)));
        let usage = r#""usage":{"input_tokens":5,"output_tokens":12,"output_tokens_details":{}}"#;
        tally.take(format!("event: response.completed\ndata: {{{usage}}}\n\n").as_bytes(), true);
        assert_eq!((tally.tokens(), tally.prompt_tokens()), (Some(12), Some(5)));
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
