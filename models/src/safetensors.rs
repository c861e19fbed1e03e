//! Safetensors: one file, or shards that `model.safetensors.index.json` lists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use ::safetensors::tensor::{Dtype as FileDtype, Metadata, SafeTensorError, TensorInfo};
use serde_json::{Map, Value};

use crate::config::read_json;
use crate::mapped::Mapped;
use crate::tensors::{Dtype, Entry, Tensors};
use crate::{Error, Format};

/// The largest header that is read: the format's own limit.
const HEADER_LIMIT: usize = 100_000_000;

/// The largest index that is read: 64 MiB, some 500,000 tensors.
const INDEX_LIMIT: u64 = 64 << 20;

/// Every tensor of a folder.
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] for a header, an index or a shard that breaks the format;
/// [`Error::Unsupported`] for a folder with weights in another container.
pub(crate) fn read_folder(folder: &Path) -> Result<Tensors, Error> {
    let single = folder.join("model.safetensors");
    let index = folder.join("model.safetensors.index.json");
    let mut tensors = Tensors::default();
    if single.exists() {
        add_file(&mut tensors, Mapped::open(&single)?, |_| true)?;
    } else if index.exists() {
        add_shards(&mut tensors, folder, &index)?;
    } else {
        let met = if folder.join("pytorch_model.bin").exists() || folder.join("pytorch_model.bin.index.json").exists() {
            "pytorch_model.bin (a pickle, which can run code)"
        } else {
            "neither model.safetensors nor model.safetensors.index.json"
        };
        return Err(Error::unsupported(
            folder,
            "the folder's weights",
            met,
            "model.safetensors, model.safetensors.index.json, or a .gguf file named on its own",
        ));
    }
    Ok(tensors)
}

/// The tensors of one file that is there already.
///
/// # Errors
/// As [`read_folder`].
pub(crate) fn read_mapped(file: Mapped) -> Result<Tensors, Error> {
    let mut tensors = Tensors::default();
    add_file(&mut tensors, file, |_| true)?;
    Ok(tensors)
}

fn add_shards(tensors: &mut Tensors, folder: &Path, index: &Path) -> Result<(), Error> {
    let weight_map = read_weight_map(index)?;
    let shards: BTreeSet<&String> = weight_map.values().collect();
    for shard in shards {
        let field = || format!("weight_map: {shard:?}");
        let mut components = Path::new(shard).components();
        let plain = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
        if !plain || shard.contains(['/', '\\', ':', '\0']) {
            return Err(Error::malformed(index, field(), "a path", "the name of a file in the folder"));
        }
        let path = folder.join(shard);
        if !path.is_file() {
            return Err(Error::malformed(
                index,
                field(),
                "missing",
                "a file in the folder; fetch the checkpoint again",
            ));
        }
        // A tensor that the index puts elsewhere is another shard's.
        add_file(tensors, Mapped::open(&path)?, |name| weight_map.get(name).is_none_or(|at| at == shard))?;
    }
    match weight_map.iter().find(|(name, _)| !tensors.entries.contains_key(*name)) {
        Some((name, shard)) => Err(Error::malformed(
            index,
            format_args!("weight_map: {name}"),
            format_args!("put in {shard}, which does not hold it"),
            "the shard that holds the tensor",
        )),
        None => Ok(()),
    }
}

fn read_weight_map(index: &Path) -> Result<BTreeMap<String, String>, Error> {
    let object = read_json(index, INDEX_LIMIT)?;
    let wanted = "an object from tensor names to file names";
    let Some(Value::Object(map)) = object.get("weight_map") else {
        return Err(Error::malformed(index, "weight_map", "absent or no object", wanted));
    };
    map.iter()
        .map(|(name, file)| match file {
            Value::String(file) => Ok((name.clone(), file.clone())),
            other => Err(Error::malformed(index, format_args!("weight_map: {name}"), other, wanted)),
        })
        .collect()
}

