//! `KvStore`: the store of KV blocks, by addresses. `llmd_sched.kv.Store` makes them from arrays.

use crate::errors::{ConfigError, os};
use llmd_data::kv::eviction::Algorithm;
use llmd_data::kv::foreign::ForeignBlocks;
use llmd_data::kv::{BlockKey, Chain, KeySpace, Store, StoreConfig, StoreError};
use llmd_data::memory::SegmentError;
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use std::path::PathBuf;

#[doc = stub_doc!("KvStore")]
#[pyclass(module = "llmd_sched", frozen)]
pub struct KvStore {
    store: Store,
    space: KeySpace,
}

/// A store's file: a name, not a path.
fn place(name: &str) -> PyResult<PathBuf> {
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        return Err(ConfigError::new_err(format!(
            "name is {name:?}: use a plain file name, without a slash"
        )));
    }
    Ok(PathBuf::from("/dev/shm").join(format!("llmd-kv-{name}")))
}

fn refused(error: StoreError) -> PyErr {
    let message = error.to_string();
    match error {
        StoreError::Io { source, .. } | StoreError::Segment(SegmentError::Io { source, .. }) => {
            os(&source, message)
        }
        _ => ConfigError::new_err(message),
    }
}

impl KvStore {
    fn keys(&self, hashes: &[Bound<'_, PyBytes>]) -> Vec<BlockKey> {
        hashes.iter().map(|hash| self.space.key(hash.as_bytes())).collect()
    }

    fn words<'a>(name: &str, array: &'a PyReadonlyArray1<'_, u64>) -> PyResult<&'a [u64]> {
        array.as_slice().map_err(|_| {
            ConfigError::new_err(format!("{name} is strided: pass a contiguous array"))
        })
    }
}

#[pymethods]
impl KvStore {
    #[new]
    #[pyo3(signature = (name, *, block_bytes, host_bytes, disk_bytes=0, disk_folder=None, eviction="density", fingerprint=None, salt=None))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords")]
    fn new(
        py: Python<'_>,
        name: &str,
        block_bytes: u64,
        host_bytes: u64,
        disk_bytes: u64,
        disk_folder: Option<PathBuf>,
        eviction: &str,
        fingerprint: Option<&[u8]>,
        salt: Option<&[u8]>,
    ) -> PyResult<Self> {
        let Some(eviction) = Algorithm::named(eviction) else {
            let names = Algorithm::ALL.map(Algorithm::name).join(", ");
            return Err(ConfigError::new_err(format!("eviction is {eviction:?}: use {names}")));
        };
        if disk_bytes > 0 && disk_folder.is_none() {
            return Err(ConfigError::new_err(format!(
                "disk_bytes is {disk_bytes}, without a disk_folder: name one, or leave both out"
            )));
        }
        let config = StoreConfig { block_bytes, host_bytes, disk_bytes, disk_folder, eviction };
        let path = place(name)?;
        let store = py.detach(|| Store::open(&path, &config)).map_err(refused)?;
        let space = KeySpace::new(fingerprint.unwrap_or_default(), salt.unwrap_or_default());
        Ok(Self { store, space })
    }

    #[doc = stub_doc!("KvStore.matched")]
    fn matched(&self, hashes: Vec<Bound<'_, PyBytes>>) -> usize {
        self.store.matched(&self.keys(&hashes))
    }

    #[doc = stub_doc!("KvStore.get")]
    #[pyo3(signature = (hashes, addresses, piece_bytes, *, parent=None, position=0))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        hashes: Vec<Bound<'py, PyBytes>>,
        addresses: PyReadonlyArray1<'py, u64>,
        piece_bytes: PyReadonlyArray1<'py, u64>,
        parent: Option<&[u8]>,
        position: u32,
    ) -> PyResult<Bound<'py, PyArray1<bool>>> {
        let (keys, parent) = (self.keys(&hashes), parent.map(|hash| self.space.key(hash)));
        let blocks = ForeignBlocks {
            addresses: Self::words("addresses", &addresses)?,
            piece_bytes: Self::words("piece_bytes", &piece_bytes)?,
        };
        let chain = Chain { keys: &keys, parent, position };
        let there = py.detach(|| self.store.get_foreign(chain, blocks)).map_err(refused)?;
        Ok(PyArray1::from_vec(py, there))
    }

    #[doc = stub_doc!("KvStore.put")]
    #[pyo3(signature = (hashes, addresses, piece_bytes, *, parent=None, position=0))]
    fn put(
        &self,
        py: Python<'_>,
        hashes: Vec<Bound<'_, PyBytes>>,
        addresses: PyReadonlyArray1<'_, u64>,
        piece_bytes: PyReadonlyArray1<'_, u64>,
        parent: Option<&[u8]>,
        position: u32,
    ) -> PyResult<usize> {
        let (keys, parent) = (self.keys(&hashes), parent.map(|hash| self.space.key(hash)));
        let blocks = ForeignBlocks {
            addresses: Self::words("addresses", &addresses)?,
            piece_bytes: Self::words("piece_bytes", &piece_bytes)?,
        };
        let chain = Chain { keys: &keys, parent, position };
        py.detach(|| self.store.put_foreign(chain, blocks)).map_err(refused)
    }

    #[doc = stub_doc!("KvStore.pin")]
    fn pin(&self, hashes: Vec<Bound<'_, PyBytes>>, lease_s: f64) -> (u64, usize) {
        self.store.pin(&self.keys(&hashes), (lease_s.max(0.0) * 1e3) as u64)
    }

    #[doc = stub_doc!("KvStore.unpin")]
    fn unpin(&self, hashes: Vec<Bound<'_, PyBytes>>, lease: u64) {
        self.store.host().books().unpin(&self.keys(&hashes), lease);
    }

    #[doc = stub_doc!("KvStore.counts")]
    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = self.store.counts();
        let all = PyDict::new(py);
        for (tier, counts) in [("host", Some(counts.host)), ("disk", counts.disk)] {
            let Some(counts) = counts else { continue };
            let named = PyDict::new(py);
            for (name, value) in counts.named() {
                named.set_item(name, value)?;
            }
            all.set_item(tier, named)?;
        }
        Ok(all)
    }

    #[doc = stub_doc!("KvStore.unlink")]
    #[staticmethod]
    fn unlink(name: &str) -> PyResult<()> {
        Store::unlink(&place(name)?).map_err(refused)
    }
}
