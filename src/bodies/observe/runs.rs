//! Runs of token ids, which are most of a payload, read a word at a time.
//!
//! NOTE(perf): Which of its forms a token id has is a coin toss to a branch predictor wherever the
//! vocabulary is larger than 65,536, and a wrong guess costs more than reading the id. So the form
//! is computed, not branched on, and of two ids at a time, for the second one's first byte is in
//! the first one's word.

/// A window that holds two ids of any form and ends with a whole word of the second.
const WINDOW: usize = 16;

/// An id in one of its shortest forms: a byte below 0x80, or 0xcc, 0xcd, 0xce and 1, 2, 4 bytes.
struct Form {
    is_short: bool,
    has_marker: u32,
    width: u32,
}

impl Form {
    /// Of the id that `word` begins with.
    #[inline]
    fn of(word: u64) -> Self {
        let first = (word >> 56) as u8;
        let has_marker = first >> 7;
        // All ones where there is a marker.
        let mask = has_marker.wrapping_neg();
        Self {
            is_short: has_marker == 0 || first.wrapping_sub(0xcc) < 3,
            has_marker: u32::from(has_marker),
            width: 1 << (first & mask & 3),
        }
    }

    #[inline]
    fn bytes(&self) -> u32 {
        self.has_marker + self.width
    }

    #[inline]
    fn value(&self, word: u64) -> u32 {
        ((word << (8 * self.has_marker)) >> (64 - 8 * self.width)) as u32
    }
}

/// Fills `ids` with the ids that `bytes` begins with, as long as they are in short forms and there
/// are bytes behind them. Returns how many ids and how many bytes that was.
pub(super) fn short_ids(bytes: &[u8], ids: &mut [u32]) -> (usize, usize) {
    let (mut read, mut at) = (0, 0);
    for pair in ids.as_chunks_mut::<2>().0 {
        let Some(window) = bytes.get(at..).and_then(<[u8]>::first_chunk::<WINDOW>) else { break };
        let Some(word) = window.first_chunk() else { break };
        let word = u64::from_be_bytes(*word);
        let first = Form::of(word);
        let second = Form::of(word << (8 * (first.bytes() & 7)));
        let Some(next) = window.get(first.bytes() as usize..).and_then(<[u8]>::first_chunk) else {
            break;
        };
        if !(first.is_short && second.is_short) {
            break;
        }
        *pair = [first.value(word), second.value(u64::from_be_bytes(*next))];
        read += 2;
        at += (first.bytes() + second.bytes()) as usize;
    }
    (read, at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(ids: &[u64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &id in ids {
            rmp::encode::write_uint(&mut bytes, id).unwrap();
        }
        bytes
    }

    /// An id of every form, as likely as another.
    fn any_id() -> impl Strategy<Value = u32> {
        (any::<u32>(), prop::sample::select(vec![0, 16, 24, 25])).prop_map(|(id, cut)| id >> cut)
    }

    proptest! {
        #[test]
        fn pairs_of_short_ids_are_read_up_to_the_end_of_the_bytes(
            ids in prop::collection::vec(any_id(), 0..40), behind in 0usize..20
        ) {
            let wide: Vec<u64> = ids.iter().copied().map(u64::from).collect();
            let mut bytes = written(&wide);
            let all = bytes.len();
            bytes.resize(all + behind, 0xc0);
            let mut out = vec![0; ids.len()];
            let (read, used) = short_ids(&bytes, &mut out);
            prop_assert_eq!(&out[..read], &ids[..read]);
            prop_assert_eq!(used, written(&wide[..read]).len());
            prop_assert!(read + 1 >= ids.len() || bytes.len() - used < WINDOW);
        }

        #[test]
        fn nothing_is_read_past_another_form(
            mut ids in prop::collection::vec(any_id().prop_map(u64::from), 1..40),
            at in any::<prop::sample::Index>(), odd in any::<u8>()
        ) {
            let at = at.index(ids.len());
            let mut bytes = written(&ids[..at]);
            ids.truncate(at);
            bytes.push(odd);
            bytes.resize(bytes.len() + 40, 0xc1);
            let mut out = vec![0; at + 20];
            let (read, used) = short_ids(&bytes, &mut out);
            let exact = &out[..read.min(at)];
            prop_assert!(exact.iter().map(|&id| u64::from(id)).eq(ids[..exact.len()].iter().copied()));
            // Past `at` only where the odd byte began a short form, and then nothing after it.
            prop_assert!(read <= at + 1);
            prop_assert!(used <= bytes.len());
        }
    }
}
