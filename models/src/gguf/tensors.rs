//! The table of tensors of a GGUF file: names, shapes, formats and places, none outside the file and none over another.

use std::collections::BTreeMap;

use super::cursor::Cursor;
use crate::tensors::{Dtype, Entry};
use crate::{Error, Format};

const SUPPORTED: &str = "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K";

/// One row of the table: the offset counts from where the data begin.
struct Row<'a> {
    name: &'a str,
    shape: Vec<usize>,
    format: Format,
    bytes: usize,
    offset: u64,
}

/// Reads `count` rows; the data begin at the next multiple of `alignment` after them.
///
/// # Errors
/// [`Error::Malformed`] for anything that breaks the format; [`Error::Unsupported`] for another format.
pub(super) fn read(cursor: &mut Cursor<'_>, count: u64, alignment: usize) -> Result<BTreeMap<String, Entry>, Error> {
    let mut rows = (0..count).map(|index| read_row(cursor, index, count)).collect::<Result<Vec<_>, _>>()?;
    let data_start = cursor.position().checked_next_multiple_of(alignment);
    let data_start = data_start.unwrap_or(usize::MAX).min(cursor.file_bytes());
    let data_bytes = cursor.file_bytes() - data_start;
    rows.sort_by_key(|row| row.offset);
    let mut entries = BTreeMap::new();
    let mut free: (usize, &str) = (0, "the table");
    for row in &rows {
        let field = format!("tensor {}: the offset", row.name);
        let inside = usize::try_from(row.offset).ok().and_then(|start| Some((start, start.checked_add(row.bytes)?)));
        let Some((start, end)) = inside.filter(|(_, end)| *end <= data_bytes) else {
            let met =
                format_args!("{} for {} bytes, past the end of {data_bytes} bytes of data", row.offset, row.bytes);
            return Err(cursor.malformed(&field, met, "inside the file; it may be cut off, so fetch it again"));
        };
        if !start.is_multiple_of(alignment) {
            return Err(cursor.malformed(&field, start, format_args!("a multiple of general.alignment, {alignment}")));
        }
        if start < free.0 {
            let met = format_args!("{start}, inside tensor {}", free.1);
            return Err(cursor.malformed(&field, met, format_args!("at least {}", free.0)));
        }
        free = (end, row.name);
        let entry = Entry {
            file: 0,
            range: data_start + start..data_start + end,
            dtype: Dtype::Known(row.format),
            shape: row.shape.clone(),
        };
        if entries.insert(row.name.to_owned(), entry).is_some() {
            return Err(cursor.malformed(&format_args!("tensor {}", row.name), "there twice", "one of each name"));
        }
    }
    Ok(entries)
}

fn read_row<'a>(cursor: &mut Cursor<'a>, index: u64, count: u64) -> Result<Row<'a>, Error> {
    let name = cursor.text(&format_args!("tensor {index} of {count}: the name"))?;
    let field = format!("tensor {name}: the shape");
    let dimensions = cursor.u32(&field)?;
    if !(1..=4).contains(&dimensions) {
        return Err(cursor.malformed(&field, format_args!("of {dimensions} dimensions"), "of 1 to 4 dimensions"));
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        let size = cursor.u64(&field)?;
        match usize::try_from(size) {
            Ok(size) if size > 0 => shape.insert(0, size), // the file has columns first
            _ => return Err(cursor.malformed(&field, size, "at least 1")),
        }
    }
    let format = read_format(cursor, name)?;
    let offset = cursor.u64(&format_args!("tensor {name}: the offset"))?;
    let cols = shape[shape.len() - 1];
    let row_bytes = format.row_bytes(cols);
    let bytes =
        row_bytes.and_then(|bytes| shape[..shape.len() - 1].iter().try_fold(bytes, |all, dim| all.checked_mul(*dim)));
    let Some(bytes) = bytes else {
        let wanted =
            format_args!("rows of whole {format} blocks of {}, and no more than a file can hold", format.block().0);
        return Err(cursor.malformed(&field, format_args!("{shape:?}"), wanted));
    };
    Ok(Row { name, shape, format, bytes, offset })
}

fn read_format(cursor: &mut Cursor<'_>, name: &str) -> Result<Format, Error> {
    let field = format!("tensor {name}: the format");
    let kind = cursor.u32(&field)?;
    let other = match kind {
        0 => return Ok(Format::F32),
        1 => return Ok(Format::F16),
        2 => return Ok(Format::Q4_0),
        3 => return Ok(Format::Q4_1),
        6 => return Ok(Format::Q5_0),
        7 => return Ok(Format::Q5_1),
        8 => return Ok(Format::Q8_0),
        12 => return Ok(Format::Q4K),
        13 => return Ok(Format::Q5K),
        14 => return Ok(Format::Q6K),
        30 => return Ok(Format::Bf16),
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => "unknown",
    };
    Err(Error::unsupported(cursor.path(), field, format_args!("{other} (type {kind})"), SUPPORTED))
}
