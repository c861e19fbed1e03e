//! raglan: a portable runtime for large language models on Vulkan, Metal and DX12.
//!
//! A request becomes a [`sequence`]; the [`scheduler`] decides which tokens run in a step and [`segments`] where their keys
//! and values go; that is a [`batch`]. A [`plan`] turns it into work items and schedules, the [`decoder`] records one
//! dispatch after another through [`ops`], the [`sampler`] chooses tokens, and the [`engine`] ties it together. Only
//! [`gpu`] names wgpu.

pub mod batch;
pub mod bench;
pub mod cost;
pub mod decoder;
pub mod engine;
pub mod error;
pub mod eval;
pub mod gpu;
pub mod kv_cache;
pub mod ops;
pub mod plan;
pub mod request;
pub mod sampler;
pub mod scheduler;
pub mod schedules;
pub mod segments;
pub mod self_test;
pub mod sequence;
pub mod tune;
pub mod weights;

pub use engine::{Engine, EngineOptions, EngineStats, EventStream, Importance, Loading, Stepper};
pub use error::Error;
pub use ops::Dtype;
pub use raglan_models as models;
pub use raglan_shaders as shaders;
pub use raglan_tuner as tuner;
pub use request::{Event, FinishReason, Request, RequestId, SamplingParams};

/// The examples of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct ReadmeExamples;
