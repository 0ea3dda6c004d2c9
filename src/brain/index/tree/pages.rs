//! Where a stripe's writer gets its room: pages, nodes, records, rows, and the table of heads.

use super::heads::Heads;
use super::node::{More, Node, SetSource, SharedSource};
use super::set::{RowId, RowSource, Rows};
use super::storage::{
    BlockPage, NodePage, PAGE_BLOCKS, PAGE_NODES, PAGE_RECORDS, RecordPage, Storage,
};
use super::stripe::Writer;
use crate::index::sync::{Arc, Ordering};
use std::ops::Range;

impl Writer {
    /// Publishes a changed list.
    pub(super) fn publish(&mut self, change: impl FnOnce(&mut Storage)) {
        let mut storage = Storage::clone(&self.storage);
        change(&mut storage);
        self.storage = Arc::new(storage);
        self.published.store(Arc::clone(&self.storage));
        self.edition.fetch_add(1, Ordering::Release);
        let bytes = self.storage.heap_bytes(&self.void);
        self.all_bytes.fetch_add(bytes.wrapping_sub(self.counted_bytes), Ordering::Relaxed);
        self.counted_bytes = bytes;
    }

    /// Makes pages for slots; where the list has to grow, for a sixty-fourth more at once, so that it
    /// is copied rarely.
    pub(super) fn page_blocks(&mut self, slots: &Range<u32>) {
        let have = self.storage.blocks.len();
        let (first, end) = (slots.start as usize, slots.end as usize);
        let given_back = first / PAGE_BLOCKS;
        if given_back < have && Arc::ptr_eq(&self.storage.blocks[given_back], &self.void) {
            self.publish(|storage| storage.blocks[given_back] = Arc::new(BlockPage::new()));
        }
        let needed = end.div_ceil(PAGE_BLOCKS);
        if needed > have {
            let pages = needed.max(have + have / 64);
            self.publish(|storage| {
                storage.blocks.reserve_exact(pages - have);
                let fresh = std::iter::repeat_with(|| Arc::new(BlockPage::new()));
                storage.blocks.extend(fresh.take(pages - have));
            });
        }
    }

    /// Frees slots, and the memory of pages of which all is free.
    pub(super) fn give_room(&mut self, slots: Range<u32>) {
        self.room.give(slots);
        let mut pages = self.room.give_back();
        let needed = (self.room.used() as usize).div_ceil(PAGE_BLOCKS);
        let have = self.storage.blocks.len();
        if have > needed + needed / 8 + 8 {
            pages.extend(needed as u32..have as u32);
        }
        if pages.is_empty() {
            return;
        }
        let void = Arc::clone(&self.void);
        self.publish(|storage| {
            for page in pages {
                storage.blocks[page as usize] = Arc::clone(&void);
            }
            storage.blocks.truncate(needed);
        });
    }

    pub(super) fn take_node(&mut self) -> u32 {
        let node = self.nodes.take();
        let have = self.storage.nodes.len();
        if node as usize >= have * PAGE_NODES {
            let pages = have + 1 + have / 64;
            self.publish(|storage| {
                storage.nodes.reserve_exact(pages - have);
                let fresh = || Arc::new(NodePage(std::array::from_fn(|_| Node::default())));
                storage.nodes.extend(std::iter::repeat_with(fresh).take(pages - have));
            });
        }
        node
    }

    pub(super) fn insert_head(&mut self, key: u64, node: u32) {
        if self.heads_used >= self.storage.heads.room() {
            let live = (0..self.nodes.used()).filter(|&node| self.node(node).len() > 0);
            let live: Vec<u32> = live.filter(|&other| other != node).collect();
            let heads = Heads::with_room(live.len() + live.len() / 4 + 8);
            for &node in &live {
                heads.insert(self.node(node).head(), node);
            }
            self.heads_used = live.len();
            self.publish(|storage| storage.heads = Arc::new(heads));
        }
        self.heads_used += usize::from(self.storage.heads.insert(key, node));
    }

    pub(super) fn remove_head(&mut self, node: u32) {
        self.heads_used -= self.storage.heads.remove(self.node(node).head(), node);
    }
}

impl RowSource for Writer {
    fn rows(&self) -> &Rows {
        &self.storage.rows
    }

    fn take_row(&mut self, width: usize) -> RowId {
        let place = self.rows[width].take();
        if place >= self.storage.rows.room(width) {
            self.publish(|storage| storage.rows.grow(width));
        }
        let row = RowId { width, place };
        for word in self.storage.rows.row(row) {
            word.store(0, Ordering::Relaxed);
        }
        row
    }

    fn free_row(&mut self, row: RowId) {
        self.rows[row.width].give(row.place);
    }
}

impl SetSource for Writer {
    fn record(&self, record: u32) -> &More {
        self.storage.record(record)
    }

    fn take_record(&mut self) -> u32 {
        let record = self.records.take();
        let have = self.storage.records.len();
        if record as usize >= have * PAGE_RECORDS {
            self.publish(|storage| {
                let page = RecordPage(std::array::from_fn(|_| More::default()));
                storage.records.push(Arc::new(page));
            });
        }
        record
    }

    fn free_record(&mut self, record: u32) {
        self.records.give(record);
    }
}

/// A record, with the page that it lies on.
pub(super) struct Record {
    page: Arc<RecordPage>,
    within: usize,
}

impl std::ops::Deref for Record {
    type Target = More;
    fn deref(&self) -> &More {
        &self.page.0[self.within]
    }
}

impl SharedSource for Writer {
    type Record = Record;

    fn shared_record(&self, record: u32) -> Record {
        let record = record as usize;
        let page = Arc::clone(&self.storage.records[record / PAGE_RECORDS]);
        Record { page, within: record % PAGE_RECORDS }
    }
}
