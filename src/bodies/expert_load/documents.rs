//! SGLang's documents: `{"logical_count": ...}` is a load, `{"physical_to_logical_map": ...}` a map, as
//! `--init-expert-location` takes them.

use super::{Array, LoadFileError, bytes_of};
use llmd_brain::moe::{EMPTY, LayerMap};
use serde::{Deserialize, Serialize};
use std::path::Path;

#[derive(Deserialize)]
#[serde(untagged)]
enum LoadDocument {
    Dump { logical_count: Counts },
    Bare(Counts),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Counts {
    Once(Vec<Vec<f64>>),
    Often(Vec<Vec<Vec<f64>>>),
}

#[derive(Serialize, Deserialize)]
struct MapDocument {
    physical_to_logical_map: Vec<Vec<i64>>,
}

pub(super) fn parse_load(bytes: &[u8]) -> Result<Array, String> {
    let document: LoadDocument = serde_json::from_slice(bytes).map_err(|_| {
        "it is neither numpy's .npy nor JSON with a logical_count of layers x experts".to_owned()
    })?;
    let (LoadDocument::Dump { logical_count: counts } | LoadDocument::Bare(counts)) = document;
    let times = match counts {
        Counts::Once(layers) => vec![layers],
        Counts::Often(times) => times,
    };
    let layers = times.first().map_or(0, Vec::len);
    let experts = times.first().and_then(|it| it.first()).map_or(0, Vec::len);
    let is_even = |time: &Vec<Vec<f64>>| {
        time.len() == layers && time.iter().all(|layer| layer.len() == experts)
    };
    if !times.iter().all(is_even) {
        return Err("its layers are not of one length".to_owned());
    }
    let shape = vec![times.len(), layers, experts];
    Ok(Array { shape, values: times.into_iter().flatten().flatten().collect() })
}

/// Reads a map: logical experts of `layers x slots`, -1 where nothing is.
///
/// # Errors
/// Where the file is no such document.
pub fn read_map(path: &Path) -> Result<Vec<Vec<u32>>, LoadFileError> {
    let format = |why: String| LoadFileError::Format { path: path.to_owned(), why };
    let document: MapDocument = serde_json::from_slice(&bytes_of(path)?)
        .map_err(|error| format(format!("it has no physical_to_logical_map: {error}")))?;
    let id = |id: i64| match id {
        -1 => Ok(EMPTY),
        id => u32::try_from(id).map_err(|_| format(format!("{id} is no logical expert"))),
    };
    let layers = document.physical_to_logical_map.into_iter();
    layers.map(|layer| layer.into_iter().map(id).collect()).collect()
}

/// Writes a map for `--init-expert-location`.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_map(path: &Path, maps: &[LayerMap]) -> Result<(), LoadFileError> {
    let id = |expert: &u32| if *expert == EMPTY { -1 } else { i64::from(*expert) };
    let physical_to_logical_map =
        maps.iter().map(|map| map.experts.iter().map(id).collect()).collect();
    let io = |source| LoadFileError::Io { path: path.to_owned(), source };
    let text = serde_json::to_vec(&MapDocument { physical_to_logical_map })
        .map_err(|error| io(error.into()))?;
    std::fs::write(path, text).map_err(io)
}
