//! A set of endpoint slots in two words that readers may load at any moment.
//!
//! Slots below 64 are bits of the first word: all there is in a small fleet. The second word says
//! who else is in it: nobody (0), up to four of them by number, or a row of bits elsewhere
//! ([`Rows`]). What is said of one slot lies in one word, so a reader never finds it half written.

use crate::index::sync::{Arc, AtomicU64, Ordering};

/// Marks a second word that names a row.
const ROW: u64 = 1 << 63;
/// Bits of a slot in a second word that lists numbers.
const LANE: u32 = 15;
const LANE_MASK: u64 = (1 << LANE) - 1;
/// Slots that a second word can list.
const LANES: usize = 4;
/// First slot that can be in no set: numbers are kept in 15 bits, 0 for none.
pub(in crate::index) const MAX_ENDPOINTS: usize = LANE_MASK as usize;

/// Words of a row, by its width: for 1,024, 4,096 and 32,768 slots.
const ROW_WORDS: [usize; 3] = [16, 64, 512];
/// Number of widths.
pub(super) const WIDTHS: usize = ROW_WORDS.len();
/// Rows of one allocation.
const PAGE_ROWS: [usize; WIDTHS] = [32, 8, 1];

/// A row of bits: its width and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowId {
    pub(super) width: usize,
    pub(super) place: u32,
}

impl RowId {
    fn word(self) -> u64 {
        ROW | (self.width as u64) << 32 | u64::from(self.place)
    }

    fn of(word: u64) -> Option<Self> {
        (word & ROW != 0)
            .then_some(Self { width: (word >> 32 & 0xFF) as usize, place: word as u32 })
    }
}

/// Where rows lie.
#[derive(Debug, Clone, Default)]
pub(super) struct Rows {
    pages: [Vec<Arc<[AtomicU64]>>; WIDTHS],
}

impl Rows {
    /// The bits of a row from slot 0 on; empty for one that a reader found too late.
    pub(super) fn row(&self, id: RowId) -> &[AtomicU64] {
        let (width, place) = (id.width.min(WIDTHS - 1), id.place as usize);
        let (words, rows) = (ROW_WORDS[width], PAGE_ROWS[width]);
        let Some(page) = self.pages[width].get(place / rows) else { return &[] };
        let first = place % rows * words;
        &page[first..first + words]
    }

    /// Rows of a width that there is room for.
    pub(super) fn room(&self, width: usize) -> u32 {
        (self.pages[width].len() * PAGE_ROWS[width]) as u32
    }

    /// Makes room for more.
    pub(super) fn grow(&mut self, width: usize) {
        let words = ROW_WORDS[width] * PAGE_ROWS[width];
        self.pages[width].push((0..words).map(|_| AtomicU64::new(0)).collect());
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let pages = (0..WIDTHS).map(|width| {
            let page = super::heap::arc(ROW_WORDS[width] * PAGE_ROWS[width] * 8);
            self.pages[width].len() * page + super::heap::vec(&self.pages[width])
        });
        pages.sum()
    }
}

/// Gives rows out and takes them back; what a writer needs to change a set.
pub(super) trait RowSource {
    fn rows(&self) -> &Rows;
    /// A row of zeros.
    fn take_row(&mut self, width: usize) -> RowId;
    /// To be given out again: no reader may take it for part of the set any more.
    fn free_row(&mut self, row: RowId);
}

/// The set.
#[derive(Debug, Default)]
pub(super) struct SlotSet {
    first: AtomicU64,
    rest: AtomicU64,
}

/// What a reader saw of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Words {
    /// Slots below 64.
    pub(super) first: u64,
    rest: u64,
}

/// Who is in a set besides the slots below 64.
pub(super) enum Rest<'a> {
    /// Their numbers; 0 for none, else the slot plus one.
    Few([u16; LANES]),
    /// Their bits, from slot 0 on; the first word is 0.
    Row(&'a [AtomicU64]),
}

impl Words {
    pub(super) fn is_empty(self) -> bool {
        self.first == 0 && self.rest == 0
    }

