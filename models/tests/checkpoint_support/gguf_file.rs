//! A writer of GGUF files, honest or not.

use half::f16;
use raglan_models::{Checkpoint, Format, LayerRole, Role, RopeScaling};

/// Name, sizes (columns first), type and data.
pub(crate) type Entry = (Vec<u8>, Vec<u64>, u32, Vec<u8>);

/// A GGUF file to be written.
pub(crate) struct GgufFile {
    pub(crate) version: u32,
    /// Key, type and bytes of the value.
    pub(crate) keys: Vec<(Vec<u8>, u32, Vec<u8>)>,
    pub(crate) tensors: Vec<Entry>,
    pub(crate) alignment: usize,
    /// Stands for the count of keys.
    pub(crate) key_count: Option<u64>,
    /// Stands for the count of tensors.
    pub(crate) tensor_count: Option<u64>,
    /// Stands for the offset of the tensor with this index.
    pub(crate) offset: Option<(usize, u64)>,
}

impl Default for GgufFile {
    fn default() -> GgufFile {
        GgufFile {
            version: 3,
            keys: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
            key_count: None,
            tensor_count: None,
            offset: None,
        }
    }
}

impl GgufFile {
    pub(crate) fn text(&mut self, key: &str, value: &str) {
        self.keys.push((key.into(), 8, string(value.as_bytes())));
    }

    pub(crate) fn u32(&mut self, key: &str, value: u32) {
        self.keys.push((key.into(), 4, value.to_le_bytes().into()));
    }

    pub(crate) fn f32(&mut self, key: &str, value: f32) {
        self.keys.push((key.into(), 6, value.to_le_bytes().into()));
    }

    /// Puts another value in a key's place, or adds it.
    pub(crate) fn set(&mut self, key: &str, kind: u32, value: Vec<u8>) {
        self.keys.retain(|(name, ..)| name != key.as_bytes());
        self.keys.push((key.into(), kind, value));
    }

    pub(crate) fn tensor(&mut self, name: &str) -> &mut Entry {
        self.tensors.iter_mut().find(|(tensor, ..)| tensor == name.as_bytes()).unwrap()
    }

    /// The file, and where its data begin.
    pub(crate) fn bytes(&self) -> (Vec<u8>, usize) {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        bytes.extend(self.key_count.unwrap_or(self.keys.len() as u64).to_le_bytes());
        for (key, kind, value) in &self.keys {
            bytes.extend(string(key));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(value);
        }
        let mut offset = 0;
        for (index, (name, sizes, kind, data)) in self.tensors.iter().enumerate() {
            bytes.extend(string(name));
            bytes.extend((sizes.len() as u32).to_le_bytes());
            bytes.extend(sizes.iter().flat_map(|size| size.to_le_bytes()));
            bytes.extend(kind.to_le_bytes());
            let stated = self.offset.filter(|(at, _)| *at == index).map_or(offset as u64, |(_, stated)| stated);
            bytes.extend(stated.to_le_bytes());
            offset += data.len().next_multiple_of(self.alignment);
        }
        bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
        let data_start = bytes.len();
        for (.., data) in &self.tensors {
            bytes.extend(data);
            bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
        }
        (bytes, data_start)
    }
}

/// A string as GGUF keeps it.
fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

/// f32 bytes as f16 bytes.
pub(crate) fn half_bytes(bytes: &[u8]) -> Vec<u8> {
    bytes.as_chunks().0.iter().flat_map(|b| f16::from_f32(f32::from_le_bytes(*b)).to_le_bytes()).collect()
}

