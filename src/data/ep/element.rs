//! The number formats of activations, converted without a branch so that loops become vectors.

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
    /// Something that orders as the magnitude does, and costs less than widening.
    #[must_use]
    fn magnitude(self) -> u32;
    /// The number whose [`Element::magnitude`] this is.
    #[must_use]
    fn from_magnitude(bits: u32) -> f32;
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

    #[inline(always)]
    fn magnitude(self) -> u32 {
        self.to_bits() & !SIGN
    }

    #[inline(always)]
    fn from_magnitude(bits: u32) -> f32 {
        Self::from_bits(bits)
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
    fn magnitude(self) -> u32 {
        u32::from(self.to_bits() & 0x7fff)
    }

    #[inline(always)]
    fn from_magnitude(bits: u32) -> f32 {
        f32::from_bits(bits << 16)
    }
}

impl Element for f16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        let bits = u32::from(self.to_bits());
        f32::from_bits(Self::from_magnitude(bits & 0x7fff).to_bits() | (bits & 0x8000) << 16)
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
    fn magnitude(self) -> u32 {
        u32::from(self.to_bits() & 0x7fff)
    }

    #[inline(always)]
    fn from_magnitude(bits: u32) -> f32 {
        // The exponent as it is reads 2^112 too small; multiplying also makes subnormals normal.
        let scaled = f32::from_bits(bits << 13) * f32::from_bits((127 + 112) << 23);
        f32::from_bits(if bits >= 0x7c00 { bits << 13 | INFINITY } else { scaled.to_bits() })
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
