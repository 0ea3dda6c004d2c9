//! Layout, permute, combine and FP8, kernel against twin.

use crate::guarded::Guarded;
use crate::host::{Argument, launch};
use half::{bf16, f16};
use llmd_data::ep::{DROPPED, Element, Layout, combine, dequantise, permute, quantise, scales_len};
use proptest::prelude::*;
use std::num::NonZeroUsize;

const CHUNK_SLOTS: usize = 1024;
const ONE: NonZeroUsize = NonZeroUsize::MIN;

#[derive(Debug, Clone)]
struct Step {
    ids: Vec<i64>,
    top_k: usize,
    experts: usize,
    columns: usize,
    shift: usize,
    seed: u64,
}

impl Step {
    fn values<T: Element>(&self, length: usize) -> Vec<T> {
        let mut state = self.seed | 1;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u32
        };
        let number = |bits: u32, power: u32| {
            (f64::from(bits) / f64::from(1_u32 << 30) - 1.0) * 2_f64.powi((power % 40) as i32 - 30)
        };
        (0..length).map(|_| T::narrow(number(next(), next()) as f32)).collect()
    }

    fn tokens(&self) -> usize {
        self.ids.len() / self.top_k
    }
}

/// No tokens, a few, and more than a chunk's; -1 and all to one expert; rows of odd lengths.
fn steps() -> impl Strategy<Value = Step> {
    let slots = prop_oneof![Just(0_usize), 1..40_usize, 1_000..2_300_usize];
    let columns = prop_oneof![1..20_usize, 120..140_usize, Just(256_usize)];
    let experts = prop_oneof![1..9_usize, 30..70_usize, Just(256_usize)];
    let shift = prop_oneof![Just(0_usize), 1..8_usize];
    (slots, 1..9_usize, experts, columns, shift, any::<u64>(), 0..3_u8).prop_flat_map(
        |(slots, top_k, experts, columns, shift, seed, spread)| {
            let highest = if spread == 0 { 1 } else { experts as i64 };
            let lowest = if spread == 1 { -1 } else { 0 };
            let columns = if slots > 1_000 { columns.min(24) } else { columns };
            proptest::collection::vec(lowest..highest, slots / top_k * top_k)
                .prop_map(move |ids| Step { ids, top_k, experts, columns, shift, seed })
        },
    )
}

fn bits<T: Element>(values: &[T]) -> Vec<u32> {
    values.iter().map(|value| value.widen().to_bits()).collect()
}

/// The layout by the three kernels, held to the twin's.
fn lay_out(step: &Step) -> (Layout, Guarded<i32>) {
    let mut layout = Layout::default();
    layout.compute(&step.ids, step.top_k, step.experts).unwrap();
    let (slots, experts) = (step.ids.len(), step.experts);
    let chunks = slots.div_ceil(CHUNK_SLOTS);
    let mut ids = Guarded::new(&step.ids, 0);
    let mut chunk_counts = Guarded::<i32>::unset(chunks * experts, 0);
    let mut counts = Guarded::<i32>::unset(experts, 0);
    let mut offsets = Guarded::<i32>::unset(experts + 1, 0);
    let mut row_of_slot = Guarded::<i32>::unset(slots, 0);
    let threads = 32 * (1 + step.seed as u32 % 4);
    let (slots, experts) = (Argument::Int(slots as i32), Argument::Int(experts as i32));
    let given = [ids.argument(), slots, experts, chunk_counts.argument()];
    // SAFETY: each buffer is as long as the kernel's head says.
    unsafe { launch("llmd_dispatch_count", step.seed, (chunks as u32, 1), threads, &given) };
    let [ids, slots, experts, begins] = given;
    let given =
        [begins, Argument::Int(chunks as i32), experts, counts.argument(), offsets.argument()];
    let scan_threads = step.experts.next_multiple_of(32) as u32;
    // SAFETY: as above.
    unsafe { launch("llmd_dispatch_scan", step.seed, (1, 1), scan_threads, &given) };
    let [begins, _, experts, ..] = given;
    let given = [ids, slots, experts, begins, row_of_slot.argument()];
    // SAFETY: as above.
    unsafe { launch("llmd_dispatch_rank", step.seed, (chunks as u32, 1), threads, &given) };
    assert_eq!(bytemuck::cast_slice::<i32, u32>(counts.elements()), layout.counts());
    assert_eq!(bytemuck::cast_slice::<i32, u32>(offsets.elements()), layout.offsets());
    assert_eq!(bytemuck::cast_slice::<i32, u32>(row_of_slot.elements()), layout.row_of_slot());
    (layout, row_of_slot)
}

