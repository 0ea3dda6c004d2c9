//! Registered memory: here, and as peers know it.

use super::epochs::Epochs;
use super::path::PathKind;
use super::{End, Memory, Place, TransferError};
use parking_lot::Mutex;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How blocks lie in a region: layer after layer, in each the same blocks. A block's parts in all
/// layers share one epoch. A region of whole blocks, or with all layers of a block side by side,
/// has one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of a block in one layer.
    pub block_bytes: u64,
    /// Blocks in a layer.
    pub blocks: u32,
}

/// A region's length and layout, which are all that descriptors are checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of the whole region.
    pub length: u64,
    /// How blocks lie in it.
    pub layout: Layout,
}

impl Shape {
    pub(super) fn new(length: u64, layout: Layout) -> Result<Self, TransferError> {
        let Layout { block_bytes, blocks } = layout;
        let layer = block_bytes.checked_mul(u64::from(blocks)).filter(|&layer| layer > 0);
        match layer {
            Some(layer) if length > 0 && length.is_multiple_of(layer) => {
                Ok(Self { length, layout })
            }
            _ => Err(TransferError::Layout { length, blocks, block_bytes }),
        }
    }

    /// The block that a range lies in.
    pub(super) fn slot(&self, end: End, offset: u64, bytes: u64) -> Result<u32, TransferError> {
        self.contains(end, offset, bytes)?;
        let Layout { block_bytes, blocks } = self.layout;
        if bytes == 0 || offset / block_bytes != (offset + bytes - 1) / block_bytes {
            return Err(TransferError::NotOneBlock { end, offset, bytes, block_bytes });
        }
        Ok((offset / block_bytes % u64::from(blocks)) as u32)
    }

    /// Whether a range lies in the region.
    pub(super) fn contains(&self, end: End, offset: u64, bytes: u64) -> Result<(), TransferError> {
        match offset.checked_add(bytes) {
            Some(until) if until <= self.length => Ok(()),
            _ => Err(TransferError::OutOfRange { end, offset, bytes, length: self.length }),
        }
    }
}

/// A region as its owner and the transfers that use it hold it.
pub struct Registered {
    pub(super) id: u64,
    pub(super) incarnation: u64,
    pub(super) shape: Shape,
    pub(super) epochs: Epochs,
    /// What paths made for this memory (a device's registration), dropped before the memory.
    registrations: Mutex<Vec<(PathKind, Arc<dyn Any + Send + Sync>)>>,
    memory: Box<dyn Memory>,
    registered_bytes: Arc<AtomicU64>,
}

impl Registered {
    pub(super) fn new(
        incarnation: u64,
        id: u64,
        memory: Box<dyn Memory>,
        layout: Layout,
        registered_bytes: Arc<AtomicU64>,
    ) -> Result<Self, TransferError> {
        let length = memory.length_bytes() as u64;
        let shape = Shape::new(length, layout)?;
        let epochs = Epochs::new(layout.blocks)?;
        registered_bytes.fetch_add(length, Ordering::AcqRel);
        let registrations = Mutex::default();
        Ok(Self { id, incarnation, shape, epochs, registrations, memory, registered_bytes })
    }

    /// The memory.
    pub fn memory(&self) -> &dyn Memory {
        &*self.memory
    }

    /// What `path` keeps for this region; made at the first call, dropped with the region.
    pub fn registration<T: Send + Sync + 'static>(
        &self,
        path: PathKind,
        make: impl FnOnce(&dyn Memory) -> Result<T, TransferError>,
    ) -> Result<Arc<T>, TransferError> {
        let mut registrations = self.registrations.lock();
        let found = registrations.iter().filter(|(kind, _)| *kind == path);
        if let Some(found) = found.filter_map(|(_, kept)| kept.clone().downcast().ok()).next() {
            return Ok(found);
        }
        let made = Arc::new(make(&*self.memory)?);
        registrations.push((path, made.clone()));
        Ok(made)
    }

    pub(super) fn stale(&self, end: End, slot: u32, expected: u64) -> TransferError {
        TransferError::Stale { end, region: self.id, slot, expected }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registered_bytes.fetch_sub(self.shape.length, Ordering::AcqRel);
    }
}

impl std::fmt::Debug for Registered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "region {:#x} of {} bytes", self.id, self.shape.length)
    }
}

/// Registered memory. Dropping it deregisters: peers' transfers fail from then on, and the memory
/// is released when the last transfer that is under way has ended.
#[derive(Debug)]
pub struct Region {
    pub(super) inner: Arc<Registered>,
    pub(super) on_drop: Deregister,
}

