//! Compiled pipelines on disk, where the backend can give them out: a second start need not compile.

use std::hash::Hasher;
use std::path::{Path, PathBuf};

/// Marks a file of this layout: these bytes, a hash of the rest, the rest as the driver gave it.
const MAGIC: &[u8; 8] = b"rglnpip1";

pub(super) struct DiskCache {
    pub(super) cache: wgpu::PipelineCache,
    path: PathBuf,
}

impl DiskCache {
    /// The cache of `adapter` under `dir`, with what an earlier run left there; `None` where the backend has no such
    /// thing. A file that is cut, altered or of another driver counts as absent.
    pub(super) fn open(device: &wgpu::Device, adapter: &wgpu::Adapter, dir: &Path) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let path = dir.join(wgpu::util::pipeline_cache_key(&adapter.get_info())?);
        let file = std::fs::read(&path).unwrap_or_default();
        let descriptor =
            wgpu::PipelineCacheDescriptor { label: Some("pipelines"), data: unwrap(&file), fallback: true };
        // SAFETY: the data came from `get_data` in an earlier run: only `save` writes this file, whole or not at all, and
        // the hash tells damage. wgpu compares its header with the adapter and the driver's version.
        let cache = unsafe { device.create_pipeline_cache(&descriptor) };
        Some(DiskCache { cache, path })
    }

    /// Writes what is compiled until now; a failure costs time at the next start and nothing else.
    pub(super) fn save(&self) {
        let Some(data) = self.cache.get_data() else { return };
        if let Err(error) = replace(&self.path, &wrap(&data)) {
            log::warn!("{}: compiled kernels are not kept: {error}", self.path.display());
        }
    }
}

/// Another process sees the old file or the new one, never a part.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let partial = path.with_extension(format!("{}.part", std::process::id()));
    std::fs::write(&partial, bytes)?;
    std::fs::rename(&partial, path).inspect_err(|_| {
        let _ = std::fs::remove_file(&partial);
    })
}

fn hash(data: &[u8]) -> [u8; 8] {
    let mut hasher = rustc_hash::FxHasher::default();
    hasher.write(data);
    hasher.write_usize(data.len());
    hasher.finish().to_le_bytes()
}

fn wrap(data: &[u8]) -> Vec<u8> {
    [MAGIC.as_slice(), &hash(data), data].concat()
}

fn unwrap(file: &[u8]) -> Option<&[u8]> {
    let (met, data) = file.strip_prefix(MAGIC)?.split_at_checked(8)?;
    (met == hash(data)).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_cut_or_altered_counts_as_absent() {
        let whole = wrap(b"what the driver said");
        assert_eq!(unwrap(&whole), Some(b"what the driver said".as_slice()));
        for length in 0..whole.len() {
            assert_eq!(unwrap(&whole[..length]), None, "cut to {length}");
        }
        for place in 0..whole.len() {
            let mut altered = whole.clone();
            altered[place] ^= 1;
            assert_eq!(unwrap(&altered), None, "altered at {place}");
        }
    }
}