fn check_rows<T: Element>(
    step: &Step,
    format: &str,
    layout: &Layout,
    row_of_slot: &mut Guarded<i32>,
) {
    let (tokens, columns) = (step.tokens(), step.columns);
    let top_k = Argument::Int(step.top_k as i32);
    let grid = (tokens as u32, 1);
    let given: Vec<T> = step.values(tokens * columns);

    let mut expected = vec![T::zeroed(); layout.rows() * columns];
    permute(layout, &given, columns, &mut expected, ONE).unwrap();
    let mut on_device = Guarded::new(&given, step.shift);
    let mut rows = Guarded::<T>::unset(expected.len(), step.shift);
    let row_bytes = Argument::Long((columns * size_of::<T>()) as i64);
    let arguments =
        [on_device.argument(), row_of_slot.argument(), rows.argument(), top_k, row_bytes];
    // SAFETY: each buffer is as long as the kernel's head says, as in all that follow.
    unsafe { launch("llmd_permute", step.seed, grid, 32, &arguments) };
    assert_eq!(bits(rows.elements()), bits(&expected));

    let weights: Vec<f32> = step.values(step.ids.len());
    let mut combined = vec![T::zeroed(); given.len()];
    combine(layout, &expected, &weights, columns, &mut combined, ONE).unwrap();
    let mut weights = Guarded::new(&weights, 0);
    let mut out = Guarded::<T>::unset(given.len(), step.shift);
    let [_, row_of_slot, rows, top_k, _] = arguments;
    let columns = Argument::Int(step.columns as i32);
    let arguments = [rows, row_of_slot, weights.argument(), out.argument(), top_k, columns];
    let name = format!("llmd_combine_{format}");
    unsafe { launch(&name, step.seed, grid, 32, &arguments) };
    assert_eq!(bits(out.elements()), bits(&combined));
}

fn check_fp8<T: Element>(step: &Step, format: &str) {
    let (rows, columns) = (step.tokens(), step.columns);
    let given: Vec<T> = step.values(rows * columns);
    let (mut codes, mut scales) = (vec![0; given.len()], vec![0.0; rows * scales_len(columns)]);
    quantise(&given, columns, &mut codes, &mut scales, ONE).unwrap();
    let mut values = Guarded::new(&given, step.shift);
    let mut device_codes = Guarded::<u8>::unset(codes.len(), step.shift);
    let mut device_scales = Guarded::<f32>::unset(scales.len(), 0);
    let arguments = [
        values.argument(),
        device_codes.argument(),
        device_scales.argument(),
        Argument::Int(rows as i32),
        Argument::Int(columns as i32),
    ];
    let name = format!("llmd_fp8_quantise_{format}");
    unsafe { launch(&name, step.seed, (2, 1), 64, &arguments) };
    assert_eq!(device_codes.elements(), codes);
    assert_eq!(bits(device_scales.elements()), bits(&scales));

    let mut back = vec![T::zeroed(); given.len()];
    dequantise(&codes, &scales, columns, &mut back, ONE).unwrap();
    let mut out = Guarded::<T>::unset(back.len(), step.shift);
    let [_, codes, scales, rows, columns] = arguments;
    let arguments = [codes, scales, out.argument(), rows, columns];
    let name = format!("llmd_fp8_dequantise_{format}");
    unsafe { launch(&name, step.seed, (3, 1), 40, &arguments) };
    assert_eq!(bits(out.elements()), bits(&back));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn kernels_make_the_bytes_of_their_twins(step in steps()) {
        let (layout, mut row_of_slot) = lay_out(&step);
        check_rows::<bf16>(&step, "bf16", &layout, &mut row_of_slot);
        check_rows::<f16>(&step, "f16", &layout, &mut row_of_slot);
        check_rows::<f32>(&step, "f32", &layout, &mut row_of_slot);
        check_fp8::<bf16>(&step, "bf16");
        check_fp8::<f16>(&step, "f16");
        check_fp8::<f32>(&step, "f32");
    }
}

/// Every finite number of a 16-bit format, alone in its group and beside others.
fn check_every_number<T: Element>(format: &str, number: impl Fn(u16) -> T) {
    let all: Vec<T> = (0..=u16::MAX).map(number).collect();
    let finite: Vec<T> = all.into_iter().filter(|value| value.widen().is_finite()).collect();
    for columns in [1, 16] {
        let rows = finite.len() / columns;
        let given = &finite[..rows * columns];
        let (mut codes, mut scales) = (vec![0; given.len()], vec![0.0; rows]);
        quantise(given, columns, &mut codes, &mut scales, ONE).unwrap();
        let mut values = Guarded::new(given, 0);
        let mut device_codes = Guarded::<u8>::unset(codes.len(), 0);
        let mut device_scales = Guarded::<f32>::unset(scales.len(), 0);
        let arguments = [
            values.argument(),
            device_codes.argument(),
            device_scales.argument(),
            Argument::Int(rows as i32),
            Argument::Int(columns as i32),
        ];
        // SAFETY: each buffer is as long as the kernel's head says.
        unsafe {
            launch(&format!("llmd_fp8_quantise_{format}"), 0, (1, 1), 32, &arguments);
        }
        assert_eq!(device_codes.elements(), codes);
        assert_eq!(bits(device_scales.elements()), bits(&scales));
    }
}

#[test]
fn every_finite_half_quantises_alike() {
    check_every_number("bf16", bf16::from_bits);
    check_every_number("f16", f16::from_bits);
}

#[test]
fn a_dropped_choice_is_minus_one_to_kernels() {
    assert_eq!(DROPPED.cast_signed(), -1);
}
