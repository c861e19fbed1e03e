//! Every adapter test, from the one binary: for a user with an unknown GPU, and for machines without cargo.
//! The tests under `tests/` run the same list.

mod golden;

use crate::gpu::{Gpu, GpuOptions};

/// One test. It fails with a sentence.
pub struct SelfTest {
    /// `golden/llama`: what it is about, then which.
    pub name: String,
    /// Runs it on an open adapter.
    pub run: Box<dyn Fn(&Adapters) -> Result<(), String> + Send + Sync>,
}

/// The adapter under test, opened in the ways that kernels differ by.
pub struct Adapters {
    /// As a run opens it.
    pub plain: Gpu,
    /// With bounds checks in every kernel.
    pub checked: Gpu,
    /// Without f16.
    pub f32: Gpu,
}

impl Adapters {
    /// Opens the adapter that `options` choose.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(options: &GpuOptions) -> Result<Adapters, crate::Error> {
        Ok(Adapters {
            plain: Gpu::open(options)?,
            checked: Gpu::open(&GpuOptions { runtime_checks: true, ..options.clone() })?,
            f32: Gpu::open(&GpuOptions { allow_f16: false, ..options.clone() })?,
        })
    }
}

/// Every test, in the order in which a kernel's failure explains a model's.
pub fn all() -> Vec<SelfTest> {
    golden::tests()
}

/// A test named `name` that runs `run`.
fn test(name: impl Into<String>, run: impl Fn(&Adapters) -> Result<(), String> + Send + Sync + 'static) -> SelfTest {
    SelfTest { name: name.into(), run: Box::new(run) }
}