    pub(super) fn rest(self, rows: &Rows) -> Rest<'_> {
        match RowId::of(self.rest) {
            Some(row) => Rest::Row(rows.row(row)),
            None => Rest::Few(lanes(self.rest)),
        }
    }

    pub(super) fn contains(self, slot: u32, rows: &Rows) -> bool {
        if slot < 64 {
            return self.first >> slot & 1 != 0;
        }
        match self.rest(rows) {
            Rest::Few(few) => few.contains(&(slot as u16 + 1)),
            Rest::Row(row) => row
                .get(slot as usize / 64)
                .is_some_and(|word| word.load(Ordering::Acquire) >> (slot % 64) & 1 != 0),
        }
    }

    /// Whether the slot is all there is in it.
    pub(super) fn is_only(self, slot: u32) -> bool {
        self == Self::only(slot)
    }

    fn only(slot: u32) -> Self {
        if slot < 64 {
            Self { first: 1 << slot, rest: 0 }
        } else {
            Self { first: 0, rest: u64::from(slot) + 1 }
        }
    }

    pub(super) fn equal(self, other: Self, rows: &Rows) -> bool {
        if self == other {
            return true;
        }
        let (Some(ours), Some(theirs)) = (RowId::of(self.rest), RowId::of(other.rest)) else {
            return false;
        };
        if self.first != other.first {
            return false;
        }
        let (ours, theirs) = (rows.row(ours), rows.row(theirs));
        let word =
            |row: &[AtomicU64], i: usize| row.get(i).map_or(0, |w| w.load(Ordering::Relaxed));
        (0..ours.len().max(theirs.len())).all(|i| word(ours, i) == word(theirs, i))
    }
}

fn lanes(word: u64) -> [u16; LANES] {
    std::array::from_fn(|lane| (word >> (lane as u32 * LANE) & LANE_MASK) as u16)
}

/// Sorted, none last: equal sets are equal words.
fn few(mut numbers: [u16; LANES]) -> u64 {
    numbers.sort_unstable_by_key(|&number| number.wrapping_sub(1));
    numbers.iter().rev().fold(0, |word, &number| word << LANE | u64::from(number))
}

impl SlotSet {
    pub(super) fn words(&self) -> Words {
        Words { first: self.first.load(Ordering::Acquire), rest: self.rest.load(Ordering::Acquire) }
    }