impl Region {
    /// What peers need to name this region.
    pub fn remote(&self) -> RemoteRegion {
        let (place, handle) = match self.inner.memory.place() {
            Place::Private => (RemotePlace::Private, Vec::new()),
            Place::Shared(_) => (RemotePlace::Shared, Vec::new()),
            Place::Device { device, handle } => (RemotePlace::Device(device), handle.to_vec()),
        };
        let Registered { incarnation, id, shape, .. } = *self.inner;
        RemoteRegion { incarnation, id, shape, place, handle }
    }

    /// A block's epoch; none if there is no such block.
    pub fn epoch(&self, slot: u32) -> Option<u64> {
        self.inner.epochs.get(slot)
    }

    /// Says that a block will hold other content: from here on its old epoch is stale. To be called
    /// before the first byte changes. Fails while a transfer writes to the block, or while one of
    /// this agent's own uses it.
    pub fn advance(&self, slot: u32) -> Result<u64, TransferError> {
        self.inner.epochs.advance(slot)
    }

    /// How many blocks cannot be advanced now.
    pub fn held_blocks(&self) -> usize {
        self.inner.epochs.held_blocks()
    }

    /// How many devices the memory is registered with.
    pub fn registrations(&self) -> usize {
        self.inner.registrations.lock().len()
    }

    /// The memory.
    pub fn memory(&self) -> &dyn Memory {
        self.inner.memory()
    }
}

/// Takes a region from its agent's list when its handle goes.
pub(super) struct Deregister(pub(super) Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Deregister {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Deregister")
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.inner.epochs.close();
        (self.on_drop.0)();
    }
}

/// Where a peer's region is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemotePlace {
    /// In its process alone.
    Private,
    /// In a segment that it shares.
    Shared,
    /// On the device of this number.
    Device(u32),
}

/// A peer's region, as bytes from it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteRegion {
    pub(super) incarnation: u64,
    pub(super) id: u64,
    pub(super) shape: Shape,
    pub(super) place: RemotePlace,
    pub(super) handle: Vec<u8>,
}

/// A device's handle is short; a CUDA IPC handle has 64 bytes.
const MAX_HANDLE_BYTES: usize = 1024;

impl RemoteRegion {
    /// The region's length and layout.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Where it is.
    pub fn place(&self) -> RemotePlace {
        self.place
    }

    /// What its memory's path sent along.
    pub fn handle(&self) -> &[u8] {
        &self.handle
    }

    /// As bytes, for whatever carries them to the peer.
    pub fn encode(&self) -> Vec<u8> {
        let (place, device) = match self.place {
            RemotePlace::Private => (0, 0),
            RemotePlace::Shared => (1, 0),
            RemotePlace::Device(device) => (2, device),
        };
        let Shape { length, layout: Layout { block_bytes, blocks } } = self.shape;
        let mut out = Vec::with_capacity(46 + self.handle.len());
        for number in [self.incarnation, self.id, length, block_bytes] {
            out.extend(number.to_le_bytes());
        }
        out.extend(blocks.to_le_bytes());
        out.push(place);
        out.extend(device.to_le_bytes());
        out.extend(&self.handle);
        out
    }

    /// From [`RemoteRegion::encode`]'s bytes, which may come from anywhere.
    pub fn decode(bytes: &[u8]) -> Result<Self, TransferError> {
        let wrong = |what: String| TransferError::Protocol { peer: "a region".into(), what };
        let short = || wrong(format!("{} bytes are no region's descriptor", bytes.len()));
        let (numbers, rest) = bytes.split_first_chunk::<32>().ok_or_else(short)?;
        let (blocks, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let (place, rest) = rest.split_first().ok_or_else(short)?;
        let (device, handle) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let mut numbers = numbers
            .chunks_exact(8)
            .map(|number| u64::from_le_bytes(number.try_into().unwrap_or_default()));
        let mut next = || numbers.next().unwrap_or_default();
        let (incarnation, id, length, block_bytes) = (next(), next(), next(), next());
        let layout = Layout { block_bytes, blocks: u32::from_le_bytes(*blocks) };
        let place = match place {
            0 => RemotePlace::Private,
            1 => RemotePlace::Shared,
            2 => RemotePlace::Device(u32::from_le_bytes(*device)),
            other => return Err(wrong(format!("a region in place {other}"))),
        };
        if handle.len() > MAX_HANDLE_BYTES {
            return Err(wrong(format!("a handle of {} bytes", handle.len())));
        }
        let shape = Shape::new(length, layout)?;
        Ok(Self { incarnation, id, shape, place, handle: handle.to_vec() })
    }
}
