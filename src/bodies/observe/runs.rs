//! Runs of token ids, which are most of a payload, read a word at a time.
//!
//! NOTE(perf): Which of its forms an id has is a coin toss to a branch predictor wherever the
//! vocabulary is larger than 65,536, and a wrong guess costs more than reading the id. So the form
//! is looked up, not branched on: 16 ids of 128,256 take 44 ns, and 95 ns by branches. What is left
//! is the time from an id's first byte to where the next one begins, some 10 cycles. Finding the
//! second of two ids in the first one's word made it 53 ns, computing the length 50 to 88 ns.

/// How an id is laid out that begins with a given byte.
#[derive(Clone, Copy)]
struct Form {
    /// Bytes, the marker included; 0 for what is no short form.
    bytes: u8,
    /// From a word that begins with the id, big-endian, to the id's last bit.
    shift: u8,
    /// Its bits.
    mask: u32,
}

/// A byte below 0x80, or 0xcc, 0xcd, 0xce and 1, 2, 4 bytes.
static FORMS: [Form; 256] = {
    let mut forms = [Form { bytes: 0, shift: 0, mask: 0 }; 256];
    let mut id = 0;
    while id < 0x80 {
        forms[id] = Form { bytes: 1, shift: 56, mask: 0x7f };
        id += 1;
    }
    forms[0xcc] = Form { bytes: 2, shift: 48, mask: 0xff };
    forms[0xcd] = Form { bytes: 3, shift: 40, mask: 0xffff };
    forms[0xce] = Form { bytes: 5, shift: 24, mask: 0xffff_ffff };
    forms
};

/// Fills `ids` with the ids that `bytes` begins with, as long as they are in short forms and a
/// word is there. Returns how many ids and how many bytes that was.
pub(super) fn short_ids(bytes: &[u8], ids: &mut [u32]) -> (usize, usize) {
    let (mut read, mut at) = (0, 0);
    for id in ids {
        let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) else { break };
        let form = FORMS[usize::from(word[0])];
        if form.bytes == 0 {
            break;
        }
        *id = (u64::from_be_bytes(*word) >> (form.shift & 63)) as u32 & form.mask;
        read += 1;
        at += usize::from(form.bytes);
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
        fn short_ids_are_read_up_to_the_end_of_the_bytes(
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
            prop_assert!(read == ids.len() || bytes.len() - used < 8);
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
