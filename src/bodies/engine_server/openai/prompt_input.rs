//! The field `prompt` of a completion: text, tokens, or a list of either.

use super::ApiError;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// What a completion continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PromptInput {
    Text(String),
    Tokens(TokenIds),
    Texts(Vec<String>),
    TokenLists(Vec<TokenIds>),
    /// `[]`.
    Nothing,
}

/// Token ids as they came, and the first of them that no vocabulary could have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TokenIds {
    pub(crate) ids: Vec<u32>,
    pub(crate) impossible: Option<i64>,
}

impl TokenIds {
    fn push(&mut self, id: i64) {
        match u32::try_from(id) {
            Ok(id) => self.ids.push(id),
            Err(_) => {
                self.impossible.get_or_insert(id);
            }
        }
    }
}

impl TokenIds {
    /// The ids, all below `vocabulary`.
    pub(crate) fn in_vocabulary(&self, vocabulary: u32) -> Result<Vec<u32>, ApiError> {
        let unknown = self.ids.iter().find(|&&id| id >= vocabulary).map(|&id| i64::from(id));
        match self.impossible.or(unknown) {
            None => Ok(self.ids.clone()),
            Some(id) => Err(ApiError::bad_request(format!("Token id {id} is out of vocabulary"))),
        }
    }
}

impl<'de> Deserialize<'de> for TokenIds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ids;
        impl<'de> Visitor<'de> for Ids {
            type Value = TokenIds;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of token ids")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<TokenIds, A::Error> {
                let mut tokens = TokenIds::default();
                while let Some(id) = seq.next_element()? {
                    tokens.push(id);
                }
                Ok(tokens)
            }
        }
        deserializer.deserialize_seq(Ids)
    }
}

/// The first element of a list tells what the list is of. Written by hand because serde's untagged
/// enums would copy a prompt of 100,000 tokens into a generic tree first.
impl<'de> Deserialize<'de> for PromptInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Prompt)
    }
}

const EXPECTED: &str = "a string, a list of strings, a list of token ids, or a list of such lists";

struct Prompt;

impl<'de> Visitor<'de> for Prompt {
    type Value = PromptInput;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<PromptInput, E> {
        Ok(PromptInput::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<PromptInput, E> {
        Ok(PromptInput::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<PromptInput, A::Error> {
        Ok(match seq.next_element()? {
            None => PromptInput::Nothing,
            Some(Element::Id(id)) => {
                let mut tokens = TokenIds::default();
                tokens.push(id);
                while let Some(id) = seq.next_element()? {
                    tokens.push(id);
                }
                PromptInput::Tokens(tokens)
            }
            Some(Element::Text(text)) => PromptInput::Texts(rest(text, seq)?),
            Some(Element::Ids(tokens)) => PromptInput::TokenLists(rest(tokens, seq)?),
        })
    }
}

fn rest<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
    first: T,
    mut seq: A,
) -> Result<Vec<T>, A::Error> {
    let mut all = vec![first];
    while let Some(next) = seq.next_element()? {
        all.push(next);
    }
    Ok(all)
}

enum Element {
    Id(i64),
    Text(String),
    Ids(TokenIds),
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Element;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_i64<E: Error>(self, id: i64) -> Result<Element, E> {
                Ok(Element::Id(id))
            }

            fn visit_u64<E: Error>(self, id: u64) -> Result<Element, E> {
                Ok(Element::Id(i64::try_from(id).unwrap_or(i64::MAX)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Element, E> {
                Ok(Element::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Element, A::Error> {
                let mut tokens = TokenIds::default();
                while let Some(id) = seq.next_element()? {
                    tokens.push(id);
                }
                Ok(Element::Ids(tokens))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str) -> Result<PromptInput, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn each_form_is_told_from_the_others() {
        let tokens = |ids: &[u32]| TokenIds { ids: ids.to_vec(), impossible: None };
        assert_eq!(parsed("\"hi\""), Ok(PromptInput::Text("hi".into())));
        assert_eq!(parsed("[1,2]"), Ok(PromptInput::Tokens(tokens(&[1, 2]))));
        assert_eq!(parsed("[\"a\",\"b\"]"), Ok(PromptInput::Texts(vec!["a".into(), "b".into()])));
        let lists = vec![tokens(&[1]), tokens(&[])];
        assert_eq!(parsed("[[1],[]]"), Ok(PromptInput::TokenLists(lists)));
        assert_eq!(parsed("[]"), Ok(PromptInput::Nothing));
    }

    #[test]
    fn what_is_no_prompt_is_refused() {
        for json in ["7", "{}", "[1,\"a\"]", "[\"a\",1]", "[1.5]", "[null]", "true"] {
            assert!(parsed(json).is_err(), "{json}");
        }
    }

    #[test]
    fn an_impossible_id_is_kept_for_the_message() {
        let Ok(PromptInput::Tokens(tokens)) = parsed("[1,-5,4294967296]") else { panic!() };
        assert_eq!(tokens, TokenIds { ids: vec![1], impossible: Some(-5) });
    }
}
