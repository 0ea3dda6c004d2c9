//! Token ids as Python has them: read in place where they are `uint32` already, converted with a
//! range check where they are not.

use crate::errors::PromptError;
use llmd_brain::prompt::MAX_PROMPT_TOKENS;
use numpy::{
    Element, PyArray1, PyArrayDescrMethods, PyArrayMethods, PyReadonlyArray1, PyUntypedArray,
    PyUntypedArrayMethods,
};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyList, PyMemoryView, PyString, PyTuple};

/// The tokens of one prompt.
pub enum Tokens<'py> {
    /// In the caller's array.
    InPlace(PyReadonlyArray1<'py, u32>),
    /// In the caller's bytes, which nobody can write.
    InBytes(Bound<'py, PyBytes>),
    /// Converted.
    Converted(Vec<u32>),
}

impl Tokens<'_> {
    /// The token ids.
    pub fn as_slice(&self) -> &[u32] {
        match self {
            // `InPlace` is made only of arrays that are one slice.
            Self::InPlace(array) => array.as_slice().unwrap_or_default(),
            // `InBytes` is made only of bytes that are whole, aligned words.
            Self::InBytes(bytes) => bytemuck::try_cast_slice(bytes.as_bytes()).unwrap_or_default(),
            Self::Converted(tokens) => tokens,
        }
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Tokens<'py> {
    type Error = PyErr;

    fn extract(tokens: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(array) = tokens.cast::<PyArray1<u32>>() {
            return in_place(&array);
        }
        if let Ok(array) = tokens.cast::<PyUntypedArray>() {
            return from_array(&array).map(Self::Converted);
        }
        if let Ok(list) = tokens.cast::<PyList>() {
            return from_items(list.len(), list.iter().map(Ok)).map(Self::Converted);
        }
        if let Ok(tuple) = tokens.cast::<PyTuple>() {
            return from_items(tuple.len(), tuple.iter().map(Ok)).map(Self::Converted);
        }
        if let Ok(bytes) = tokens.cast::<PyBytes>() {
            return in_bytes(&bytes);
        }
        if let Ok(bytes) = tokens.cast::<PyByteArray>() {
            return from_bytes(&bytes.to_vec()).map(Self::Converted);
        }
        from_other(&tokens)
    }
}

fn in_place<'py>(array: &Bound<'py, PyArray1<u32>>) -> PyResult<Tokens<'py>> {
    check_length(array.len())?;
    let view = readonly(array)?;
    if view.as_slice().is_ok() {
        return Ok(Tokens::InPlace(view));
    }
    // Strided or misaligned: numpy's own copy is one aligned slice.
    let copy = array.call_method0("copy")?;
    Ok(Tokens::InPlace(readonly(copy.cast::<PyArray1<u32>>()?)?))
}

fn from_array(array: &Bound<'_, PyUntypedArray>) -> PyResult<Vec<u32>> {
    let dtype = array.dtype();
    if array.ndim() != 1 {
        return Err(PromptError::new_err(format!(
            "tokens has {} dimensions (shape {:?}): pass one prompt as a one-dimensional array",
            array.ndim(),
            array.shape(),
        )));
    }
    check_length(array.len())?;
    match dtype.kind() {
        b'i' | b'u' => {}
        _ => {
            return Err(PromptError::new_err(format!(
                "tokens has dtype {dtype}: token ids are integers, convert them with \
                 .astype(numpy.uint32)"
            )));
        }
    }
    if let Ok(ids) = array.cast::<PyArray1<i64>>() {
        return narrow(ids, |id| id as u64, |id| id as u32);
    }
    if let Ok(ids) = array.cast::<PyArray1<i32>>() {
        // A negative id has its sign extended into the upper half.
        return narrow(ids, |id| i64::from(id) as u64, |id| id as u32);
    }
    if let Ok(ids) = array.cast::<PyArray1<u64>>() {
        return narrow(ids, |id| id, |id| id as u32);
    }
    // Small or byte-swapped: numpy converts, without loss.
    let wide = if dtype.kind() == b'u' { "uint64" } else { "int64" };
    let native = array.call_method1("astype", (wide,))?;
    from_array(native.cast::<PyUntypedArray>()?)
}

/// Copies ids to 32 bits. The range is checked over all of them at once, so that the loop
/// vectorises; which one was wrong is found in a second pass that only a mistake pays for.
fn narrow<T: Element + Copy + std::fmt::Display>(
    array: &Bound<'_, PyArray1<T>>,
    widen: impl Fn(T) -> u64,
    cut: impl Fn(T) -> u32,
) -> PyResult<Vec<u32>> {
    let view = readonly(array)?;
    let Ok(ids) = view.as_slice() else {
        let copy = array.call_method0("copy")?;
        return narrow(copy.cast::<PyArray1<T>>()?, widen, cut);
    };
    let upper_bits = ids.iter().fold(0, |bits, &id| bits | widen(id)) >> 32;
    if upper_bits != 0
        && let Some(position) = ids.iter().position(|&id| widen(id) >> 32 != 0)
    {
        return Err(out_of_range(position, &ids[position]));
    }
    Ok(ids.iter().map(|&id| cut(id)).collect())
}

