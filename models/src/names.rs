//! How the two containers name a tensor's place.

use crate::{LayerRole, Role};

/// Which names and which order of rows a container uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// `model.layers.0.self_attn.q_proj.weight`
    HuggingFace,
    /// `blk.0.attn_q.weight`
    Gguf {
        /// Whether the rows of q and k, and their biases, lie interleaved.
        interleaved: bool,
    },
}

impl Naming {
    /// The tensor's name for a role.
    pub fn name(self, role: Role) -> String {
        match (self, role) {
            (Naming::HuggingFace, Role::Embedding) => "model.embed_tokens.weight".into(),
            (Naming::HuggingFace, Role::FinalNorm) => "model.norm.weight".into(),
            (Naming::HuggingFace, Role::LmHead) => "lm_head.weight".into(),
            (Naming::HuggingFace, Role::Layer(layer, role)) => format!("model.layers.{layer}.{}", hugging_face(role)),
            (Naming::Gguf { .. }, Role::Embedding) => "token_embd.weight".into(),
            (Naming::Gguf { .. }, Role::FinalNorm) => "output_norm.weight".into(),
            (Naming::Gguf { .. }, Role::LmHead) => "output.weight".into(),
            (Naming::Gguf { .. }, Role::Layer(layer, role)) => format!("blk.{layer}.{}", gguf(role)),
        }
    }

    /// Whether it is a scale of keys or values that compressed-tensors keeps beside the weights.
    pub(crate) fn is_kv_scale(self, name: &str) -> bool {
        self == Naming::HuggingFace
            && [".k_scale", ".v_scale", ".k_zero_point", ".v_zero_point"].iter().any(|end| name.ends_with(end))
    }

    /// Whether a tensor that no role asks for may lie in the file unread: it is derived from the configuration, or
    /// belongs to training.
    pub(crate) fn harmless(self, name: &str, tied: bool) -> bool {
        match self {
            Naming::HuggingFace => {
                (tied && name == "lm_head.weight")
                    || [".rotary_emb.inv_freq", ".rotary_emb.cos_cached", ".rotary_emb.sin_cached", ".masked_bias"]
                        .iter()
                        .any(|end| name.ends_with(end))
            }
            Naming::Gguf { .. } => name == "rope_freqs.weight", // read with the configuration
        }
    }
}

fn hugging_face(role: LayerRole) -> &'static str {
    match role {
        LayerRole::InputNorm => "input_layernorm.weight",
        LayerRole::Q => "self_attn.q_proj.weight",
        LayerRole::K => "self_attn.k_proj.weight",
        LayerRole::V => "self_attn.v_proj.weight",
        LayerRole::O => "self_attn.o_proj.weight",
        LayerRole::QBias => "self_attn.q_proj.bias",
        LayerRole::KBias => "self_attn.k_proj.bias",
        LayerRole::VBias => "self_attn.v_proj.bias",
        LayerRole::OBias => "self_attn.o_proj.bias",
        LayerRole::QNorm => "self_attn.q_norm.weight",
        LayerRole::KNorm => "self_attn.k_norm.weight",
        LayerRole::PostAttentionNorm => "post_attention_layernorm.weight",
        LayerRole::Gate => "mlp.gate_proj.weight",
        LayerRole::Up => "mlp.up_proj.weight",
        LayerRole::Down => "mlp.down_proj.weight",
        LayerRole::GateBias => "mlp.gate_proj.bias",
        LayerRole::UpBias => "mlp.up_proj.bias",
        LayerRole::DownBias => "mlp.down_proj.bias",
    }
}

fn gguf(role: LayerRole) -> &'static str {
    match role {
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
    }
}
