//! What a decoder-only transformer is, as data: everything the runtime needs to know of a checkpoint besides its tensors.

use std::path::Path;

use crate::config::Config;
use crate::{Error, families};

/// The shape and the rules of one model; hyperparameters are named as `config.json` spells them.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// The family that read the configuration: `llama`, `mistral`, `qwen2`, `qwen3`, `smollm3`.
    pub family: &'static str,
    /// Rows of the embedding and of the logits.
    pub vocab_size: usize,
    /// Columns of the residual stream.
    pub hidden_size: usize,
    /// Columns between the two halves of the MLP.
    pub intermediate_size: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Columns of one head; even.
    pub head_dim: usize,
    /// Positions that the model was trained for, after RoPE scaling.
    pub max_position_embeddings: usize,
    /// Added to the mean square in every norm.
    pub rms_norm_eps: f64,
    /// Between gate and up.
    pub hidden_act: Activation,
    /// How positions turn queries and keys.
    pub rope: Rope,
    /// One entry a layer.
    pub layers: Vec<LayerSpec>,
    /// Which optional tensors the model has.
    pub has: Optional,
}

/// Tensors that a family or a configuration may leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Optional {
    /// Biases of the q, k and v projections.
    pub qkv_bias: bool,
    /// A bias of the attention's output projection.
    pub o_bias: bool,
    /// Biases of gate, up and down.
    pub mlp_bias: bool,
    /// A norm a head on queries and keys, before RoPE (Qwen3).
    pub qk_norm: bool,
    /// A matrix of its own for the logits; without it the embedding is used again.
    pub lm_head: bool,
}

/// What differs from layer to layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerSpec {
    /// A query sees this many positions, its own among them; `None` sees all.
    pub sliding_window: Option<usize>,
    /// Whether queries and keys are turned at all (SmolLM3 leaves some layers without).
    pub rope: bool,
}

/// The function between gate and up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x · sigmoid(x)
    Silu,
    /// The tanh form of GELU.
    GeluTanh,
}

/// Rotary position embedding: pair (i, i + rotary_dim / 2) of a head turns by `position * inv_freq[i]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// The base of the frequencies.
    pub theta: f64,
    /// Columns of a head that turn; even, at most `head_dim`.
    pub rotary_dim: usize,
    /// How frequencies were stretched for longer contexts.
    pub scaling: RopeScaling,
}

/// The RoPE scalings that are supported; any other is refused by name.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// None.
    Default,
    /// Every frequency divided by `factor`.
    Linear {
        /// The stretch.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, a ramp between.
    Llama3 {
        /// The stretch of the low frequencies.
        factor: f64,
        /// Wavelengths over `original / low_freq_factor` are stretched.
        low_freq_factor: f64,
        /// Wavelengths under `original / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Positions of the training before the stretch.
        original_max_position_embeddings: f64,
    },
    /// Dynamic NTK: a larger base for contexts over the original positions. A cache of keys wants one base for all of its
    /// positions, so it follows from the longest context that the cache may hold.
    Dynamic {
        /// How fast the base grows with the context.
        factor: f64,
        /// Positions of the training.
        original_max_position_embeddings: f64,
        /// The longest context, by [`Rope::for_context`]; within the original positions nothing is scaled.
        context: f64,
    },
    /// Peng et al. 2023, arXiv:2309.00071.
    Yarn {
        /// The stretch.
        factor: f64,
        /// Rotations over which a frequency is kept.
        beta_fast: f64,
        /// Rotations under which a frequency is stretched whole.
        beta_slow: f64,
        /// Positions of the training before the stretch.
        original_max_position_embeddings: f64,
        /// Multiplies cosine and sine.
        attention_factor: f64,
        /// Whether the ramp's ends are rounded outwards to whole dimensions.
        truncate: bool,
    },
    /// Frequency i divided by factor i, as GGUF files keep a Llama 3.1 scaling (`rope_freqs.weight`).
    Factors(
        /// `[rotary_dim / 2]`
        Vec<f64>,
    ),
}

impl ModelSpec {
    /// What a `config.json` says where there are no weights beside it.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] for a number that no model can have; [`Error::Unsupported`] for a family or a
    /// feature that is not built.
    pub fn from_config(path: &Path) -> Result<ModelSpec, Error> {
        families::read(&Config::read_alone(path)?)
    }

