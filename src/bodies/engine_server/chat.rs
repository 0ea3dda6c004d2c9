//! The chat template: `<begin>`, then for each message `<role>` content `<end of turn>`, then
//! `<assistant>` where an answer is wanted. Roles are special tokens that no text can spell.

use super::tokenizer::{self, BEGIN, END_OF_TURN};
use std::borrow::Cow;

/// Opens the model's turn.
pub const ASSISTANT: u32 = 5;

const SYSTEM: u32 = 3;
const USER: u32 = 4;
const TOOL: u32 = 6;
/// A role that the template does not know; its name follows as text.
const OTHER: u32 = 7;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<'a> {
    /// Who says it.
    pub role: Cow<'a, str>,
    /// What.
    pub content: Cow<'a, str>,
}

/// Appends the tokens of a conversation, and those that open the answer to it.
pub fn render(messages: &[Message<'_>], add_generation_prompt: bool, out: &mut Vec<u32>) {
    out.push(BEGIN);
    for message in messages {
        match &*message.role {
            "system" | "developer" => out.push(SYSTEM),
            "user" => out.push(USER),
            "assistant" => out.push(ASSISTANT),
            "tool" | "function" => out.push(TOOL),
            other => {
                out.push(OTHER);
                tokenizer::encode(other, out);
                out.push(OTHER);
            }
        }
        tokenizer::encode(&message.content, out);
        out.push(END_OF_TURN);
    }
    if add_generation_prompt {
        out.push(ASSISTANT);
    }
}
