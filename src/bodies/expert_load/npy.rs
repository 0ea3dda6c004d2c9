//! numpy's file format (NEP 1), as far as loads go: little-endian numbers in C order. The crates that
//! read all of it bring a grammar of Python's literals along.

use super::Array;

pub(super) const MAGIC: &[u8] = b"\x93NUMPY";

/// Largest header that is read.
const MAX_HEADER_BYTES: usize = 65_536;

pub(super) fn parse(bytes: &[u8]) -> Result<Array, String> {
    let cut = || "it ends within its header".to_owned();
    let version = *bytes.get(6).ok_or_else(cut)?;
    let (length, start) = match version {
        1 => {
            let field = bytes.get(8..10).ok_or_else(cut)?;
            (usize::from(u16::from_le_bytes([field[0], field[1]])), 10)
        }
        _ => {
            let field = bytes.get(8..12).ok_or_else(cut)?;
            (u32::from_le_bytes([field[0], field[1], field[2], field[3]]) as usize, 12)
        }
    };
    if length > MAX_HEADER_BYTES {
        return Err(format!("its header has {length} bytes: at most {MAX_HEADER_BYTES} are read"));
    }
    let header = bytes.get(start..start + length).ok_or_else(cut)?;
    let header = std::str::from_utf8(header).map_err(|_| "its header is no text".to_owned())?;
    if field(header, "fortran_order")?.starts_with("True") {
        return Err("it is in Fortran order: save numpy.ascontiguousarray of it".to_owned());
    }
    let dtype = field(header, "descr")?.trim_start_matches(['\'', '"']);
    let dtype = dtype.split(['\'', '"']).next().unwrap_or_default();
    let shape = field(header, "shape")?;
    let shape = shape.trim_start_matches('(').split(')').next().unwrap_or_default();
    let shape = shape.split(',').map(str::trim).filter(|it| !it.is_empty());
    let shape: Vec<usize> = shape
        .map(|it| it.parse().map_err(|_| format!("its shape has {it:?} in it")))
        .collect::<Result<_, _>>()?;
    let body = &bytes[start + length..];
    let values = match dtype {
        "<f8" => numbers(body, f64::from_le_bytes),
        "<f4" => numbers(body, |it| f64::from(f32::from_le_bytes(it))),
        "<i8" => numbers(body, |it| i64::from_le_bytes(it) as f64),
        "<u8" => numbers(body, |it| u64::from_le_bytes(it) as f64),
        "<i4" => numbers(body, |it| f64::from(i32::from_le_bytes(it))),
        "<u4" => numbers(body, |it| f64::from(u32::from_le_bytes(it))),
        _ => {
            return Err(format!(
                "it is of dtype {dtype}: save integers or floats of 32 or 64 bits"
            ));
        }
    };
    Ok(Array { shape, values })
}

fn numbers<const N: usize>(bytes: &[u8], of: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    let (whole, _) = bytes.as_chunks::<N>();
    whole.iter().map(|it| of(*it)).collect()
}

/// What follows `'name':`.
fn field<'a>(header: &'a str, name: &str) -> Result<&'a str, String> {
    let quoted = format!("'{name}':");
    let at = header.find(&quoted).ok_or_else(|| format!("its header has no {name}"))?;
    Ok(header[at + quoted.len()..].trim_start())
}