/// The GGUF file that a converter makes of an f32 checkpoint: matrices in f16, vectors in f32, and rows of q and k
/// interleaved where the architecture has it so.
pub(crate) fn gguf_of(checkpoint: &Checkpoint) -> GgufFile {
    let spec = checkpoint.spec();
    let (architecture, interleaved) = match spec.family {
        "llama" | "mistral" => ("llama", true),
        "smollm3" => ("smollm3", true),
        other => (other, false),
    };
    let mut file = GgufFile::default();
    file.text("general.architecture", architecture);
    for (key, value) in [
        ("embedding_length", spec.hidden_size),
        ("feed_forward_length", spec.intermediate_size),
        ("block_count", spec.layers.len()),
        ("attention.head_count", spec.num_attention_heads),
        ("attention.head_count_kv", spec.num_key_value_heads),
        ("attention.key_length", spec.head_dim),
        ("attention.value_length", spec.head_dim),
        ("rope.dimension_count", spec.rope.rotary_dim),
        ("context_length", spec.max_position_embeddings),
    ] {
        file.u32(&format!("{architecture}.{key}"), value as u32);
    }
    if let Some(window) = spec.layers[0].sliding_window {
        file.u32(&format!("{architecture}.attention.sliding_window"), window as u32);
    }
    file.f32(&format!("{architecture}.attention.layer_norm_rms_epsilon"), spec.rms_norm_eps as f32);
    file.f32(&format!("{architecture}.rope.freq_base"), spec.rope.theta as f32);
    if let RopeScaling::Llama3 { .. } = spec.rope.scaling {
        let mut plain = spec.rope.clone();
        plain.scaling = RopeScaling::Default;
        let factors = plain.inv_freq().into_iter().zip(spec.rope.inv_freq());
        let data: Vec<u8> = factors.flat_map(|(plain, scaled)| ((plain / scaled) as f32).to_le_bytes()).collect();
        file.tensors.push(("rope_freqs.weight".into(), vec![data.len() as u64 / 4], 0, data));
    }
    for role in spec.roles() {
        let tensor = checkpoint.tensor(role).unwrap().unwrap();
        assert_eq!(tensor.format, Format::F32);
        let shape = spec.shape(role);
        let sizes: Vec<u64> = shape.iter().rev().map(|size| *size as u64).collect();
        let turned = matches!(role, Role::Layer(_, LayerRole::Q | LayerRole::K | LayerRole::QBias | LayerRole::KBias));
        let row_bytes = tensor.bytes.len() / shape[0];
        let rows = if turned && interleaved { interleave(shape[0], spec.head_dim) } else { (0..shape[0]).collect() };
        let data: Vec<u8> =
            rows.into_iter().flat_map(|row| &tensor.bytes[row * row_bytes..][..row_bytes]).copied().collect();
        let name = gguf_name(role).into_bytes();
        file.tensors.push(match shape.len() {
            1 => (name, sizes, 0, data),
            _ => (name, sizes, 1, half_bytes(&data)),
        });
    }
    file
}

/// The model's row at each stored place, by the converter's words: reshape to (heads, 2, half), swap the last two axes.
fn interleave(rows: usize, head_dim: usize) -> Vec<usize> {
    let mut order = Vec::new();
    for head in 0..rows / head_dim {
        for i in 0..head_dim / 2 {
            for half in 0..2 {
                order.push(head * head_dim + half * (head_dim / 2) + i);
            }
        }
    }
    order
}

fn gguf_name(role: Role) -> String {
    let Role::Layer(layer, role) = role else {
        return match role {
            Role::Embedding => "token_embd.weight",
            Role::FinalNorm => "output_norm.weight",
            _ => "output.weight",
        }
        .into();
    };
    let rest = match role {
        LayerRole::InputNorm => "attn_norm.weight",
        LayerRole::Q => "attn_q.weight",
        LayerRole::K => "attn_k.weight",
        LayerRole::V => "attn_v.weight",
        LayerRole::O => "attn_output.weight",
        LayerRole::QBias => "attn_q.bias",
        LayerRole::KBias => "attn_k.bias",
        LayerRole::VBias => "attn_v.bias",
        LayerRole::OBias => "attn_output.bias",
        LayerRole::QNorm => "attn_q_norm.weight",
        LayerRole::KNorm => "attn_k_norm.weight",
        LayerRole::PostAttentionNorm => "ffn_norm.weight",
        LayerRole::Gate => "ffn_gate.weight",
        LayerRole::Up => "ffn_up.weight",
        LayerRole::Down => "ffn_down.weight",
        LayerRole::GateBias => "ffn_gate.bias",
        LayerRole::UpBias => "ffn_up.bias",
        LayerRole::DownBias => "ffn_down.bias",
    };
    format!("blk.{layer}.{rest}")
}
