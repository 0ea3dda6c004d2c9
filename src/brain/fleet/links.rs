//! Doubly linked lists through the rows of a slab: append and unlink in constant time, without an
//! allocation of their own.

const NIL: u32 = u32::MAX;

/// One list: its ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    head: u32,
    tail: u32,
}

impl List {
    pub(super) const EMPTY: Self = Self { head: NIL, tail: NIL };

    /// First row.
    pub(super) fn head(self) -> Option<u32> {
        (self.head != NIL).then_some(self.head)
    }
}

/// The links of all rows. A row is in at most one list of one `Links`.
#[derive(Debug, Clone, Default)]
pub(super) struct Links {
    previous: Vec<u32>,
    next: Vec<u32>,
}

impl Links {
    /// One more row, in no list.
    pub(super) fn grow(&mut self) {
        self.previous.push(NIL);
        self.next.push(NIL);
    }

    /// Appends `row`, which is in no list.
    pub(super) fn push_back(&mut self, list: &mut List, row: u32) {
        self.previous[row as usize] = list.tail;
        self.next[row as usize] = NIL;
        match list.tail {
            NIL => list.head = row,
            tail => self.next[tail as usize] = row,
        }
        list.tail = row;
    }

    /// Takes `row` out of `list`, in which it is.
    pub(super) fn unlink(&mut self, list: &mut List, row: u32) {
        let (previous, next) = (self.previous[row as usize], self.next[row as usize]);
        match previous {
            NIL => list.head = next,
            _ => self.next[previous as usize] = next,
        }
        match next {
            NIL => list.tail = previous,
            _ => self.previous[next as usize] = previous,
        }
    }

    /// The row after `row` in its list.
    pub(super) fn next(&self, row: u32) -> Option<u32> {
        self.next.get(row as usize).copied().filter(|&next| next != NIL)
    }
}