    /// Becomes the copy of a set that nobody reads yet.
    pub(super) fn copy_from(&self, from: &Self, source: &mut impl RowSource) {
        let words = from.words();
        let rest = RowId::of(words.rest).map_or(words.rest, |row| {
            let copy = source.take_row(row.width);
            let rows = source.rows();
            for (to, from) in rows.row(copy).iter().zip(rows.row(row)) {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            copy.word()
        });
        self.first.store(words.first, Ordering::Release);
        self.rest.store(rest, Ordering::Release);
    }

    /// Takes nothing from readers: whoever was in it still is, wherever they look.
    pub(super) fn insert(&self, slot: u32, source: &mut impl RowSource) {
        if slot < 64 {
            let first = self.first.load(Ordering::Relaxed);
            return self.first.store(first | 1 << slot, Ordering::Release);
        }
        let rest = self.rest.load(Ordering::Relaxed);
        if let Some(row) = RowId::of(rest)
            && let Some(word) = source.rows().row(row).get(slot as usize / 64)
        {
            let bits = word.load(Ordering::Relaxed);
            return word.store(bits | 1 << (slot % 64), Ordering::Release);
        }
        let rest = match RowId::of(rest) {
            None => {
                let mut numbers = lanes(rest);
                if numbers.contains(&(slot as u16 + 1)) {
                    return;
                }
                match numbers.iter().position(|&number| number == 0) {
                    Some(lane) => {
                        numbers[lane] = slot as u16 + 1;
                        few(numbers)
                    }
                    None => widened(rest, slot, source),
                }
            }
            Some(_) => widened(rest, slot, source),
        };
        self.rest.store(rest, Ordering::Release);
    }

    /// The row that an insertion of this slot would leave behind.
    pub(super) fn outgrown(&self, slot: u32, rows: &Rows) -> Option<RowId> {
        let row = RowId::of(self.rest.load(Ordering::Relaxed))?;
        (slot as usize / 64 >= rows.row(row).len()).then_some(row)
    }

    /// Readers must have been told to look again.
    pub(super) fn remove(&self, slot: u32, source: &mut impl RowSource) {
        if slot < 64 {
            let first = self.first.load(Ordering::Relaxed);
            return self.first.store(first & !(1 << slot), Ordering::Release);
        }
        let rest = self.rest.load(Ordering::Relaxed);
        let Some(row) = RowId::of(rest) else {
            let numbers = lanes(rest).map(|number| match u32::from(number) == slot + 1 {
                true => 0,
                false => number,
            });
            return self.rest.store(few(numbers), Ordering::Release);
        };
        let words = source.rows().row(row);
        if let Some(word) = words.get(slot as usize / 64) {
            let bits = word.load(Ordering::Relaxed);
            word.store(bits & !(1 << (slot % 64)), Ordering::Release);
        }
        let left: u32 = words.iter().map(|word| word.load(Ordering::Relaxed).count_ones()).sum();
        if left as usize <= LANES {
            let mut numbers = [0; LANES];
            for (lane, member) in members(words).enumerate() {
                numbers[lane] = member as u16 + 1;
            }
            self.rest.store(few(numbers), Ordering::Release);
            source.free_row(row);
        }
    }

    /// Empties a set that readers were told to look at again.
    pub(super) fn clear(&self, source: &mut impl RowSource) {
        self.first.store(0, Ordering::Release);
        let rest = self.rest.swap(0, Ordering::AcqRel);
        if let Some(row) = RowId::of(rest) {
            source.free_row(row);
        }
    }
}

/// A row of all that `rest` says, and the slot. The old row is not freed here: readers may be in it.
fn widened(rest: u64, slot: u32, source: &mut impl RowSource) -> u64 {
    let highest = lanes_or_row(rest, source.rows()).chain([slot]).max().unwrap_or(slot);
    let width = ROW_WORDS.iter().position(|&words| (highest as usize) < words * 64);
    let row = source.take_row(width.unwrap_or(WIDTHS - 1));
    let rows = source.rows();
    for member in lanes_or_row(rest, rows).chain([slot]) {
        if let Some(word) = rows.row(row).get(member as usize / 64) {
            let bits = word.load(Ordering::Relaxed);
            word.store(bits | 1 << (member % 64), Ordering::Relaxed);
        }
    }
    row.word()
}

fn members(row: &[AtomicU64]) -> impl Iterator<Item = u32> {
    (0u32..).zip(row).flat_map(|(i, word)| bits(word.load(Ordering::Relaxed), i * 64))
}

fn lanes_or_row(rest: u64, rows: &Rows) -> impl Iterator<Item = u32> {
    let row = RowId::of(rest).map_or(&[][..], |row| rows.row(row));
    let few = if rest & ROW == 0 { lanes(rest) } else { [0; LANES] };
    few.into_iter().filter(|&number| number > 0).map(|n| u32::from(n) - 1).chain(members(row))
}

/// The numbers of the bits that are set, counted from `first`, in order.
pub(in crate::index) fn bits(mut word: u64, first: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        (word != 0).then(|| {
            let bit = word.trailing_zeros();
            word &= word - 1;
            first + bit
        })
    })
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Source {
        rows: Rows,
        free: Vec<RowId>,
        taken: [u32; WIDTHS],
    }

    impl RowSource for Source {
        fn rows(&self) -> &Rows {
            &self.rows
        }

        fn take_row(&mut self, width: usize) -> RowId {
            let row = RowId { width, place: self.taken[width] };
            self.taken[width] += 1;
            while self.rows.room(width) <= row.place {
                self.rows.grow(width);
            }
            row
        }

        fn free_row(&mut self, row: RowId) {
            self.free.push(row);
        }
    }

    fn in_set(set: &SlotSet, source: &Source) -> Vec<u32> {
        (0..32_000).filter(|&slot| set.words().contains(slot, &source.rows)).collect()
    }

    #[test]
    fn a_set_grows_from_a_word_over_numbers_to_rows_and_back() {
        let (set, mut source) = (SlotSet::default(), Source::default());
        let slots = [3, 63, 64, 700, 701, 1_000, 900, 5_000, 30_000];
        for (n, &slot) in slots.iter().enumerate() {
            if let Some(row) = set.outgrown(slot, &source.rows) {
                set.insert(slot, &mut source);
                source.free_row(row);
            } else {
                set.insert(slot, &mut source);
            }
            set.insert(slot, &mut source);
            let mut now = slots[..=n].to_vec();
            now.sort_unstable();
            assert_eq!(in_set(&set, &source), now);
        }
        assert_eq!(source.taken, [1, 0, 1], "for 900 a row, for 5,000 one that takes 30,000 too");

        for (n, &slot) in slots.iter().enumerate() {
            set.remove(slot, &mut source);
            let mut now = slots[n + 1..].to_vec();
            now.sort_unstable();
            assert_eq!(in_set(&set, &source), now);
        }
        assert!(set.words().is_empty());
        assert_eq!(source.free.len(), 2, "both rows are free again");
    }

    #[test]
    fn equal_members_are_equal_sets() {
        let (a, b, mut source) = (SlotSet::default(), SlotSet::default(), Source::default());
        for slot in [900, 70, 80] {
            a.insert(slot, &mut source);
        }
        for slot in [80, 900, 70] {
            b.insert(slot, &mut source);
        }
        assert!(a.words().equal(b.words(), &source.rows));
        for slot in 200..210 {
            a.insert(slot, &mut source);
        }
        assert!(!a.words().equal(b.words(), &source.rows));
        b.copy_from(&a, &mut source);
        assert!(a.words().equal(b.words(), &source.rows));
        b.remove(205, &mut source);
        assert!(!a.words().equal(b.words(), &source.rows));
        assert!(a.words().contains(205, &source.rows));
    }
}
