//! FP8 with four bits of exponent and three of mantissa, without infinities (OCP's E4M3,
//! `float8_e4m3fn` of torch): +-448 is the largest number, 0x7f and 0xff are NaN.

/// Below this, 2^-6, numbers are multiples of 2^-9.
const NORMAL: u32 = 121 << 23;
/// 2^14: added to a number below 2^-6, it leaves multiples of 2^-9 in the low bits.
const SUBNORMAL: u32 = 141 << 23;
const SIGN: u32 = 0x8000_0000;
/// The codes of 448 and of no number.
const LARGEST: u32 = 0x7e;
const NAN: u32 = 0x7f;
const INFINITY: u32 = 0x7f80_0000;

/// The nearest E4M3 number, ties to even; 448 for all that is larger, infinity too. So convert
/// GPUs and torch 2.13, where older torch made NaN of what is beyond 464.
#[inline(always)]
#[must_use]
pub fn e4m3_from_f32(value: f32) -> u8 {
    let magnitude = value.to_bits() & !SIGN;
    let nearest = if magnitude > INFINITY { NAN } else { nearest(magnitude).min(LARGEST) };
    (nearest | value.to_bits() >> 24 & 0x80) as u8
}

/// The code of a number from 0 to 464 exclusive, in the low seven bits; the rest means nothing.
///
/// Added to 2^20 times its power of two, or at least 2^14, a number leaves how many steps of the
/// format it has in that power's low bits.
///
/// NOTE(perf): quantising is bound by instructions; this is nine where the other is fifteen.
#[inline(always)]
#[must_use]
pub(super) fn e4m3_from_small(value: f32) -> u32 {
    let power = (value.to_bits() & INFINITY).max(NORMAL);
    let steps = (value + f32::from_bits(power + (20 << 23))).to_bits();
    steps.wrapping_add(power >> 20).wrapping_add(56)
}

/// The code of the number nearest to one without a sign, or what would follow the last code.
#[inline(always)]
fn nearest(bits: u32) -> u32 {
    let subnormal = (f32::from_bits(bits) + f32::from_bits(SUBNORMAL)).to_bits();
    let normal = bits.wrapping_sub(120 << 23).wrapping_add(0x7_ffff + (bits >> 20 & 1)) >> 20;
    if bits < NORMAL { subnormal.wrapping_sub(SUBNORMAL) } else { normal }
}

/// The number that a code stands for, exactly.
#[inline(always)]
#[must_use]
pub fn f32_from_e4m3(code: u8) -> f32 {
    let magnitude = u32::from(code & 0x7f);
    let scaled = f32::from_bits(magnitude << 20) * f32::from_bits((127 + 120) << 23);
    let bits = if magnitude == 0x7f { 0x7fc0_0000 } else { scaled.to_bits() };
    f32::from_bits(bits | u32::from(code & 0x80) << 24)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number of the format by its definition.
    fn grid() -> Vec<f64> {
        let number = |code: i32| {
            let (exponent, mantissa) = (code >> 3, f64::from(code & 7));
            if exponent == 0 {
                mantissa * 2_f64.powi(-9)
            } else {
                (8.0 + mantissa) * 2_f64.powi(exponent - 10)
            }
        };
        (0..0x7f).map(number).collect()
    }

    /// The code of the nearest number by looking at its neighbours in exact arithmetic.
    fn nearest_of(grid: &[f64], value: f32) -> u8 {
        let size = f64::from(value.abs());
        let above = grid.partition_point(|&number| number <= size).min(0x7e);
        let below = above.saturating_sub(1);
        let (down, up) = (size - grid[below], grid[above] - size);
        let code = match down.total_cmp(&up) {
            std::cmp::Ordering::Less => below,
            std::cmp::Ordering::Greater => above,
            std::cmp::Ordering::Equal => below + below % 2,
        };
        code as u8 | if value.is_sign_negative() { 0x80 } else { 0 }
    }

    #[test]
    fn a_code_is_the_number_of_its_definition() {
        for (code, &number) in grid().iter().enumerate() {
            let code = code as u8;
            assert_eq!(f64::from(f32_from_e4m3(code)).to_bits(), number.to_bits());
            assert_eq!(f64::from(f32_from_e4m3(code | 0x80)).to_bits(), (-number).to_bits());
            assert_eq!(e4m3_from_f32(number as f32), code);
        }
        assert!(f32_from_e4m3(0x7f).is_nan() && f32_from_e4m3(0xff).is_nan());
    }

    #[test]
    fn rounding_is_to_the_nearest_number_and_ties_to_even() {
        let grid = grid();
        let check = |bits: u32| {
            let value = f32::from_bits(bits);
            assert_eq!(e4m3_from_f32(value), nearest_of(&grid, value), "{value:e} ({bits:#010x})");
        };
        for pair in grid.windows(2) {
            let middle = (pair[0].midpoint(pair[1]) as f32).to_bits();
            for bits in middle.saturating_sub(3)..=middle + 3 {
                check(bits);
                check(bits | 0x8000_0000);
            }
        }
        let step = if std::env::var_os("LLMD_HISTORIES").is_some() { 1 } else { 4_099 };
        (0..=0x7f80_0000).step_by(step).for_each(check);
    }
}
