//! What can be wrong with what a stage is given.

/// Shapes that do not fit each other, or an id of no expert. Nothing has been written then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EpError {
    /// An expert that is not there.
    #[error(
        "token {token} chose expert {id}, but there are {experts}: \
         give ids of 0 to {experts} exclusive, or -1 for none"
    )]
    NoSuchExpert {
        /// The token's number.
        token: usize,
        /// What it chose.
        id: i64,
        /// How many experts there are.
        experts: usize,
    },
    /// Ids that are not so many for each token.
    #[error("{ids} expert ids are not a multiple of top_k {top_k}: give top_k ids for each token")]
    NotWholeTokens {
        /// How many ids were given.
        ids: usize,
        /// Choices a token.
        top_k: usize,
    },
    /// More choices than rows can be numbered.
    #[error("{ids} expert ids are more than 2^31 - 1: give fewer tokens at once")]
    TooMany {
        /// How many ids were given.
        ids: usize,
    },
    /// A slice whose length is not what the shapes say.
    #[error("{what} has {found} elements where the shapes make {wanted}: resize it to {wanted}")]
    Length {
        /// Which argument.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length that it should have.
        wanted: usize,
    },
    /// Shapes whose product is no length.
    #[error("{what} of {rows} x {columns} elements is larger than memory: check the shapes")]
    Overflow {
        /// Which argument.
        what: &'static str,
        /// Its rows.
        rows: usize,
        /// Its columns.
        columns: usize,
    },
}

/// Checks that a slice is a matrix of these rows and columns.
pub(super) fn check_matrix<T>(
    what: &'static str,
    slice: &[T],
    rows: usize,
    columns: usize,
) -> Result<(), EpError> {
    let wanted = rows.checked_mul(columns).ok_or(EpError::Overflow { what, rows, columns })?;
    if slice.len() == wanted {
        return Ok(());
    }
    Err(EpError::Length { what, found: slice.len(), wanted })
}
