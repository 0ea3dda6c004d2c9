//! Segments of memory that processes share: a file in `/dev/shm`, mapped.
//!
//! A segment outlives its processes, so that what it holds survives their restart; it goes with
//! [`Segment::unlink`] or the machine. All of its pages are reserved when it is made: a write to a
//! page that the file system has no room for would end the process (SIGBUS). For the same reason
//! nobody may truncate a segment's file; that is the one thing that this cannot guard against.

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Why there is no segment.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// The file system has not as much room.
    #[error(
        "no room for {bytes} bytes of shared memory in {path}: ask for less, or enlarge the file \
         system (containers: --shm-size)"
    )]
    NoRoom {
        /// Where.
        path: PathBuf,
        /// How much was asked for.
        bytes: usize,
    },
    /// A segment of another size.
    #[error("{path} has {theirs} bytes, not {ours}: open it with its own settings, or remove it")]
    Size {
        /// The segment's file.
        path: PathBuf,
        /// Its size.
        theirs: u64,
        /// The size that was expected.
        ours: usize,
    },
}

/// A file's bytes, mapped to be shared.
#[derive(Debug)]
pub struct Segment {
    map: MmapRaw,
    file: File,
    path: PathBuf,
}

impl Segment {
    /// Opens the file of a segment, which is empty if it is new. Only its owner may read it.
    ///
    /// # Errors
    /// The operating system's.
    pub fn file(path: &Path) -> Result<File, SegmentError> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|source| SegmentError::Io { action: "open", path: path.into(), source })
    }

    /// The path by which whoever has `fd` opens its file anew. A description of its own matters:
    /// locks belong to it ([`super::ByteLocks`]).
    #[must_use]
    pub fn path_of(fd: &OwnedFd) -> PathBuf {
        use std::os::fd::AsRawFd;
        PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
    }

    /// Makes `file` `bytes` long and all zeros, with room for each page.
    ///
    /// # Errors
    /// [`SegmentError::NoRoom`], or the operating system's.
    pub fn clear(file: &File, path: &Path, bytes: usize) -> Result<(), SegmentError> {
        let failed = |action| move |source| SegmentError::Io { action, path: path.into(), source };
        file.set_len(0).map_err(failed("empty"))?;
        file.set_len(bytes as u64).map_err(failed("extend"))?;
        match fallocate(file, FallocateFlags::empty(), 0, bytes as u64).map_err(io::Error::from) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                let _ = file.set_len(0);
                Err(SegmentError::NoRoom { path: path.into(), bytes })
            }
            Err(error) => Err(failed("reserve pages of")(error)),
        }
    }

    /// Maps `file`, which is `bytes` long.
    ///
    /// # Errors
    /// [`SegmentError::Size`] if it is not, or the operating system's.
    pub fn map(file: File, path: &Path, bytes: usize) -> Result<Self, SegmentError> {
        let failed = |action| move |source| SegmentError::Io { action, path: path.into(), source };
        let theirs = file.metadata().map_err(failed("measure"))?.len();
        if theirs != bytes as u64 {
            return Err(SegmentError::Size { path: path.into(), theirs, ours: bytes });
        }
        let map = MmapOptions::new().len(bytes).map_raw(&file).map_err(failed("map"))?;
        // Huge pages where the system's settings allow them: shmem_enabled in
        // /sys/kernel/mm/transparent_hugepage.
        let _ = map.advise(Advice::HugePage);
        Ok(Self { map, file, path: path.into() })
    }

    /// Its first byte. The memory stays mapped as long as the segment lives; other processes may
    /// change it at any time.
    #[must_use]
    pub fn start(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// How many bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.map.len()
    }

    /// Its file.
    #[must_use]
    pub const fn as_file(&self) -> &File {
        &self.file
    }

    /// Where its file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes its name. Processes that are attached keep the memory; the next opens a new one.
    ///
    /// # Errors
    /// The operating system's.
    pub fn unlink(path: &Path) -> Result<(), SegmentError> {
        match std::fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(SegmentError::Io { action: "remove", path: path.into(), source })
            }
            _ => Ok(()),
        }
    }
}
