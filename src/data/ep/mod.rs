//! The doing half of expert parallelism on CPUs: tokens to the rows of their experts and back.
//!
//! A [`Layout`] says which row of the experts' input each (token, choice) gets, [`permute`] copies
//! tokens to their rows, and [`combine`] sums what the experts made of them, by weight. Before they
//! travel, [`quantise`] makes rows half as wide: FP8 with a scale for every [`GROUP`] values.
//!
//! Each is the twin of a CUDA kernel in `kernels/`: the same bytes in, the same bytes out, which
//! tests hold them to. Results depend on neither the vectors of the machine nor the number of
//! threads: every token's sum has one order. Which expert a token should go to is not decided here.

mod combine;
mod e4m3;
mod element;
mod error;
mod fp8;
mod layout;
mod permute;
mod streaming;
mod threads;
mod vectors;

pub use combine::combine;
pub use e4m3::{e4m3_from_f32, f32_from_e4m3};
pub use element::Element;
pub use error::EpError;
pub use fp8::{GROUP, dequantise, quantise, scales_len};
pub use layout::{DROPPED, ExpertId, Layout};
pub use permute::permute;
