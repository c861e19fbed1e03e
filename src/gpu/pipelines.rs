//! Pipelines by variant, compiled once each.

use super::fault::{Faults, scoped};
use crate::error::Error;
use parking_lot::{Mutex, RwLock};
use raglan_shaders::{Access, Variant, link, module};
use rustc_hash::FxHashMap;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// The accesses of a kernel's bindings as bits, above them a bit that ends the list: `[Read, ReadWrite]` is `0b110`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LayoutKey(u32);

/// A compiled variant.
pub(super) struct Pipeline {
    pub(super) raw: wgpu::ComputePipeline,
    /// Unique among pipelines.
    pub(super) id: u32,
    pub(super) layout_key: LayoutKey,
    pub(super) layout: wgpu::BindGroupLayout,
}

/// A compiler's refusal is kept like a pipeline: it would refuse again.
type Compiled = Result<Arc<Pipeline>, String>;

/// How kernels are given to the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As they are written, with checks of bounds and loops, and zeroed workgroup memory.
    Checked,
    /// As they are written.
    Written,
    /// With loops over a lane's registers written out.
    Unrolled,
}

pub(super) struct Pipelines {
    form: Form,
    disk: Option<wgpu::PipelineCache>,
    layouts: Mutex<FxHashMap<LayoutKey, wgpu::BindGroupLayout>>,
    compiled: RwLock<FxHashMap<Variant, Compiled>>,
    count: AtomicU32,
}

impl LayoutKey {
    fn new(bindings: &[Access]) -> Self {
        assert!(bindings.len() < 32, "{} bindings", bindings.len());
        let bits = bindings.iter().enumerate().map(|(i, &access)| u32::from(access == Access::ReadWrite) << i);
        LayoutKey(bits.sum::<u32>() | 1 << bindings.len())
    }
}

impl Pipelines {
    pub(super) fn new(form: Form, disk: Option<wgpu::PipelineCache>) -> Self {
        Pipelines { form, disk, layouts: Mutex::default(), compiled: RwLock::default(), count: AtomicU32::new(0) }
    }

    /// The pipeline of `variant`, compiled now if it was not yet.
    ///
    /// # Errors
    /// If naga or the driver refuses it.
    pub(super) fn get(
        &self,
        device: &wgpu::Device,
        faults: &Faults,
        variant: &Variant,
    ) -> Result<Arc<Pipeline>, Error> {
        let found = self.compiled.read().get(variant).cloned();
        let compiled = match found {
            Some(compiled) => compiled,
            None => {
                let compiled = self.compile(device, variant);
                // A lost device refuses everything, which says nothing about the variant.
                faults.check_lost()?;
                self.compiled.write().entry(variant.clone()).or_insert(compiled).clone()
            }
        };
        compiled.map_err(|message| Error::Pipeline { variant: variant.to_string(), message })
    }

    /// How many were ever compiled.
    pub(super) fn count(&self) -> u64 {
        u64::from(self.count.load(Ordering::Relaxed))
    }

    fn compile(&self, device: &wgpu::Device, variant: &Variant) -> Compiled {
        let start = Instant::now();
        let kernel = variant.kernel;
        let id = self.count.fetch_add(1, Ordering::Relaxed);
        let layout_key = LayoutKey::new(kernel.bindings);
        let (pipeline, error) = scoped(device, || {
            let layout = self.layout(device, layout_key, kernel.bindings);
            let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(kernel.name),
                bind_group_layouts: &[Some(&layout)],
                immediate_size: kernel.immediates.bytes as u32,
            });
            let module = self.module(device, variant);
            let raw = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(kernel.name),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some(kernel.name),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &[],
                    zero_initialize_workgroup_memory: self.form == Form::Checked,
                },
                cache: self.disk.as_ref(),
            });
            Pipeline { raw, id, layout_key, layout }
        });
        match error {
            Some(error) => Err(error.to_string()),
            None => {
                log::debug!("{variant}: compiled in {:.0?}", start.elapsed());
                Ok(Arc::new(pipeline))
            }
        }
    }

    fn module(&self, device: &wgpu::Device, variant: &Variant) -> wgpu::ShaderModule {
        let label = Some(variant.kernel.name);
        // What does not parse goes on as text, whose errors name lines.
        let unrolled = if self.form == Form::Unrolled { module(variant) } else { None };
        let source = match unrolled {
            Some(module) => wgpu::ShaderSource::Naga(Cow::Owned(module)),
            None => wgpu::ShaderSource::Wgsl(link(variant).into()),
        };
        let descriptor = wgpu::ShaderModuleDescriptor { label, source };
        if self.form == Form::Checked {
            return device.create_shader_module(descriptor);
        }
        // SAFETY: the source is a kernel of this program linked with parts of this program, never a user's text. Their
        // tests run with checks on and off and compare both with the CPU twins, over lengths at and around every tile,
        // so indices are in range and loops end for parameters that the kernels' host halves let through.
        unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
    }

    fn layout(&self, device: &wgpu::Device, key: LayoutKey, bindings: &[Access]) -> wgpu::BindGroupLayout {
        let mut layouts = self.layouts.lock();
        let layout = layouts.entry(key).or_insert_with(|| {
            let entries: Vec<_> = bindings
                .iter()
                .zip(0..)
                .map(|(access, binding)| wgpu::BindGroupLayoutEntry {
                    binding,
                    visibility: wgpu::ShaderStages::COMPUTE,
                    ty: wgpu::BindingType::Buffer {
                        ty: wgpu::BufferBindingType::Storage { read_only: *access == Access::Read },
                        has_dynamic_offset: false,
                        min_binding_size: None,
                    },
                    count: None,
                })
                .collect();
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries })
        });
        layout.clone()
    }
}
