//! The tiers as one store.

use super::books::{Chain, Counts, pieces_a_block};
use super::disk::DiskTier;
use super::eviction::Algorithm;
use super::host::{HostTier, Leaving};
use super::{BlockKey, StoreError};
use crate::memory::Segment;
use std::path::{Path, PathBuf};

/// What a store is made of. All processes that open it say the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Longest block, in bytes. Slots are of this size, rounded up to pages of 4096.
    pub block_bytes: u64,
    /// Bytes of shared memory for blocks.
    pub host_bytes: u64,
    /// Bytes of a disk for blocks; 0: none.
    pub disk_bytes: u64,
    /// The folder of the disk tier's files.
    pub disk_folder: Option<PathBuf>,
    /// Which blocks go.
    pub eviction: Algorithm,
}

/// A store, attached.
pub struct Store {
    host: HostTier,
    disk: Option<DiskTier>,
}

/// Counters of a store's tiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreCounts {
    /// The shared memory's.
    pub host: Counts,
    /// The disk's.
    pub disk: Option<Counts>,
}

impl Store {
    /// Attaches to the store called `path` (a file under `/dev/shm`; the disk's books are beside
    /// it), or makes it.
    ///
    /// # Errors
    /// [`StoreError`]: a configuration that no store can have or that this one does not have, no
    /// memory, too many processes.
    pub fn open(path: &Path, config: &StoreConfig) -> Result<Self, StoreError> {
        let slot_bytes = config.block_bytes.next_multiple_of(4096);
        let slots = |bytes: u64| bytes / slot_bytes.max(1);
        if slots(config.host_bytes) == 0 {
            let remedy = "give the host tier room for one block at least";
            let value = config.host_bytes;
            return Err(StoreError::Config { name: "host_bytes", value, remedy });
        }
        let host = HostTier::open(path, slots(config.host_bytes), slot_bytes, config.eviction)?;
        let disk = match &config.disk_folder {
            Some(folder) if slots(config.disk_bytes) > 0 => Some(DiskTier::open(
                &disk_books(path),
                folder,
                slots(config.disk_bytes),
                slot_bytes,
                config.eviction,
            )?),
            _ => None,
        };
        Ok(Self { host, disk })
    }

    /// How many of `keys`, from the first, are in either tier now. It counts as no use.
    #[must_use]
    pub fn matched(&self, keys: &[BlockKey]) -> usize {
        let mut matched = self.host.books().matched(keys);
        // What is only on the disk may lie between blocks that are in memory.
        while let Some(disk) = self.disk.as_ref().filter(|_| matched < keys.len()) {
            let below = disk.books().matched(&keys[matched..]);
            matched += below;
            let above = self.host.books().matched(&keys[matched..]);
            matched += above;
            if below + above == 0 {
                break;
            }
        }
        matched
    }

    /// Copies the blocks of `chain` out, each into its own of `pieces` (as many a block for each),
    /// and says which were there. Of one that was not, its pieces hold no particular bytes. What
    /// the disk had is in memory again afterwards.
    pub fn get(&self, chain: Chain<'_>, pieces: &mut [&mut [u8]]) -> Vec<bool> {
        let mut there = self.host.get(chain.keys, pieces);
        if let Some(disk) = self.disk.as_ref().filter(|_| there.contains(&false)) {
            let missing: Vec<usize> = (0..there.len()).filter(|&at| !there[at]).collect();
            let keys: Vec<BlockKey> = missing.iter().map(|&at| chain.keys[at]).collect();
            let pieces_a_block = pieces_a_block(chain.keys.len(), pieces.len());
            disk.get(&keys, |place, _, mut bytes| {
                let at = missing[place];
                let pieces = &mut pieces[at * pieces_a_block..(at + 1) * pieces_a_block];
                let asked: usize = pieces.iter().map(|piece| piece.len()).sum();
                if asked != bytes.len() {
                    return;
                }
                for piece in pieces {
                    let (own, rest) = bytes.split_at(piece.len());
                    piece.copy_from_slice(own);
                    bytes = rest;
                }
                there[at] = true;
            });
            let pieces: Vec<&[u8]> = pieces.iter().map(|piece| &**piece).collect();
            for run in missing.chunk_by(|&one, &next| next == one + 1) {
                self.promote(&chain, run, &there, &pieces);
            }
        }
        there
    }

    /// Brings blocks that the disk had back into memory: `run` are places in `chain`.
    fn promote(&self, chain: &Chain<'_>, run: &[usize], there: &[bool], pieces: &[&[u8]]) {
        let pieces_a_block = pieces_a_block(chain.keys.len(), pieces.len());
        let (first, found) = (run[0], run.iter().take_while(|&&at| there[at]).count());
        if found == 0 {
            return;
        }
        let last = first + found;
        let part = Chain {
            keys: &chain.keys[first..last],
            parent: Some(chain.parent_of(first)),
            position: chain.position + first as u32,
        };
        let own = &pieces[first * pieces_a_block..last * pieces_a_block];
        // Their lengths fitted when they were stored.
        let _ = self.host.put(part, own, |leaving| self.demote(leaving));
    }

    /// Stores the blocks of `chain`, each from its own of `pieces` (as many a block for each), and
    /// says how many were not there before. What goes from memory goes to the disk.
    ///
    /// # Errors
    /// [`StoreError::TooLong`], with nothing stored.
    pub fn put(&self, chain: Chain<'_>, pieces: &[&[u8]]) -> Result<usize, StoreError> {
        self.host.put(chain, pieces, |leaving| self.demote(leaving))
    }

    fn demote(&self, leaving: &[Leaving<'_>]) {
        if let Some(disk) = &self.disk {
            let blocks: Vec<_> = leaving.iter().map(|it| it.block).collect();
            disk.put(&blocks, |at, out| leaving[at].copy(out));
        }
    }

    /// The tier of shared memory.
    #[must_use]
    pub const fn host(&self) -> &HostTier {
        &self.host
    }

    /// The tier on the disk.
    #[must_use]
    pub const fn disk(&self) -> Option<&DiskTier> {
        self.disk.as_ref()
    }

    /// What has happened in it, to all processes together.
    #[must_use]
    pub fn counts(&self) -> StoreCounts {
        StoreCounts {
            host: self.host.books().counters().read(),
            disk: self.disk.as_ref().map(|disk| disk.books().counters().read()),
        }
    }

    /// Removes the name of the store called `path`: processes that are attached keep it, the next
    /// to open it makes a new one. The disk's files stay.
    ///
    /// # Errors
    /// The operating system's.
    pub fn unlink(path: &Path) -> Result<(), StoreError> {
        Segment::unlink(path)?;
        Ok(Segment::unlink(&disk_books(path))?)
    }
}

fn disk_books(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".disk");
    name.into()
}
