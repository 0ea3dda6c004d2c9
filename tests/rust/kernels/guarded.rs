//! Memory for kernels, with pages on both sides that nobody may touch.

use crate::host::Argument;
use bytemuck::Pod;

const PAGE: usize = 4096;
const UNTOUCHED: u8 = 0xc3;

/// Elements between two pages of a pattern, which a drop checks. The elements begin `shift`
/// elements past a page, as a slice of a tensor may.
pub struct Guarded<T: Pod> {
    bytes: Vec<u128>,
    start: usize,
    length: usize,
    of: std::marker::PhantomData<T>,
}

impl<T: Pod> Guarded<T> {
    pub fn new(elements: &[T], shift: usize) -> Self {
        let start = PAGE + shift * size_of::<T>();
        let size = (start + size_of_val(elements) + PAGE).div_ceil(size_of::<u128>());
        let bytes = vec![u128::from_ne_bytes([UNTOUCHED; 16]); size];
        let mut guarded =
            Self { bytes, start, length: elements.len(), of: std::marker::PhantomData };
        guarded.elements_mut().copy_from_slice(elements);
        guarded
    }

    /// Elements whose bytes are all `0xc3`: what a kernel must fill.
    pub fn unset(length: usize, shift: usize) -> Self {
        Self::new(
            &vec![bytemuck::pod_read_unaligned(&vec![UNTOUCHED; size_of::<T>()]); length],
            shift,
        )
    }

    pub fn elements(&self) -> &[T] {
        let bytes = bytemuck::cast_slice::<u128, u8>(&self.bytes);
        bytemuck::cast_slice(&bytes[self.start..][..self.length * size_of::<T>()])
    }

    fn elements_mut(&mut self) -> &mut [T] {
        let bytes = bytemuck::cast_slice_mut::<u128, u8>(&mut self.bytes);
        bytemuck::cast_slice_mut(&mut bytes[self.start..][..self.length * size_of::<T>()])
    }

    pub fn address(&mut self) -> u64 {
        self.elements_mut().as_mut_ptr() as u64
    }

    pub fn argument(&mut self) -> Argument {
        Argument::Pointer(self.elements_mut().as_mut_ptr().cast())
    }
}

impl<T: Pod> Drop for Guarded<T> {
    fn drop(&mut self) {
        let bytes = bytemuck::cast_slice::<u128, u8>(&self.bytes);
        let end = self.start + self.length * size_of::<T>();
        let around = bytes[..self.start].iter().chain(&bytes[end..]);
        if !std::thread::panicking() {
            assert_eq!(around.filter(|&&byte| byte != UNTOUCHED).count(), 0, "written outside");
        }
    }
}
