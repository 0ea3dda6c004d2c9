//! The structure against a naive one, by random changes; the index's own suite holds its contract.
