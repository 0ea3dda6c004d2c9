//! The number formats of activations, converted without a branch so that loops become vectors.

use super::e4m3::e4m3_from_small;
use half::{bf16, f16};

mod sealed {
    pub trait Sealed {}
    impl Sealed for half::bf16 {}
    impl Sealed for half::f16 {}
    impl Sealed for f32 {}
}

/// A format of activations: bf16, f16 or f32.
///
/// `half` converts by the processor's instructions, chosen anew for every value behind a call; these
/// are the same numbers in integer operations, which a whole loop inlines.
pub trait Element: sealed::Sealed + bytemuck::Pod + Send + Sync {
    /// The same number as f32, exactly.
    #[must_use]
    fn widen(self) -> f32;
    /// The nearest number of this format, ties to even; infinity beyond the largest.
    #[must_use]
    fn narrow(value: f32) -> Self;
    /// The largest magnitude of some; 0 for none, and not finite where one of them is not.
    #[must_use]
    fn largest(values: &[Self]) -> f32;

    /// E4M3 codes of values times a factor, all of which are below 464.
    #[inline(always)]
    fn small_codes(values: &[Self], factor: f32, codes: &mut [u8]) {
        for (code, value) in codes.iter_mut().zip(values) {
            let value = value.widen() * factor;
            *code = (e4m3_from_small(value.abs()) & 0x7f | value.to_bits() >> 24 & 0x80) as u8;
        }
    }
}

const SIGN: u32 = 0x8000_0000;
const INFINITY: u32 = 0x7f80_0000;

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }

    // Magnitudes order as their bits do.
    #[inline(always)]
    fn largest(values: &[Self]) -> f32 {
        Self::from_bits(values.iter().fold(0, |most, value| most.max(value.to_bits() & !SIGN)))
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1))) >> 16;
        let quiet = (bits >> 16) | 0x40;
        Self::from_bits(if bits & !SIGN > INFINITY { quiet } else { rounded } as u16)
    }

    #[inline(always)]
    fn largest(values: &[Self]) -> f32 {
        Self::from_bits(values.iter().fold(0, |most, value| most.max(value.to_bits() & 0x7fff)))
            .widen()
    }

    /// NOTE(perf): two at a time, of a word's halves: widened by a shift and a mask instead of
    /// shuffles, and narrowed by as few. A quarter less time than one by one.
    #[inline(always)]
    fn small_codes(values: &[Self], factor: f32, codes: &mut [u8]) {
        let (pairs, last) = values.as_chunks::<2>();
        let (code_pairs, last_code) = codes.as_chunks_mut::<2>();
        for (codes, &pair) in code_pairs.iter_mut().zip(pairs) {
            let word = bytemuck::cast::<[Self; 2], u32>(pair);
            let magnitudes = word & 0x7fff_7fff;
            let low = e4m3_from_small(f32::from_bits(magnitudes << 16) * factor);
            let high = e4m3_from_small(f32::from_bits(magnitudes & 0xffff_0000) * factor);
            let signs = word >> 8 & 0x80 | word >> 16 & 0x8000;
            let code_pair = (low & 0x7f | high << 8 & 0x7f00 | signs) as u16;
            *codes = bytemuck::cast(code_pair);
        }
        for (code, value) in last_code.iter_mut().zip(last) {
            let value = value.widen() * factor;
            *code = (e4m3_from_small(value.abs()) & 0x7f | value.to_bits() >> 24 & 0x80) as u8;
        }
    }
}

impl Element for f16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        let bits = u32::from(self.to_bits() & 0x7fff);
        // The exponent as it is reads 2^112 too small; multiplying also makes subnormals normal.
        let scaled = f32::from_bits(bits << 13) * f32::from_bits((127 + 112) << 23);
        let magnitude = if bits >= 0x7c00 { bits << 13 | INFINITY } else { scaled.to_bits() };
        f32::from_bits(magnitude | u32::from(self.to_bits() & 0x8000) << 16)
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        // 2^-1: added to a number below 2^-14, it leaves f16's subnormal steps in the low bits.
        const SUBNORMAL: u32 = (127 - 15 + 23 - 10 + 1) << 23;
        let sign = value.to_bits() & SIGN;
        let bits = value.to_bits() ^ sign;
        let subnormal = (f32::from_bits(bits) + f32::from_bits(SUBNORMAL)).to_bits();
        let normal = bits.wrapping_sub(112 << 23).wrapping_add(0xfff + (bits >> 13 & 1)) >> 13;
        let beyond = if bits > INFINITY { 0x7e00 } else { 0x7c00 };
        let finite = if bits < 113 << 23 { subnormal.wrapping_sub(SUBNORMAL) } else { normal };
        let magnitude = if bits >= 143 << 23 { beyond } else { finite };
        Self::from_bits((magnitude | sign >> 16) as u16)
    }

    #[inline(always)]
    fn largest(values: &[Self]) -> f32 {
        Self::from_bits(values.iter().fold(0, |most, value| most.max(value.to_bits() & 0x7fff)))
            .widen()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_widens_as_half_says_and_narrows_back() {
        for bits in 0..=u16::MAX {
            let (wide, brain) = (f16::from_bits(bits), bf16::from_bits(bits));
            if !wide.is_nan() {
                assert_eq!(wide.widen().to_bits(), wide.to_f32().to_bits(), "f16 {bits:#06x}");
                assert_eq!(f16::narrow(wide.widen()).to_bits(), bits);
            }
            if !brain.is_nan() {
                assert_eq!(brain.widen().to_bits(), brain.to_f32().to_bits(), "bf16 {bits:#06x}");
                assert_eq!(bf16::narrow(brain.widen()).to_bits(), bits);
            }
        }
    }

    #[test]
    fn narrowing_rounds_as_half_does() {
        // A stride that is coprime to 2^32 visits every exponent with many mantissas.
        let mut bits = 0_u32;
        for _ in 0..2_000_000 {
            bits = bits.wrapping_add(0x9e37_79b1);
            let value = f32::from_bits(bits);
            if value.is_nan() {
                assert!(f16::narrow(value).is_nan() && bf16::narrow(value).is_nan());
                continue;
            }
            assert_eq!(f16::narrow(value).to_bits(), f16::from_f32(value).to_bits(), "{value:e}");
            assert_eq!(bf16::narrow(value).to_bits(), bf16::from_f32(value).to_bits(), "{value:e}");
        }
    }
}
