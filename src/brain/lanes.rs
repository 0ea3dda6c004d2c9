//! Loops over columns, as wide as the machine's vectors and to the same bits on every machine.
//!
//! [`vectorised`] compiles what it is given once for the baseline and once for AVX2 and picks by
//! the machine. That changes how many rows go at once and no bit: Rust never fuses or reorders
//! floating-point operations, and every reduction here has its order fixed by [`LANES`], not by the
//! width of a register.
//!
//! NOTE(perf): what keeps such a loop from becoming one of vectors, each seen to cost a factor of
//! three here: a closure that is not inlined into [`vectorised`] (it is then compiled for the
//! baseline); an index that the compiler cannot see is in range (cut every column to one length
//! inside the loop's own function); an output that may overlap with an input (pass it to a function
//! as `&mut`); `f64::min` and `max`, whose care for NaN takes three instructions instead of one.

/// Running results of a reduction: row `i` goes to `i % LANES`, and the lanes are combined in order.
const LANES: usize = 8;

/// Runs a loop compiled for the vectors of this machine. Everything in it has to be inlined, the
/// closure itself first: give it `#[inline(always)]`.
#[inline(always)]
pub fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// The least value; infinity for none. A NaN is passed over.
#[inline(always)]
#[must_use]
pub fn least(values: &[f64]) -> f64 {
    let mut lanes = [f64::INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = if value < *lane { value } else { *lane };
        }
    }
    let all = lanes.iter().chain(rest).copied();
    all.fold(f64::INFINITY, |least, value| if value < least { value } else { least })
}

/// The greatest value; minus infinity for none. A NaN is passed over.
#[inline(always)]
#[must_use]
pub fn greatest(values: &[f64]) -> f64 {
    let mut lanes = [f64::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    let all = lanes.iter().chain(rest).copied();
    all.fold(f64::NEG_INFINITY, |most, value| if value > most { value } else { most })
}

/// The sum over the rows of a term in each row's numbers. Columns are as long as the first.
#[inline(always)]
#[must_use]
pub fn sum<const COLUMNS: usize>(
    columns: [&[f64]; COLUMNS],
    term: impl Fn([f64; COLUMNS]) -> f64,
) -> f64 {
    const NONE: &[[f64; LANES]] = &[];
    let cut = columns.map(
        #[inline(always)]
        |column| column.as_chunks::<LANES>(),
    );
    let mut lanes = [0.0; LANES];
    for chunk in 0..cut.first().map_or(NONE, |(chunks, _)| chunks).len() {
        let chunk = cut.map(
            #[inline(always)]
            |(chunks, _)| &chunks[chunk],
        );
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(chunk.map(
                #[inline(always)]
                |column| column[lane],
            ));
        }
    }
    let rest = cut.first().map_or(0, |(_, rest)| rest.len());
    for (row, sum) in lanes.iter_mut().enumerate().take(rest) {
        *sum += term(cut.map(
            #[inline(always)]
            |(_, rest)| rest[row],
        ));
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::{greatest, least, sum};
    use proptest::prelude::*;

    #[test]
    fn of_nothing() {
        assert_eq!((least(&[]), greatest(&[])), (f64::INFINITY, f64::NEG_INFINITY));
        assert_eq!(least(&[f64::NAN, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(sum([&[]], |[value]| value).to_bits(), 0.0_f64.to_bits());
    }

    proptest! {
        #[test]
        fn reductions_equal_plain_loops(values in prop::collection::vec(-1e6_f64..1e6, 1..70)) {
            let plain = |pick: fn(f64, f64) -> f64| values.iter().copied().reduce(pick);
            prop_assert_eq!(plain(f64::min), Some(least(&values)));
            prop_assert_eq!(plain(f64::max), Some(greatest(&values)));
            let total: f64 = values.iter().sum();
            prop_assert!((sum([&values], |[value]| value) - total).abs() < 1e-6);
        }

        #[test]
        fn vectors_change_no_bit(values in prop::collection::vec(-1e6_f64..1e6, 1..70)) {
            let work = || sum([&values, &values], |[a, b]| a * 0.1 + 1.0 / b);
            prop_assert_eq!(super::vectorised(work).to_bits(), work().to_bits());
        }
    }
}
