//! A list of slots in order of release, threaded through an array: O(1) push, pop and removal from
//! the middle, no allocation after creation.

const NIL: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Link {
    previous: u32,
    next: u32,
}

/// Slots `0..capacity`, each in the list at most once.
#[derive(Debug, Clone)]
pub(super) struct LruList {
    links: Vec<Link>,
    oldest: u32,
    newest: u32,
    len: u32,
}

impl LruList {
    pub(super) fn new(capacity: u32) -> Self {
        let links = vec![Link { previous: NIL, next: NIL }; capacity as usize];
        Self { links, oldest: NIL, newest: NIL, len: 0 }
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// Adds a slot that is not in the list, as the newest.
    pub(super) fn push(&mut self, slot: u32) {
        let previous = std::mem::replace(&mut self.newest, slot);
        self.links[slot as usize] = Link { previous, next: NIL };
        if previous == NIL {
            self.oldest = slot;
        } else {
            self.links[previous as usize].next = slot;
        }
        self.len += 1;
    }

    /// Takes a slot that is in the list out of it.
    pub(super) fn remove(&mut self, slot: u32) {
        let Link { previous, next } = self.links[slot as usize];
        if previous == NIL {
            self.oldest = next;
        } else {
            self.links[previous as usize].next = next;
        }
        if next == NIL {
            self.newest = previous;
        } else {
            self.links[next as usize].previous = previous;
        }
        self.len -= 1;
    }

    /// Takes the oldest slot out.
    pub(super) fn pop(&mut self) -> Option<u32> {
        let slot = self.oldest;
        (slot != NIL).then(|| {
            self.remove(slot);
            slot
        })
    }

    /// Empties it, oldest first.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = u32> + '_ {
        std::iter::from_fn(|| self.pop())
    }
}
