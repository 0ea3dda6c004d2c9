//! Each stage as its definition reads, element after element.

use llmd_data::ep::{DROPPED, Element, GROUP, e4m3_from_f32, f32_from_e4m3};

/// (counts, offsets, row of each slot), by sorting.
pub fn layout(ids: &[i64], experts: usize) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
    let mut slots: Vec<usize> = (0..ids.len()).filter(|&slot| ids[slot] >= 0).collect();
    slots.sort_by_key(|&slot| ids[slot]);
    let mut row_of_slot = vec![DROPPED; ids.len()];
    for (row, &slot) in slots.iter().enumerate() {
        row_of_slot[slot] = row as u32;
    }
    let below = |expert: usize| ids.iter().filter(|&&id| id >= 0 && id < expert as i64).count();
    let offsets: Vec<u32> = (0..=experts).map(|expert| below(expert) as u32).collect();
    let counts = offsets.windows(2).map(|pair| pair[1] - pair[0]).collect();
    (counts, offsets, row_of_slot)
}

pub fn permute<T: Copy + Default>(
    row_of_slot: &[u32],
    top_k: usize,
    tokens: &[T],
    columns: usize,
) -> Vec<T> {
    let rows = row_of_slot.iter().filter(|&&row| row != DROPPED).count();
    let mut permuted = vec![T::default(); rows * columns];
    for (slot, &row) in row_of_slot.iter().enumerate() {
        for column in 0..columns {
            if row != DROPPED {
                permuted[row as usize * columns + column] = tokens[slot / top_k * columns + column];
            }
        }
    }
    permuted
}

pub fn combine<T: Element>(
    row_of_slot: &[u32],
    top_k: usize,
    rows: &[T],
    weights: &[f32],
    columns: usize,
) -> Vec<T> {
    let tokens = row_of_slot.len().checked_div(top_k).unwrap_or(0);
    let mut combined = Vec::new();
    for token in 0..tokens {
        for column in 0..columns {
            let mut sum = 0.0_f32;
            for slot in token * top_k..(token + 1) * top_k {
                if row_of_slot[slot] != DROPPED {
                    let value = rows[row_of_slot[slot] as usize * columns + column].widen();
                    sum = value.mul_add(weights[slot], sum);
                }
            }
            combined.push(T::narrow(sum));
        }
    }
    combined
}

/// (codes, scales)
pub fn quantise<T: Element>(values: &[T], columns: usize) -> (Vec<u8>, Vec<f32>) {
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for row in values.chunks(columns.max(1)) {
        for group in row.chunks(GROUP) {
            let largest = group.iter().fold(1e-4_f32, |most, value| most.max(value.widen().abs()));
            scales.push(largest / 448.0);
            codes.extend(
                group.iter().map(|value| e4m3_from_f32(value.widen() * (1.0 / largest * 448.0))),
            );
        }
    }
    (codes, scales)
}

pub fn dequantise<T: Element>(codes: &[u8], scales: &[f32], columns: usize) -> Vec<T> {
    let groups = columns.div_ceil(GROUP);
    let scale = |at: usize| scales[at / columns * groups + at % columns / GROUP];
    let number = |(at, &code): (usize, &u8)| T::narrow(f32_from_e4m3(code) * scale(at));
    codes.iter().enumerate().map(number).collect()
}
