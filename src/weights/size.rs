//! Bytes of a checkpoint's weights on an adapter, before any is uploaded.

use super::rewrite::{Rewrite, Source};
use super::weight_format;
use raglan_models::{Checkpoint, Format, LayerRole, Role};
use raglan_shaders::{BLOCK, round_up};

/// How a checkpoint's matrices lie on an adapter.
#[derive(Debug, Clone, Copy)]
pub struct GpuWeights {
    /// Bytes of all weights, with their padding.
    pub bytes: u64,
    /// Buffers that hold them.
    pub buffers: usize,
    /// Whether gates and ups are in turn in every layer.
    pub gates_in_turn: bool,
}

impl GpuWeights {
    /// What [`Weights::upload`](super::Weights::upload) makes of a checkpoint.
    pub fn of(checkpoint: &Checkpoint, rewrite: &Rewrite<'_>) -> GpuWeights {
        use LayerRole::*;
        let spec = checkpoint.spec();
        let (mut bytes, mut buffers, mut gates_in_turn) = (0, 0, true);
        let format = |role: Role| -> Format {
            // No error comes of a checkpoint that is open.
            let tensor = checkpoint.tensor(role).ok().flatten().expect("the spec's matrices are in the checkpoint");
            Source::new(tensor, role, rewrite).format
        };
        let vector = |role: Role| (4 * round_up(spec.shape(role)[0], BLOCK)) as u64;
        let matrix = |role: Role| -> u64 {
            let [rows, cols] = spec.shape(role)[..] else { panic!("{role:?} is a matrix") };
            (round_up(rows, BLOCK) * weight_format(format(role)).gpu_row_bytes(cols)) as u64
        };
        // One bias stands for all projections of a product.
        let product = |parts: &[(Role, Option<Role>)]| -> u64 {
            let has_bias = parts.iter().filter_map(|(_, bias)| *bias).any(|bias| spec.has(bias));
            let rows = parts.iter().map(|(role, _)| round_up(spec.shape(*role)[0], BLOCK) as u64).sum::<u64>();
            parts.iter().map(|(role, _)| matrix(*role)).sum::<u64>() + if has_bias { 4 * rows } else { 0 }
        };
        for layer in 0..spec.layers.len() {
            let role = |role| Role::Layer(layer, role);
            let with = |weight, bias| (role(weight), Some(role(bias)));
            for parts in [
                &[with(Q, QBias), with(K, KBias), with(V, VBias)][..],
                &[with(O, OBias)],
                &[with(Gate, GateBias), with(Up, UpBias)],
                &[with(Down, DownBias)],
            ] {
                bytes += product(parts);
                buffers += 1;
            }
            let norms = [InputNorm, PostAttentionNorm, QNorm, KNorm].map(role);
            bytes += norms.into_iter().filter(|&norm| spec.has(norm)).map(vector).sum::<u64>();
            gates_in_turn &= format(role(Gate)) == format(role(Up));
        }
        for role in [Role::Embedding, Role::LmHead].into_iter().filter(|&role| spec.has(role)) {
            bytes += matrix(role);
            buffers += 1;
        }
        GpuWeights { bytes: bytes + vector(Role::FinalNorm), buffers, gates_in_turn }
    }
}
