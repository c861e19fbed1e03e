//! Safetensors files of bounded size that are written in any order: where every tensor lies is known before the first byte.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Error;

/// A tensor to be.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) name: String,
    /// As safetensors spells it.
    pub(super) dtype: &'static str,
    pub(super) shape: Vec<usize>,
}

impl Planned {
    fn element_bytes(&self) -> u64 {
        match self.dtype {
            "I64" => 8,
            "I32" | "F32" => 4,
            _ => 2,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.shape.iter().map(|dim| *dim as u64).product::<u64>() * self.element_bytes()
    }
}

/// The files, and where in them each tensor begins.
#[derive(Debug)]
pub(super) struct Shards {
    files: Vec<(PathBuf, File)>,
    /// By name: the file, and the first byte in it.
    places: BTreeMap<String, (usize, u64)>,
    /// Bytes of all files.
    pub(super) total: u64,
}

impl Shards {
    /// Makes the files in `folder` and writes their headers. Tensors of one item stay in one file; a file has at most `most_bytes`
    /// unless an item alone has more.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn create(folder: &Path, items: &[Vec<Planned>], most_bytes: u64) -> Result<Shards, Error> {
        let mut contents: Vec<(Vec<&Planned>, u64)> = vec![(Vec::new(), 0)];
        for item in items {
            let bytes: u64 = item.iter().map(Planned::bytes).sum();
            let (last, filled) = contents.last_mut().expect("there is a first");
            if *filled > 0 && *filled + bytes > most_bytes {
                contents.push((item.iter().collect(), bytes));
            } else {
                last.extend(item);
                *filled += bytes;
            }
        }
        let count = contents.len();
        let mut shards = Shards { files: Vec::new(), places: BTreeMap::new(), total: 0 };
        let mut weight_map = BTreeMap::new();
        for (index, (mut tensors, bytes)) in contents.into_iter().enumerate() {
            let name = match count {
                1 => "model.safetensors".to_owned(),
                _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
            };
            // Longer numbers first, so that every tensor begins at a multiple of its own.
            tensors.sort_by_key(|tensor| std::cmp::Reverse(tensor.element_bytes()));
            let mut start = 0;
            let mut header = serde_json::Map::new();
            header.insert("__metadata__".into(), json!({ "format": "pt" }));
            for tensor in &tensors {
                let end = start + tensor.bytes();
                let info = json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end] });
                header.insert(tensor.name.clone(), info);
                weight_map.insert(tensor.name.clone(), Value::from(name.clone()));
                start = end;
            }
            let mut header = Value::Object(header).to_string();
            header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
            let data = 8 + header.len() as u64;
            let mut first = data;
            for tensor in &tensors {
                shards.places.insert(tensor.name.clone(), (index, first));
                first += tensor.bytes();
            }
            let path = folder.join(&name);
            let file = File::create_new(&path).map_err(Error::io(&path))?;
            shards.total += data + bytes;
            shards.files.push((path, file));
            shards.write_at(index, 0, &[&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat())?;
        }
        if count > 1 {
            let bytes: u64 = items.iter().flatten().map(Planned::bytes).sum();
            let index = json!({ "metadata": { "total_size": bytes }, "weight_map": weight_map });
            let path = folder.join("model.safetensors.index.json");
            std::fs::write(&path, format!("{index:#}")).map_err(Error::io(path))?;
        }
        Ok(shards)
    }

    /// Writes a part of a tensor, from its byte `start` on.
    ///
    /// # Errors
    /// [`Error::Io`], which says how much is needed where the disk is full.
    pub(super) fn write(&mut self, name: &str, start: u64, bytes: &[u8]) -> Result<(), Error> {
        let (file, first) = self.places[name];
        self.write_at(file, first + start, bytes)
    }

    fn write_at(&mut self, file: usize, at: u64, bytes: &[u8]) -> Result<(), Error> {
        let (path, file) = &mut self.files[file];
        let done = file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(bytes));
        done.map_err(|source| match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                let message = format!("{source}: the folder takes {} bytes in all; nothing of it is kept", self.total);
                Error::io(&*path)(std::io::Error::new(source.kind(), message))
            }
            _ => Error::io(&*path)(source),
        })
    }

    /// Waits until all is on the disk.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn finish(self) -> Result<(), Error> {
        self.files.iter().try_for_each(|(path, file)| file.sync_all().map_err(Error::io(path)))
    }
}
