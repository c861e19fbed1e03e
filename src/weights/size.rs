//! Bytes of a checkpoint's weights on an adapter, before any is uploaded.

use super::rewrite::{Rewrite, Source};
use super::weight_format;
use raglan_models::{Checkpoint, Format, FormatUse, LayerRole, Role};
use raglan_shaders::{BLOCK, round_up};
use std::collections::BTreeMap;

/// How a checkpoint's matrices lie on an adapter.
#[derive(Debug, Clone)]
pub struct GpuWeights {
    /// Bytes of all weights, with their padding.
    pub bytes: u64,
    /// The same by format: vectors are f32 there.
    pub formats: Vec<FormatUse>,
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
        let (mut tally, mut buffers, mut gates_in_turn) = (Tally::default(), 0, true);
        let format = |role: Role| -> Format {
            // No error comes of a checkpoint that is open.
            let tensor = checkpoint.tensor(role).ok().flatten().expect("the spec's matrices are in the checkpoint");
            Source::new(tensor, role, rewrite).format
        };
        let vector = |role: Role, tally: &mut Tally| {
            let numbers = spec.shape(role)[0];
            tally.add(Format::F32, 1, numbers, 4 * round_up(numbers, BLOCK));
        };
        let matrix = |role: Role, tally: &mut Tally| {
            let [rows, cols] = spec.shape(role)[..] else { panic!("{role:?} is a matrix") };
            let bytes = round_up(rows, BLOCK) * weight_format(format(role)).gpu_row_bytes(cols);
            tally.add(format(role), 1, rows * cols, bytes);
        };
        let product = |parts: &[(Role, Role)], tally: &mut Tally| {
            parts.iter().for_each(|(role, _)| matrix(*role, tally));
            let biases: Vec<usize> =
                parts.iter().filter(|(_, bias)| spec.has(*bias)).map(|(_, bias)| spec.shape(*bias)[0]).collect();
            // One bias stands for all projections of a product.
            if !biases.is_empty() {
                let rows: usize = parts.iter().map(|(role, _)| round_up(spec.shape(*role)[0], BLOCK)).sum();
                tally.add(Format::F32, biases.len(), biases.iter().sum(), 4 * rows);
            }
        };
        for layer in 0..spec.layers.len() {
            let role = |role| Role::Layer(layer, role);
            let with = |weight, bias| (role(weight), role(bias));
            for parts in [
                &[with(Q, QBias), with(K, KBias), with(V, VBias)][..],
                &[with(O, OBias)],
                &[with(Gate, GateBias), with(Up, UpBias)],
                &[with(Down, DownBias)],
            ] {
                product(parts, &mut tally);
                buffers += 1;
            }
            let norms = [InputNorm, PostAttentionNorm, QNorm, KNorm].map(role);
            norms.into_iter().filter(|&norm| spec.has(norm)).for_each(|norm| vector(norm, &mut tally));
            gates_in_turn &= format(role(Gate)) == format(role(Up));
        }
        for role in [Role::Embedding, Role::LmHead].into_iter().filter(|&role| spec.has(role)) {
            matrix(role, &mut tally);
            buffers += 1;
        }
        vector(Role::FinalNorm, &mut tally);
        let formats: Vec<FormatUse> = tally.0.into_values().collect();
        GpuWeights { bytes: formats.iter().map(|used| used.bytes).sum(), formats, buffers, gates_in_turn }
    }
}

/// What is stored in which format.
#[derive(Default)]
struct Tally(BTreeMap<Format, FormatUse>);

impl Tally {
    fn add(&mut self, format: Format, tensors: usize, parameters: usize, bytes: usize) {
        let fresh = FormatUse { format, tensors: 0, parameters: 0, bytes: 0 };
        let used = self.0.entry(format).or_insert(fresh);
        used.tensors += tensors;
        used.parameters += parameters as u64;
        used.bytes += bytes as u64;
    }
}
