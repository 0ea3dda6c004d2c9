//! Where what lies in a segment of books, and the one place that makes references into it.

#![allow(unsafe_code)]

use super::{Counters, Guard};
use crate::kv::StoreError;
use crate::kv::catalogue::{Catalogue, Head, Slot};
use crate::kv::eviction::{Node, Policy};
use crate::memory::{RobustMutex, Segment};
use bytemuck::{Pod, Zeroable};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

/// The first word of books that are whole: written last. Changes with the layout.
const MAGIC: u64 = u64::from_le_bytes(*b"llmd-kv1");
/// As many processes as may be attached at once.
pub const PARTICIPANTS: usize = 256;
/// Slots' memory begins and ends at huge pages, for direct IO and for the kernel's sake.
const ALIGNMENT: usize = 2 << 20;
const PAGE: u64 = 4096;

/// What all participants must agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Settings {
    /// How many blocks.
    pub slots: u64,
    /// Longest block.
    pub slot_bytes: u64,
    /// Bytes of memory in the segment for each slot: `slot_bytes`, or 0 if blocks are elsewhere.
    pub memory_bytes: u64,
    /// Position of the eviction algorithm in [`Algorithm::ALL`](crate::kv::eviction::Algorithm).
    pub algorithm: u64,
}

impl Settings {
    /// Refuses settings that are not `ours`.
    pub fn must_be(&self, ours: &Self, path: &Path) -> Result<(), StoreError> {
        let names = ["slots", "slot_bytes", "memory_bytes", "algorithm"];
        let (theirs, ours): ([u64; 4], [u64; 4]) = (bytemuck::cast(*self), bytemuck::cast(*ours));
        match (0..4).find(|&at| theirs[at] != ours[at]) {
            None => Ok(()),
            Some(at) => Err(StoreError::Mismatch {
                path: path.into(),
                name: names[at],
                theirs: theirs[at],
                ours: ours[at],
            }),
        }
    }
}

/// What the segment begins with.
#[repr(C)]
pub struct Control {
    magic: AtomicU64,
    epoch: u64,
    settings: Settings,
    mutex: RobustMutex,
    /// Not 0: whoever held the mutex last did not finish.
    broken: AtomicU64,
    /// See `SharedBooks::filled`.
    pub filled: AtomicU64,
    /// How many participants there have been in each place.
    pub participants: [AtomicU64; PARTICIPANTS],
    pub counters: Counters,
    head: Head,
    policy: Policy,
}

/// Where the parts of a segment begin.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    slots: usize,
    buckets: usize,
    memory_a_slot: usize,
    generations_at: usize,
    buckets_at: usize,
    slots_at: usize,
    nodes_at: usize,
    memory_at: usize,
    /// All of it.
    pub bytes: usize,
}

impl Layout {
    /// The layout of books with `settings`.
    pub fn of(settings: Settings) -> Result<Self, StoreError> {
        let config = |name, value, remedy| Err(StoreError::Config { name, value, remedy });
        if settings.slots == 0 || settings.slots >= 1 << 30 {
            return config("slots", settings.slots, "between 1 and 2^30 blocks fit a tier");
        }
        let length = settings.slot_bytes;
        if length == 0 || !length.is_multiple_of(PAGE) || length > u64::from(u32::MAX) {
            return config("slot_bytes", length, "use a multiple of 4096 below 4 GiB");
        }
        let slots = settings.slots as usize;
        let buckets = (slots * 2).next_power_of_two();
        let mut end = 0;
        let mut part = |bytes: usize, alignment: usize| {
            let start = usize::next_multiple_of(end, alignment);
            end = start + bytes;
            start
        };
        part(size_of::<Control>(), 64);
        let generations_at = part(slots * size_of::<AtomicU64>(), 64);
        let buckets_at = part(buckets * size_of::<u32>(), 64);
        let slots_at = part(slots * size_of::<Slot>(), 64);
        let nodes_at = part(slots * size_of::<Node>(), 64);
        let memory_a_slot = settings.memory_bytes as usize;
        let Some(memory) = slots.checked_mul(memory_a_slot) else {
            return config("slots", settings.slots, "use fewer: they exceed the address space");
        };
        let memory_at = part(memory, if memory > 0 { ALIGNMENT } else { 64 });
        let bytes = end.next_multiple_of(PAGE as usize);
        Ok(Self {
            slots,
            buckets,
            memory_a_slot,
            generations_at,
            buckets_at,
            slots_at,
            nodes_at,
            memory_at,
            bytes,
        })
    }
}

