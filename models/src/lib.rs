//! What a checkpoint says, and nothing of how it runs: files → [`ModelSpec`], tensors, tokenizer, chat template.

pub mod chat_template;
pub mod checkpoint;
mod config;
pub mod error;
mod families;
pub mod generation;
pub mod gguf;
pub mod hub;
mod mapped;
mod names;
pub mod packed;
pub mod quantize;
mod rope;
mod rope_override;
mod safetensors;
pub mod spec;
pub mod stop_strings;
pub mod synthetic;
pub mod tensor;
mod tensors;
pub mod text_stream;
pub mod tokenizer;

pub use chat_template::{ChatOptions, ChatTemplate, Message};
pub use checkpoint::{Checkpoint, EmbeddedFiles, FormatUse};
pub use error::Error;
pub use generation::GenerationConfig;
pub use names::Naming;
pub use packed::Packed;
pub use quantize::QuantizeTo;
pub use rope_override::RopeOverride;
pub use spec::{Activation, LayerRole, LayerSpec, ModelSpec, Optional, Role, Rope, RopeScaling};
pub use stop_strings::{StopStrings, Watched};
pub use synthetic::Synthetic;
pub use tensor::{Format, RowOrder, Tensor};
pub use text_stream::TextStream;
pub use tokenizer::{GgufVocabulary, Tokenizer, TokenizerConfig};
