//! The coefficients by which every endpoint is predicted now, as columns over the slots.

/// One row a slot.
#[derive(Debug, Clone, Default)]
pub(super) struct Coefficients {
    /// `a`, `b`, `c`; NaN, as every prediction from them, where no model may speak.
    pub(super) prefill: [Vec<f64>; 3],
    /// Usual relative error of the endpoint's own model, 0 where it has none; NaN as above.
    pub(super) prefill_error: Vec<f64>,
    /// `d`, `e`, `f`; 0 where no model may speak, so that decodes then slow nothing.
    pub(super) decode: [Vec<f64>; 3],
}

impl Coefficients {
    pub(super) fn push_empty(&mut self) {
        self.prefill.iter_mut().for_each(|column| column.push(f64::NAN));
        self.prefill_error.push(f64::NAN);
        self.decode.iter_mut().for_each(|column| column.push(0.0));
    }

    pub(super) fn clear(&mut self, row: usize) {
        self.set_prefill(row, None, f64::NAN);
        self.set_decode(row, None);
    }

    pub(super) fn set_prefill(&mut self, row: usize, of: Option<[f64; 3]>, error: f64) {
        for (column, value) in self.prefill.iter_mut().zip(of.unwrap_or([f64::NAN; 3])) {
            column[row] = value;
        }
        self.prefill_error[row] = if of.is_some() { error } else { f64::NAN };
    }

    pub(super) fn set_decode(&mut self, row: usize, of: Option<[f64; 3]>) {
        for (column, value) in self.decode.iter_mut().zip(of.unwrap_or_default()) {
            column[row] = value;
        }
    }

    pub(super) fn decode(&self, row: usize) -> [f64; 3] {
        [self.decode[0][row], self.decode[1][row], self.decode[2][row]]
    }
}
