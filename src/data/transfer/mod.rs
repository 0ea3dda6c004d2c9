//! Moving blocks of memory between processes and machines: one contract, several paths.
//!
//! An [`Agent`] is a process's end. It registers memory ([`Agent::register`]) and serves it to
//! peers that know its key; connected to a peer ([`Agent::connect`]), it reads and writes the
//! memory that the peer registered. A transfer is prepared from descriptors, posted whole or in
//! parts, and polled; its completion says how many bytes went and by which path.
//!
//! What every path guarantees:
//! - A block is named with its epoch, at both ends. An owner that gives a block other content
//!   advances the epoch first ([`Region::advance`]); a transfer that names an old one fails. A
//!   transfer that reports success moved the bytes of the epochs that it names.
//! - Every transfer ends: done, failed, or cancelled. A silent peer is given up after
//!   `stall_timeout`. After the end nothing touches the local memory.
//! - The path is chosen by what both ends have, in the order of [`PathKind`], and reported. Who
//!   requires one is refused where it cannot be had, with the reason.
//! - Registered bytes go back to zero when regions are dropped, whatever happened to transfers.
//!
//! ```
//! use llmd_data::transfer::{
//!     Agent, AgentConfig, Descriptor, Layout, Op, PathKind, Progress, Segment, TransferError,
//! };
//!
//! # fn main() -> Result<(), TransferError> {
//! let layout = Layout { block_bytes: 4096, blocks: 16 };
//! let owner = Agent::new(AgentConfig::default())?;
//! let theirs = owner.register(Segment::new(16 * 4096)?, layout)?;
//!
//! let agent = Agent::new(AgentConfig::default())?;
//! let ours = agent.register(Segment::new(16 * 4096)?, layout)?;
//! let peer = agent.connect(owner.address())?;
//! let block = Descriptor {
//!     local_offset: 0,
//!     remote_offset: 3 * 4096,
//!     bytes: 4096,
//!     local_epoch: 1,
//!     remote_epoch: 1,
//! };
//! let read = peer.prepare(Op::Read, &ours, &theirs.remote(), &[&[block]], None)?;
//! let Progress::Done(done) = read.post()?.wait(None)? else { unreachable!() };
//! assert_eq!((done.bytes, done.path), (4096, PathKind::Shm));
//!
//! // The owner gives the block other content: who names the old epoch learns that.
//! theirs.advance(3)?;
//! let stale = read.post().and_then(|transfer| transfer.wait(None)).unwrap_err();
//! assert!(matches!(stale, TransferError::Stale { slot: 3, expected: 1, .. }));
//! # Ok(())
//! # }
//! ```
//!
//! It does not decide which blocks move, and it does not say where content is.

pub mod agent;
pub mod cuda_ipc;
pub mod descriptor;
pub mod epochs;
pub mod error;
mod handle;
pub mod memory;
mod owner;
pub mod path;
pub mod peer;
pub mod rdma;
pub mod region;
mod registry;
pub mod shm;
pub mod tcp;
pub mod wire;
pub mod work;

pub use agent::{Agent, AgentConfig, Notification};
pub use descriptor::{Descriptor, Op};
pub use error::{End, TransferError};
pub use handle::{Completion, Prepared, Progress, Transfer};
pub use memory::{Memory, Place};
pub use path::{Path, PathKind};
pub use peer::Peer;
pub use region::{Layout, Region, RemoteRegion};
pub use shm::Segment;
