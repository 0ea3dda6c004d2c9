/// Why experts cannot be placed, moved or routed as asked.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MoeError {
    /// A number that cannot be.
    #[error("{name} = {value} is out of range: use {range}")]
    Range {
        /// Which.
        name: &'static str,
        /// What it was.
        value: f64,
        /// What it can be.
        range: &'static str,
    },
    /// Counts that do not divide one another.
    #[error("{name} = {value} is no multiple of {of} = {divisor}: give {name} that divides evenly")]
    Uneven {
        /// Which.
        name: &'static str,
        /// What it was.
        value: usize,
        /// What it must be a multiple of.
        of: &'static str,
        /// How much that is.
        divisor: usize,
    },
    /// More experts than places.
    #[error(
        "{experts} experts do not fit {slots} slots of GPUs that live: give more slots a GPU, or \
         fewer dead ranks"
    )]
    NoRoom {
        /// How many experts a layer has.
        experts: usize,
        /// How many slots live.
        slots: usize,
    },
    /// An array of another length.
    #[error("{what} has {found} entries, not {expected}: give layers x {per_layer} of them")]
    Length {
        /// Which array.
        what: &'static str,
        /// Its length.
        found: usize,
        /// What it should be.
        expected: usize,
        /// What a layer has of them.
        per_layer: &'static str,
    },
    /// A load that is no number of tokens.
    #[error(
        "the load of expert {expert} in layer {layer} is {tokens}: give finite tokens, 0 or more"
    )]
    Load {
        /// Of which layer.
        layer: usize,
        /// Of which expert.
        expert: usize,
        /// What it was.
        tokens: f64,
    },
    /// A map that does not hold every expert, or holds one that is not there.
    #[error("layer {layer} of the map: {why}")]
    Map {
        /// Which layer.
        layer: usize,
        /// What is wrong, and what to do.
        why: String,
    },
}

pub(super) fn within(
    name: &'static str,
    value: f64,
    valid: impl std::ops::RangeBounds<f64>,
    range: &'static str,
) -> Result<(), MoeError> {
    if valid.contains(&value) { Ok(()) } else { Err(MoeError::Range { name, value, range }) }
}
