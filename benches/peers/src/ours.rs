//! Our side: the one file that knows the index's interface.

use llmd_brain::index::snapshot::format::{Item, Reader, Writer};
use llmd_brain::index::snapshot::{Exported, ImportError};
use llmd_brain::index::{Depths, IndexConfig, Residency, Source};
use llmd_brain::prompt::{Chain, Extras};
pub use llmd_brain::{BlockKey, EngineHash};
use llmd_brain::{EndpointId, Slot, Time};

const BLOCK_TOKENS: u32 = 16;

/// The index, with endpoints in slots from 0.
pub struct Ours(Residency);

/// The answer of a lookup, kept between lookups.
#[derive(Default)]
pub struct Answer(Depths);

impl Answer {
    /// Blocks from the first that each slot holds.
    pub fn depths(&self) -> &[u32] {
        self.0.blocks()
    }

    /// For comparisons. The scratch may have more slots than there are endpoints; nobody holds
    /// anything there.
    pub fn copy_to(&self, depths: &mut [u32]) {
        let (held, beyond) = self.depths().split_at(depths.len().min(self.depths().len()));
        assert!(beyond.iter().all(|&depth| depth == 0));
        depths[..held.len()].copy_from_slice(held);
    }
}

fn endpoint(number: u32) -> EndpointId {
    EndpointId { slot: Slot(number), generation: 1 }
}

impl Ours {
    pub fn new(endpoints: u32) -> Self {
        let index = Residency::new(IndexConfig::default(), BLOCK_TOKENS).unwrap();
        (0..endpoints).for_each(|number| index.join(endpoint(number), "model", Source::Events));
        Self(index)
    }

    pub fn store(
        &self,
        number: u32,
        parent: Option<EngineHash>,
        names: &[EngineHash],
        keys: &[BlockKey],
    ) {
        self.0.store(endpoint(number), parent, names, keys);
    }

    pub fn remove(&self, number: u32, names: &[EngineHash]) {
        self.0.remove(endpoint(number), names);
    }

    pub fn lookup(&self, keys: &[BlockKey], answer: &mut Answer) {
        self.0.depths(keys, &mut answer.0);
    }

    pub fn memory_bytes(&self) -> usize {
        self.0.memory_bytes()
    }

    /// All that these endpoints hold, as a snapshot.
    pub fn saved(&self, endpoints: u32) -> Vec<u8> {
        let (mut writer, mut stream) = (Writer::new(BLOCK_TOKENS), Vec::new());
        for number in 0..endpoints {
            writer.endpoint(&number.to_le_bytes());
            let exported = self.0.export(endpoint(number), |record| writer.record(&record));
            let Exported::Whole { blocks } = exported else { panic!("{exported:?}") };
            writer.endpoint_end(blocks);
            stream.append(&mut writer.take());
        }
        writer.end();
        stream.append(&mut writer.take());
        stream
    }

    /// Holds what a snapshot says, which comes in pieces. Returns how many blocks, each counted for
    /// each endpoint.
    pub fn load(&self, stream: &[u8]) -> u64 {
        let (mut reader, mut pieces) = (Reader::new(), stream.chunks(256 << 10));
        let mut blocks = 0;
        loop {
            match reader.next().unwrap() {
                None => reader.push(pieces.next().unwrap()),
                Some(Item::Endpoint(name)) => {
                    let number = u32::from_le_bytes(name.try_into().unwrap());
                    let next = || -> Result<_, ImportError> {
                        loop {
                            match reader.next().unwrap() {
                                None => reader.push(pieces.next().unwrap()),
                                Some(Item::Record(record)) => return Ok(Some(record)),
                                Some(_) => return Ok(None),
                            }
                        }
                    };
                    blocks += self.0.import(Time::ZERO, endpoint(number), next).unwrap();
                }
                Some(Item::End) => return blocks,
                Some(_) => {}
            }
        }
    }
}

/// Keys of token ids, as the router computes them.
pub struct Hashing(Chain);

impl Hashing {
    pub fn new() -> Self {
        Self(Chain::new("model", None, BLOCK_TOKENS).unwrap())
    }

    pub fn keys(&self, tokens: &[u32], keys: &mut Vec<BlockKey>) {
        self.0.block_keys(tokens, Extras::default(), keys);
    }
}

/// Our keys of blocks that are given by their local hashes: the chain alone, from a root of its
/// own.
pub fn chain(locals: &[u64], keys: &mut Vec<BlockKey>) {
    const ROOT: u64 = 1;
    let mut parent = ROOT;
    keys.clear();
    keys.extend(locals.iter().map(|&local| {
        parent = link(parent, local);
        BlockKey(parent)
    }));
}

/// `prompt::mix::link`, which the brain keeps to itself.
fn link(parent: u64, child: u64) -> u64 {
    let product =
        u128::from(parent ^ 0x6A09_E667_F3BC_C908) * u128::from(child ^ 0xBB67_AE85_84CA_A73B);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    #[test]
    fn a_link_here_is_a_link_there() {
        let tokens: Vec<u32> = (0..BLOCK_TOKENS).collect();
        let theirs = Hashing::new().0.next(BlockKey(5), &tokens, None);
        assert_eq!(theirs.0, link(5, xxh3_64(bytemuck::cast_slice(&tokens))));
    }
}