    /// Whether the model has this tensor: false for absent biases and norms, a tied `lm_head` and layers past the last.
    pub fn has(&self, role: Role) -> bool {
        match role {
            Role::Embedding | Role::FinalNorm => true,
            Role::LmHead => self.has.lm_head,
            Role::Layer(layer, role) => {
                layer < self.layers.len()
                    && match role {
                        LayerRole::QBias | LayerRole::KBias | LayerRole::VBias => self.has.qkv_bias,
                        LayerRole::OBias => self.has.o_bias,
                        LayerRole::QNorm | LayerRole::KNorm => self.has.qk_norm,
                        LayerRole::GateBias | LayerRole::UpBias | LayerRole::DownBias => self.has.mlp_bias,
                        _ => true,
                    }
            }
        }
    }

    /// Every tensor that the model has, in the order in which a token meets them.
    pub fn roles(&self) -> impl Iterator<Item = Role> + '_ {
        let layers = (0..self.layers.len()).flat_map(|layer| LayerRole::ALL.map(|role| Role::Layer(layer, role)));
        let ends = [Role::FinalNorm, Role::LmHead];
        std::iter::once(Role::Embedding).chain(layers).chain(ends).filter(|role| self.has(*role))
    }

    /// The shape of a tensor: rows and columns of a matrix, or one number for a vector.
    pub fn shape(&self, role: Role) -> Vec<usize> {
        let (hidden, mlp) = (self.hidden_size, self.intermediate_size);
        let (q, kv) = (self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim);
        match role {
            Role::Embedding | Role::LmHead => vec![self.vocab_size, hidden],
            Role::FinalNorm => vec![hidden],
            Role::Layer(_, role) => match role {
                LayerRole::InputNorm | LayerRole::PostAttentionNorm => vec![hidden],
                LayerRole::Q => vec![q, hidden],
                LayerRole::K | LayerRole::V => vec![kv, hidden],
                LayerRole::O => vec![hidden, q],
                LayerRole::QBias => vec![q],
                LayerRole::KBias | LayerRole::VBias => vec![kv],
                LayerRole::OBias | LayerRole::DownBias => vec![hidden],
                LayerRole::QNorm | LayerRole::KNorm => vec![self.head_dim],
                LayerRole::Gate | LayerRole::Up => vec![mlp, hidden],
                LayerRole::Down => vec![hidden, mlp],
                LayerRole::GateBias | LayerRole::UpBias => vec![mlp],
            },
        }
    }
}

impl Role {
    /// Whether it is added to the result of a product.
    pub fn is_bias(self) -> bool {
        use LayerRole::*;
        matches!(self, Role::Layer(_, QBias | KBias | VBias | OBias | GateBias | UpBias | DownBias))
    }
}

impl LayerRole {
    /// Every tensor of a layer, in the order in which a token meets them.
    pub const ALL: [LayerRole; 18] = [
        LayerRole::InputNorm,
        LayerRole::Q,
        LayerRole::QBias,
        LayerRole::K,
        LayerRole::KBias,
        LayerRole::V,
        LayerRole::VBias,
        LayerRole::QNorm,
        LayerRole::KNorm,
        LayerRole::O,
        LayerRole::OBias,
        LayerRole::PostAttentionNorm,
        LayerRole::Gate,
        LayerRole::GateBias,
        LayerRole::Up,
        LayerRole::UpBias,
        LayerRole::Down,
        LayerRole::DownBias,
    ];
}

/// A tensor's place in the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// `[vocab_size, hidden_size]`
    Embedding,
    /// `[hidden_size]`, before the logits.
    FinalNorm,
    /// `[vocab_size, hidden_size]`; absent where tied.
    LmHead,
    /// A tensor of one layer.
    Layer(usize, LayerRole),
}

/// A tensor's place in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerRole {
    /// `[hidden_size]`, before attention.
    InputNorm,
    /// `[num_attention_heads * head_dim, hidden_size]`
    Q,
    /// `[num_key_value_heads * head_dim, hidden_size]`
    K,
    /// `[num_key_value_heads * head_dim, hidden_size]`
    V,
    /// `[hidden_size, num_attention_heads * head_dim]`
    O,
    /// `[num_attention_heads * head_dim]`
    QBias,
    /// `[num_key_value_heads * head_dim]`
    KBias,
    /// `[num_key_value_heads * head_dim]`
    VBias,
    /// `[hidden_size]`
    OBias,
    /// `[head_dim]`, on every query head.
    QNorm,
    /// `[head_dim]`, on every key head.
    KNorm,
    /// `[hidden_size]`, before the MLP.
    PostAttentionNorm,
    /// `[intermediate_size, hidden_size]`
    Gate,
    /// `[intermediate_size, hidden_size]`
    Up,
    /// `[hidden_size, intermediate_size]`
    Down,
    /// `[intermediate_size]`
    GateBias,
    /// `[intermediate_size]`
    UpBias,
    /// `[hidden_size]`
    DownBias,
}