/// Python aligns the content of `bytes` for anything, and block keys want a little-endian machine.
fn in_bytes<'py>(bytes: &Bound<'py, PyBytes>) -> PyResult<Tokens<'py>> {
    match bytemuck::try_cast_slice::<u8, u32>(bytes.as_bytes()) {
        Ok(tokens) if check_length(tokens.len()).is_ok() => Ok(Tokens::InBytes(bytes.clone())),
        _ => from_bytes(bytes.as_bytes()).map(Tokens::Converted),
    }
}

fn from_bytes(bytes: &[u8]) -> PyResult<Vec<u32>> {
    let (words, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(PromptError::new_err(format!(
            "tokens has {} bytes, not a multiple of 4: bytes are read as little-endian uint32; \
             pass a str as text=",
            bytes.len()
        )));
    }
    check_length(words.len())?;
    Ok(words.iter().map(|&word| u32::from_le_bytes(word)).collect())
}

fn from_items<'py>(
    length: usize,
    items: impl Iterator<Item = PyResult<Bound<'py, PyAny>>>,
) -> PyResult<Vec<u32>> {
    check_length(length)?;
    let mut tokens = Vec::with_capacity(length);
    for (position, item) in items.enumerate() {
        let item = item?;
        match item.extract::<u32>() {
            Ok(id) => tokens.push(id),
            Err(_) => return Err(not_a_token(position, &item)),
        }
    }
    Ok(tokens)
}

/// `array.array`, `memoryview`, tensors, and sequences of other kinds.
fn from_other<'py>(tokens: &Bound<'py, PyAny>) -> PyResult<Tokens<'py>> {
    let py = tokens.py();
    if tokens.is_instance_of::<PyString>() {
        return Err(PromptError::new_err("tokens is a str: pass it as text="));
    }
    let memory = PyMemoryView::from(tokens).ok();
    if let Some(memory) = &memory {
        let format: String = memory.getattr("format")?.extract()?;
        if matches!(format.as_str(), "B" | "b" | "c") {
            let bytes = memory.call_method0("tobytes")?;
            return in_bytes(bytes.cast::<PyBytes>()?);
        }
    }
    if memory.is_some() || tokens.hasattr("__array__")? {
        let array = py.import("numpy")?.call_method1("asarray", (tokens,))?;
        return match array.cast::<PyArray1<u32>>() {
            Ok(ids) => in_place(ids),
            Err(_) => from_array(array.cast::<PyUntypedArray>()?).map(Tokens::Converted),
        };
    }
    if let (Ok(length), Ok(items)) = (tokens.len(), tokens.try_iter())
        && tokens.hasattr("__getitem__")?
        && !tokens.hasattr("keys")?
    {
        return from_items(length, items).map(Tokens::Converted);
    }
    Err(PromptError::new_err(format!(
        "tokens is of type {}: pass a numpy array or a list of token ids",
        tokens.get_type().name()?
    )))
}

fn check_length(tokens: usize) -> PyResult<()> {
    if tokens == 0 {
        return Err(crate::errors::prompt(&llmd_brain::prompt::PromptError::Empty));
    }
    if tokens > MAX_PROMPT_TOKENS {
        return Err(crate::errors::prompt(&llmd_brain::prompt::PromptError::TooLong(tokens)));
    }
    Ok(())
}

fn readonly<'py, T: Element>(
    array: &Bound<'py, PyArray1<T>>,
) -> PyResult<PyReadonlyArray1<'py, T>> {
    array.try_readonly().map_err(|error| {
        PromptError::new_err(format!("tokens is being written by native code: {error}"))
    })
}

fn out_of_range(position: usize, value: &dyn std::fmt::Display) -> PyErr {
    PromptError::new_err(format!(
        "token id {value} at position {position} is out of range: ids are 0 to 4294967295"
    ))
}

/// Says what is wrong with one item of a sequence.
fn not_a_token(position: usize, item: &Bound<'_, PyAny>) -> PyErr {
    let kind = item.get_type();
    let kind = kind.name().map_or_else(|_| "object".to_owned(), |name| name.to_string());
    if item.call_method0("__index__").is_ok() {
        return out_of_range(position, item);
    }
    let remedy = match kind.as_str() {
        "list" | "tuple" | "ndarray" => "pass one prompt at a time, or use route_many",
        "str" => "pass a prompt without tokens as text=",
        _ => "token ids are integers",
    };
    let shown: String = item.to_string().chars().take(40).collect();
    PromptError::new_err(format!("token at position {position} is {shown} ({kind}): {remedy}"))
}
