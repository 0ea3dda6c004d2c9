//! A bounded map that forgets what was used longest ago.

use std::collections::HashMap;
use std::hash::Hash;

/// Index of no entry.
const NONE: u32 = u32::MAX;

/// At most `limit` entries; a new one beyond that takes the place of the one least recently
/// inserted. Entries are a doubly linked list through a slab, newest first, so nothing ever
/// iterates the hash map.
#[derive(Debug, Clone)]
pub(super) struct LruMap<K, V> {
    limit: usize,
    rows: HashMap<K, u32>,
    slab: Vec<Entry<K, V>>,
    newest: u32,
    oldest: u32,
}

#[derive(Debug, Clone)]
struct Entry<K, V> {
    key: K,
    value: V,
    newer: u32,
    older: u32,
}

impl<K: Copy + Eq + Hash, V> LruMap<K, V> {
    pub(super) fn new(limit: usize) -> Self {
        let limit = limit.clamp(1, NONE as usize - 1);
        Self { limit, rows: HashMap::new(), slab: Vec::new(), newest: NONE, oldest: NONE }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.rows.get(key).map(|&row| &self.slab[row as usize].value)
    }

    /// Inserts as the newest, in the place of the key's previous value or else, at the limit, of
    /// the oldest entry.
    pub(super) fn insert(&mut self, key: K, value: V) {
        let row = if let Some(&row) = self.rows.get(&key) {
            self.unlink(row);
            self.slab[row as usize].value = value;
            row
        } else if self.slab.len() < self.limit {
            let row = self.slab.len() as u32;
            self.slab.push(Entry { key, value, newer: NONE, older: NONE });
            self.rows.insert(key, row);
            row
        } else {
            let row = self.oldest;
            self.unlink(row);
            let entry = &mut self.slab[row as usize];
            self.rows.remove(&entry.key);
            entry.key = key;
            entry.value = value;
            self.rows.insert(key, row);
            row
        };
        self.link_newest(row);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    fn unlink(&mut self, row: u32) {
        let Entry { newer, older, .. } = self.slab[row as usize];
        match newer {
            NONE => self.newest = older,
            newer => self.slab[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.slab[older as usize].newer = newer,
        }
    }

    fn link_newest(&mut self, row: u32) {
        let older = std::mem::replace(&mut self.newest, row);
        let entry = &mut self.slab[row as usize];
        entry.newer = NONE;
        entry.older = older;
        match older {
            NONE => self.oldest = row,
            older => self.slab[older as usize].newer = row,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LruMap;
    use proptest::prelude::*;

    #[test]
    fn the_least_recently_inserted_goes_first() {
        let mut map = LruMap::new(2);
        map.insert("a", 1);
        map.insert("b", 2);
        map.insert("a", 3);
        map.insert("c", 4);

        assert_eq!(map.get(&"a"), Some(&3));
        assert_eq!(map.get(&"b"), None);
        assert_eq!(map.get(&"c"), Some(&4));
        assert_eq!(map.len(), 2);
    }

    proptest! {
        #[test]
        fn it_equals_a_list_that_is_searched(
            limit in 1_usize..6,
            inserts in prop::collection::vec((0_u8..10, any::<u16>()), 0..60),
        ) {
            let mut map = LruMap::new(limit);
            let mut list: Vec<(u8, u16)> = Vec::new();
            for (key, value) in inserts {
                map.insert(key, value);
                list.retain(|(known, _)| *known != key);
                list.push((key, value));
                if list.len() > limit {
                    list.remove(0);
                }
            }
            for key in 0..10 {
                let expected = list.iter().find(|(known, _)| *known == key).map(|(_, value)| value);
                prop_assert_eq!(map.get(&key), expected);
            }
        }
    }
}
