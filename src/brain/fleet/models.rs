//! Model names as small numbers, so that a filter compares integers.

use std::collections::BTreeMap;

/// Names in use, counted; the lowest free number goes to the next name.
#[derive(Debug, Clone, Default)]
pub(super) struct Models {
    names: Vec<(String, u32)>,
    by_name: BTreeMap<String, u32>,
}

impl Models {
    /// The number of `name`, used once more.
    pub(super) fn intern(&mut self, name: &str) -> u32 {
        if let Some(&index) = self.by_name.get(name) {
            self.names[index as usize].1 += 1;
            return index;
        }
        let free = self.names.iter().position(|&(_, users)| users == 0);
        let index = free.unwrap_or_else(|| {
            self.names.push(Default::default());
            self.names.len() - 1
        });
        self.names[index] = (name.to_owned(), 1);
        self.by_name.insert(name.to_owned(), index as u32);
        index as u32
    }

    /// One user fewer.
    pub(super) fn release(&mut self, index: u32) {
        let Some((name, users)) = self.names.get_mut(index as usize) else { return };
        *users = users.saturating_sub(1);
        if *users == 0 {
            self.by_name.remove(name);
        }
    }

    pub(super) fn index(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &str)> {
        let used = self.names.iter().enumerate().filter(|(_, (_, users))| *users > 0);
        used.map(|(index, (name, _))| (index as u32, name.as_str()))
    }
}
