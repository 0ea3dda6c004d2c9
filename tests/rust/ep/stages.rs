use crate::oracle;
use half::{bf16, f16};
use llmd_data::ep::{Element, EpError, Layout, combine, dequantise, permute, quantise, scales_len};
use proptest::prelude::*;
use std::num::NonZeroUsize;

/// Expert ids of a step: their number, choices a token, and how they are spread.
#[derive(Debug, Clone)]
struct Step {
    ids: Vec<i64>,
    top_k: usize,
    experts: usize,
    columns: usize,
    seed: u64,
    threads: NonZeroUsize,
}

fn steps() -> impl Strategy<Value = Step> {
    let tokens = prop_oneof![Just(0_usize), 1..9_usize, 60..300_usize];
    let columns = prop_oneof![Just(0_usize), 1..70_usize, 120..140_usize, Just(384_usize)];
    (tokens, 1..9_usize, 1..70_usize, columns, any::<u64>(), 1..4_usize, 0..3_u8).prop_flat_map(
        |(tokens, top_k, experts, columns, seed, threads, spread)| {
            let highest = if spread == 0 { 1 } else { experts as i64 };
            let lowest = if spread == 1 { -1 } else { 0 };
            proptest::collection::vec(lowest..highest, tokens * top_k).prop_map(move |ids| Step {
                ids,
                top_k,
                experts,
                columns,
                seed,
                threads: NonZeroUsize::new(threads).unwrap(),
            })
        },
    )
}

/// Numbers of many magnitudes, from a seed.
fn values<T: Element>(seed: u64, length: usize) -> Vec<T> {
    let mut state = seed | 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    let number = |bits: u32, power: u32| {
        (f64::from(bits) / f64::from(1_u32 << 30) - 1.0) * 2_f64.powi((power % 40) as i32 - 30)
    };
    (0..length).map(|_| T::narrow(number(next(), next()) as f32)).collect()
}

fn bits<T: Element>(values: &[T]) -> Vec<u32> {
    values.iter().map(|value| value.widen().to_bits()).collect()
}

fn check_step<T: Element + Default>(step: &Step) {
    let Step { ids, top_k, experts, columns, seed, threads } = step;
    let (top_k, experts, columns, threads) = (*top_k, *experts, *columns, *threads);
    let mut layout = Layout::default();
    layout.compute(ids, top_k, experts).unwrap();
    let (counts, offsets, row_of_slot) = oracle::layout(ids, experts);
    assert_eq!(layout.counts(), counts);
    assert_eq!(layout.offsets(), offsets);
    assert_eq!(layout.row_of_slot(), row_of_slot);

    let tokens: Vec<T> = values(*seed, layout.tokens() * columns);
    let mut rows = vec![T::default(); layout.rows() * columns];
    permute(&layout, &tokens, columns, &mut rows, threads).unwrap();
    assert_eq!(bits(&rows), bits(&oracle::permute(&row_of_slot, top_k, &tokens, columns)));

    let weights: Vec<f32> = values(seed ^ 7, ids.len());
    let mut combined = vec![T::narrow(f32::NAN); tokens.len()];
    combine(&layout, &rows, &weights, columns, &mut combined, threads).unwrap();
    let expected = oracle::combine(&row_of_slot, top_k, &rows, &weights, columns);
    assert_eq!(bits(&combined), bits(&expected));

    let mut codes = vec![0; tokens.len()];
    let mut scales = vec![0.0; layout.tokens() * scales_len(columns)];
    if columns == 0 {
        scales.clear();
    }
    quantise(&tokens, columns, &mut codes, &mut scales, threads).unwrap();
    let (expected_codes, expected_scales) = oracle::quantise(&tokens, columns);
    assert_eq!(codes, expected_codes);
    assert_eq!(bits(&scales), bits(&expected_scales));

    let mut back = vec![T::default(); codes.len()];
    dequantise(&codes, &scales, columns, &mut back, threads).unwrap();
    assert_eq!(bits(&back), bits(&oracle::dequantise::<T>(&codes, &scales, columns)));
}

