//! The range of prompt lengths that an endpoint declares in a label.

use serde::Deserialize;

/// Which label carries the range; the parameters of both `context-length-aware` plugins.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ContextLengthLabel {
    pub label: String,
}

impl Default for ContextLengthLabel {
    fn default() -> Self {
        Self { label: "llm-d.ai/context-length-range".to_owned() }
    }
}

/// Prompt tokens from `min` to `max`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContextRange {
    min: u32,
    max: u32,
}

impl ContextRange {
    /// Reads `"min-max"`.
    pub(super) fn parse(label: &str) -> Option<Self> {
        let (min, max) = label.split_once('-')?;
        let range = Self { min: min.trim().parse().ok()?, max: max.trim().parse().ok()? };
        (range.min <= range.max).then_some(range)
    }

    pub(super) fn contains(self, tokens: u32) -> bool {
        (self.min..=self.max).contains(&tokens)
    }

    /// Width in tokens.
    pub(super) fn width(self) -> u32 {
        self.max - self.min
    }

    /// Tokens from the prompt to the upper end; 0 beyond it.
    pub(super) fn room_above(self, tokens: u32) -> u32 {
        self.max.saturating_sub(tokens)
    }

    /// Tokens from the prompt to the nearer end; 0 inside.
    pub(super) fn distance(self, tokens: u32) -> u32 {
        self.min.saturating_sub(tokens).max(tokens.saturating_sub(self.max))
    }
}

#[cfg(test)]
mod tests {
    use super::ContextRange;

    #[test]
    fn a_label_is_two_numbers_in_order() {
        assert_eq!(ContextRange::parse("0-2048"), Some(ContextRange { min: 0, max: 2048 }));
        assert_eq!(ContextRange::parse(" 8 - 9 "), Some(ContextRange { min: 8, max: 9 }));
        for bad in ["", "2048", "9-8", "a-b", "1-2-3", "-5-8", "0-99999999999"] {
            assert_eq!(ContextRange::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn distance_is_zero_inside_and_counts_from_the_nearer_end() {
        let range = ContextRange { min: 100, max: 200 };
        assert_eq!([50, 100, 200, 260].map(|tokens| range.distance(tokens)), [50, 0, 0, 60]);
    }
}
