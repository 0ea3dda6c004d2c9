//! A paged KV cache with prefix reuse: reference counts, and least recently used among the rest.

use std::collections::{BTreeMap, HashMap};

/// A physical block.
pub type Page = usize;

struct PageState {
    content: Option<u64>,
    references: u32,
    released: u64,
}

/// What changed in the contents that can be hit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    Stored(u64),
    Removed(u64),
}

pub struct Cache {
    pages: Vec<PageState>,
    by_content: HashMap<u64, Page>,
    /// Pages with content that nobody references, oldest release first.
    reusable: BTreeMap<u64, Page>,
    vacant: Vec<Page>,
    releases: u64,
    pub changes: Vec<Change>,
}

impl Cache {
    pub fn new(capacity_blocks: usize) -> Self {
        let empty = || PageState { content: None, references: 0, released: 0 };
        Self {
            pages: std::iter::repeat_with(empty).take(capacity_blocks).collect(),
            by_content: HashMap::new(),
            reusable: BTreeMap::new(),
            vacant: (0..capacity_blocks).rev().collect(),
            releases: 0,
            changes: Vec::new(),
        }
    }

    pub fn available(&self) -> usize {
        self.vacant.len() + self.reusable.len()
    }

    pub fn usage(&self) -> f64 {
        1.0 - self.available() as f64 / self.pages.len() as f64
    }

    /// Leading contents that are there.
    pub fn matched(&self, contents: &[u64]) -> usize {
        contents.iter().take_while(|content| self.by_content.contains_key(content)).count()
    }

    /// Those of the first `blocks` contents whose pages nobody references: taking them lowers what
    /// is available.
    pub fn reusable_among(&self, contents: &[u64]) -> usize {
        let pages = contents.iter().map(|content| self.by_content[content]);
        pages.filter(|&page| self.pages[page].references == 0).count()
    }

    pub fn take_hit(&mut self, content: u64) -> Page {
        let page = self.by_content[&content];
        let state = &mut self.pages[page];
        if state.references == 0 {
            self.reusable.remove(&state.released);
        }
        state.references += 1;
        page
    }

    /// An empty page, in the place of the content released longest ago if need be.
    pub fn take_new(&mut self) -> Option<Page> {
        let page = match self.vacant.pop() {
            Some(page) => page,
            None => {
                let (_, page) = self.reusable.pop_first()?;
                let content = self.pages[page].content.take().unwrap();
                self.by_content.remove(&content);
                self.changes.push(Change::Removed(content));
                page
            }
        };
        self.pages[page].references = 1;
        Some(page)
    }

    /// A page has been computed and is full. A second copy of a content is never hit.
    pub fn computed(&mut self, page: Page, content: u64) {
        if self.pages[page].content.is_none() && !self.by_content.contains_key(&content) {
            self.pages[page].content = Some(content);
            self.by_content.insert(content, page);
            self.changes.push(Change::Stored(content));
        }
    }

    /// Gives a sequence's pages back, its tail first in line for eviction.
    pub fn release(&mut self, pages: &[Page]) {
        for &page in pages.iter().rev() {
            let state = &mut self.pages[page];
            state.references -= 1;
            if state.references > 0 {
                continue;
            }
            if state.content.is_some() {
                self.releases += 1;
                state.released = self.releases;
                self.reusable.insert(self.releases, page);
            } else {
                self.vacant.push(page);
            }
        }
    }
}