fn cases() -> u32 {
    std::env::var("LLMD_HISTORIES")
        .map_or(60, |histories| histories.parse::<u32>().unwrap().min(20_000))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn stages_do_what_their_definitions_say(step in steps()) {
        check_step::<bf16>(&step);
        check_step::<f16>(&step);
        check_step::<f32>(&step);
    }

    #[test]
    fn ids_of_either_width_lay_out_alike(step in steps()) {
        let narrow: Vec<i32> = step.ids.iter().map(|&id| id as i32).collect();
        let (mut wide_layout, mut narrow_layout) = (Layout::default(), Layout::default());
        wide_layout.compute(&step.ids, step.top_k, step.experts).unwrap();
        narrow_layout.compute(&narrow, step.top_k, step.experts).unwrap();
        prop_assert_eq!(wide_layout.row_of_slot(), narrow_layout.row_of_slot());
    }
}

#[test]
fn rows_past_the_caches_are_the_same_rows() {
    // 33 MiB of rows, which are streamed, at an odd width.
    let (tokens, columns, top_k) = (1_200, 1_807, 8);
    let ids: Vec<i64> = (0..tokens * top_k).map(|slot| (slot * 37 % 65) as i64 - 1).collect();
    let mut layout = Layout::default();
    layout.compute(&ids, top_k, 64).unwrap();
    let given: Vec<bf16> = values(3, tokens * columns);
    let mut rows = vec![bf16::ZERO; layout.rows() * columns];
    assert!(size_of_val(rows.as_slice()) > 32 << 20);
    permute(&layout, &given, columns, &mut rows, NonZeroUsize::new(2).unwrap()).unwrap();
    assert_eq!(bits(&rows), bits(&oracle::permute(layout.row_of_slot(), top_k, &given, columns)));
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let one = NonZeroUsize::MIN;
    let mut layout = Layout::default();
    let wrong = layout.compute(&[0_i64, 1, 4, 0], 2, 4).unwrap_err();
    assert_eq!(wrong, EpError::NoSuchExpert { token: 1, id: 4, experts: 4 });
    let wrong = layout.compute(&[-2_i32], 1, 4).unwrap_err();
    assert_eq!(wrong, EpError::NoSuchExpert { token: 0, id: -2, experts: 4 });
    assert_eq!(layout.rows(), 0);
    let wrong = layout.compute(&[i64::MAX], 1, 4).unwrap_err();
    assert!(wrong.to_string().contains(&i64::MAX.to_string()), "{wrong}");
    let wrong = layout.compute(&[i64::MIN], 1, 4).unwrap_err();
    assert_eq!(wrong, EpError::NoSuchExpert { token: 0, id: i64::MIN, experts: 4 });
    let wrong = layout.compute(&[0_i64, 1, 2], 2, 4).unwrap_err();
    assert_eq!(wrong, EpError::NotWholeTokens { ids: 3, top_k: 2 });
    let wrong = layout.compute(&[0_i64], 0, 4).unwrap_err();
    assert_eq!(wrong, EpError::NotWholeTokens { ids: 1, top_k: 0 });

    layout.compute(&[0_i64, 1], 2, 4).unwrap();
    let wrong = permute(&layout, &[1_u8; 3], 4, &mut [0; 8], one).unwrap_err();
    assert_eq!(wrong, EpError::Length { what: "tokens", found: 3, wanted: 4 });
    let wrong = permute(&layout, &[1_u8; 4], 4, &mut [0; 9], one).unwrap_err();
    assert_eq!(wrong, EpError::Length { what: "rows", found: 9, wanted: 8 });
    let wrong = combine(&layout, &[0.0_f32; 8], &[1.0], 4, &mut [0.0; 4], one).unwrap_err();
    assert_eq!(wrong, EpError::Length { what: "weights", found: 1, wanted: 2 });
    let wrong = quantise(&[0.0_f32; 4], 2, &mut [0; 4], &mut [0.0; 1], one).unwrap_err();
    assert_eq!(wrong, EpError::Length { what: "scales", found: 1, wanted: 2 });
    let wrong = combine(&layout, &[0.0_f32; 1], &[1.0; 2], usize::MAX, &mut [0.0; 4], one);
    assert!(matches!(wrong, Err(EpError::Overflow { what: "rows", .. })));
}