fn add_file(tensors: &mut Tensors, file: Mapped, wanted: impl Fn(&str) -> bool) -> Result<(), Error> {
    let (data_start, infos) = read_header(&file)?;
    for (name, info) in infos {
        if !wanted(&name) {
            continue;
        }
        let dtype = match info.dtype {
            FileDtype::F32 => Dtype::Known(Format::F32),
            FileDtype::F16 => Dtype::Known(Format::F16),
            FileDtype::BF16 => Dtype::Known(Format::Bf16),
            other => Dtype::Other(format!("{other:?}")),
        };
        let (start, end) = info.data_offsets;
        let range = data_start + start..data_start + end;
        let entry = Entry { file: tensors.files.len(), range, dtype, shape: info.shape };
        if tensors.entries.insert(name.clone(), entry).is_some() {
            return Err(Error::malformed(
                file.path(),
                format_args!("tensor {name}"),
                "in two files",
                "one of each name",
            ));
        }
    }
    tensors.files.push(file);
    Ok(())
}

/// Where the data begin, and the tensors: their ranges follow one another, fill the file to its end, and are as long as
/// dtype and shape ask.
///
/// (`SafeTensors::read_metadata` of version 0.8 adds the last offset to the header's length unchecked, so a header can
/// make it wrap; its rules for tensors among themselves are sound and used here.)
fn read_header(file: &Mapped) -> Result<(usize, Vec<(String, TensorInfo)>), Error> {
    let bytes = file.bytes();
    let whole = "a safetensors file that is whole; fetch it again";
    let malformed = |field: &str, met: String, wanted: &str| Error::malformed(file.path(), field, met, wanted);
    let Some(length) = bytes.first_chunk().map(|chunk| u64::from_le_bytes(*chunk)) else {
        return Err(malformed("the header's length", format!("cut off after {} bytes", bytes.len()), whole));
    };
    let header = usize::try_from(length).ok().filter(|length| *length <= HEADER_LIMIT);
    let Some(header) = header.and_then(|length| bytes[8..].get(..length)) else {
        let met = format!("{length} bytes in a file of {} bytes", bytes.len());
        return Err(malformed(
            "the header's length",
            met,
            &format!("at most {HEADER_LIMIT}, and a whole file; fetch it again"),
        ));
    };
    let json: Map<String, Value> = serde_json::from_slice(header)
        .map_err(|error| malformed("the header", format!("no JSON object ({error})"), whole))?;
    let mut infos: Vec<(String, TensorInfo)> = json
        .into_iter()
        .filter(|(name, _)| name != "__metadata__")
        .map(|(name, info)| match serde_json::from_value(info) {
            Ok(info) => Ok((name, info)),
            Err(error) => {
                let met = format!("not what it should be ({error})");
                Err(malformed(&format!("tensor {name}"), met, "an object of dtype, shape and data_offsets"))
            }
        })
        .collect::<Result<_, Error>>()?;
    infos.sort_by_key(|(_, info)| info.data_offsets);
    let data = Metadata::new(None, infos.clone()).map_err(|error| refuse(file, &infos, error))?.data_len();
    if data != bytes.len() - 8 - header.len() {
        let met = format!("{} bytes long, where the tensors take {data}", bytes.len() - 8 - header.len());
        return Err(malformed("the data", met, whole));
    }
    Ok((8 + header.len(), infos))
}

/// The crate's refusal with file and tensor named.
fn refuse(file: &Mapped, infos: &[(String, TensorInfo)], error: SafeTensorError) -> Error {
    if let SafeTensorError::InvalidOffset(name) = error {
        let met = "out of order, overlapping or after a gap";
        let field = format_args!("tensor {name}: data_offsets");
        return Error::malformed(file.path(), field, met, "ranges that follow one another from 0");
    }
    let fills = |info: &TensorInfo| {
        let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |bits, dim| bits.checked_mul(*dim));
        bits.is_some() && bits == (info.data_offsets.1 - info.data_offsets.0).checked_mul(8)
    };
    match infos.iter().find(|(_, info)| info.data_offsets.1 >= info.data_offsets.0 && !fills(info)) {
        Some((name, info)) => Error::malformed(
            file.path(),
            format_args!("tensor {name}: shape"),
            format_args!("{:?} of {:?} at data_offsets {:?}", info.shape, info.dtype, info.data_offsets),
            "a shape that fills its data_offsets exactly",
        ),
        None => Error::malformed(file.path(), "the header", error, "a safetensors file that is whole; fetch it again"),
    }
}