/// What the books in `file` were made with; `None` where whoever began to make them did not finish.
pub fn made_with(file: &File, path: &Path) -> Result<Option<Settings>, StoreError> {
    const SETTINGS_AT: usize = std::mem::offset_of!(Control, settings);
    let mut start = [0; SETTINGS_AT + size_of::<Settings>()];
    match file.read_exact_at(&mut start, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(source) => return Err(StoreError::Io { action: "read", path: path.into(), source }),
    }
    let whole = start[..8] == MAGIC.to_ne_bytes();
    Ok(whole.then(|| bytemuck::pod_read_unaligned(&start[SETTINGS_AT..])))
}

/// A segment of books.
pub struct Mapped {
    segment: Segment,
    layout: Layout,
}

impl Mapped {
    /// `segment` must have been cleared or made for `layout`, whose length it has.
    pub fn new(segment: Segment, layout: Layout) -> Self {
        assert_eq!(segment.bytes(), layout.bytes, "the segment is of its layout's length");
        Self { segment, layout }
    }

    /// Makes books of nothing in a cleared segment.
    pub fn start(&mut self, settings: &Settings) -> Result<(), StoreError> {
        let control = self.segment.start().cast::<Control>();
        let drawn = super::now_ms() ^ u64::from(std::process::id()).rotate_left(40);
        // SAFETY: the segment is mapped, page-aligned and longer than `Control`, of which zeros are
        // a valid value. Only who holds the opening lock gets here, and nobody else uses a segment
        // without its magic, which is stored last.
        unsafe {
            (&raw mut (*control).epoch).write(drawn.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
            (&raw mut (*control).settings).write(*settings);
            RobustMutex::start(&raw mut (*control).mutex).map_err(|source| StoreError::Io {
                action: "make a robust mutex in",
                path: self.path().into(),
                source,
            })?;
        }
        // Whoever enters first builds the books of no blocks.
        self.control().broken.store(1, Ordering::Relaxed);
        self.control().magic.store(MAGIC, Ordering::Release);
        Ok(())
    }

    /// What the segment begins with, but for what the mutex guards.
    pub fn control(&self) -> &Control {
        // SAFETY: mapped, aligned and long enough as in `start`, for as long as `self` lives. What
        // changes behind this reference is atomic or the mutex, which has interior mutability;
        // `head` and `policy` are reached through raw pointers in `catalogue` alone.
        unsafe { &*self.segment.start().cast::<Control>() }
    }

    /// One generation a slot.
    pub fn generations(&self) -> &[AtomicU64] {
        // SAFETY: the layout puts `slots` aligned words at this place inside the segment, which
        // lives as long as `self`; all processes treat them as atomics.
        unsafe {
            let start = self.segment.start().add(self.layout.generations_at);
            slice::from_raw_parts(start.cast(), self.layout.slots)
        }
    }

    /// The view of whoever has entered the mutex, which `_entered` proves.
    pub fn catalogue<'a>(&'a self, _entered: &'a mut Guard<'_>) -> Catalogue<'a, Policy> {
        let start = self.segment.start();
        let control = start.cast::<Control>();
        let Layout { slots, buckets, .. } = self.layout;
        // SAFETY: the layout puts each part, aligned, at its own place inside the segment. They are
        // plain data of which all bits are valid. The guard is borrowed mutably for as long as the
        // view lives and its mutex excludes all other threads and processes, so these are the only
        // references to these parts. `control()` hands out none to `head` or `policy`: it covers
        // them, but reads and writes nothing of them.
        unsafe {
            Catalogue {
                head: &mut (*control).head,
                buckets: slice::from_raw_parts_mut(
                    start.add(self.layout.buckets_at).cast(),
                    buckets,
                ),
                slots: slice::from_raw_parts_mut(start.add(self.layout.slots_at).cast(), slots),
                nodes: slice::from_raw_parts_mut(start.add(self.layout.nodes_at).cast(), slots),
                generations: self.generations(),
                policy: &mut (*control).policy,
            }
        }
    }

    /// First byte of the memory of slot `slot`.
    pub fn slot_memory(&self, slot: u32) -> *mut u8 {
        assert!((slot as usize) < self.layout.slots, "slot {slot} is in the tier");
        let offset = self.layout.memory_at + slot as usize * self.layout.memory_a_slot;
        // SAFETY: the slot is in the tier, so its memory is inside the segment.
        unsafe { self.segment.start().add(offset) }
    }

    pub fn counters(&self) -> &Counters {
        &self.control().counters
    }

    pub fn mutex(&self) -> &RobustMutex {
        &self.control().mutex
    }

    pub fn broken(&self) -> bool {
        self.control().broken.load(Ordering::Relaxed) != 0
    }

    pub fn set_broken(&self, broken: bool) {
        self.control().broken.store(u64::from(broken), Ordering::Relaxed);
    }

    pub fn epoch(&self) -> u64 {
        self.control().epoch
    }

    pub fn settings(&self) -> Settings {
        self.control().settings
    }

    pub fn file(&self) -> &File {
        self.segment.as_file()
    }

    pub fn path(&self) -> &Path {
        self.segment.path()
    }
}
