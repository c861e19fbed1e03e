//! Weights made up on the adapter: a seed for each matrix, nothing on the host.

use crate::error::Error;
use crate::gpu::{Buffer, Gpu, StepRing};
use raglan_shaders::WeightFormat;
use raglan_shaders::random_weights::{KERNEL, RandomWeightsParams, workgroups};

/// Numbers to a row of [`Random::fill_floats`]: in f16 they divide every arena, whose slots come in sixteens and whose rows are whole 16-byte
/// words.
pub const FLOATS: usize = 128;

/// Fills buffers with random rows; the same ones in the same order every time.
pub struct Random {
    gpu: Gpu,
    ring: StepRing,
    seed: u32,
}

impl Random {
    /// # Errors
    /// If the adapter is lost or has no room for a few bytes.
    pub fn new(gpu: &Gpu) -> Result<Random, Error> {
        Ok(Random { gpu: gpu.clone(), ring: gpu.step_ring(1, 16, 16)?, seed: 0 })
    }

    /// Fills `buffer` with `rows` of `cols` values in `format`, as large as keeps the size of what they multiply. Waits for it,
    /// since a driver may take long to fill memory for the first time.
    ///
    /// # Errors
    /// If the adapter was lost or refuses the kernel.
    pub fn fill(&mut self, buffer: &Buffer, format: WeightFormat, cols: usize, rows: usize) -> Result<(), Error> {
        self.seed = self.seed.wrapping_add(0x9e37_79b9);
        let params = RandomWeightsParams::rows(format, cols, 0, rows, self.seed);
        let mut recorder = self.gpu.begin_step(&self.ring);
        let variant = KERNEL.variant(&[], KERNEL.default_schedule());
        recorder.dispatch(&variant, &[buffer.into()], bytemuck::bytes_of(&params), workgroups(&params));
        recorder.submit()?.collect().map(|_| ())
    }

    /// Fills all of `buffer` with small numbers in f16 or f32, as `element_bytes` says.
    ///
    /// # Errors
    /// As [`Random::fill`].
    ///
    /// # Panics
    /// If its size is no multiple of [`FLOATS`] numbers.
    pub fn fill_floats(&mut self, buffer: &Buffer, element_bytes: usize) -> Result<(), Error> {
        let format = if element_bytes == 2 { WeightFormat::F16 } else { WeightFormat::F32 };
        let row_bytes = (FLOATS * element_bytes) as u64;
        assert!(buffer.bytes().is_multiple_of(row_bytes), "{} bytes in rows of {row_bytes}", buffer.bytes());
        self.fill(buffer, format, FLOATS, (buffer.bytes() / row_bytes) as usize)
    }
}
