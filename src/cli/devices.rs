//! `raglan devices`: the adapters that are there, and which one is taken.

use super::Result;
use super::global::Global;
use super::output::{bytes, number, print_json, print_line};
use raglan::gpu::{AdapterSummary, Gpu};

/// List the adapters, what they can do, and which would be chosen
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One JSON object: adapters, chosen (an index), reason
    #[arg(long)]
    json: bool,
}

pub(super) fn run(global: &Global, args: Args) -> Result {
    let adapters = Gpu::adapters();
    let choice = Gpu::choose(&adapters, &global.gpu_options());
    let chosen = choice.as_ref().ok();
    if args.json {
        print_json(&serde_json::json!({
            "adapters": adapters,
            "chosen": chosen.map(|(index, _)| index),
            "reason": chosen.map(|(_, reason)| reason),
        }))?;
    } else {
        for adapter in &adapters {
            describe(adapter)?;
        }
        if let Some((index, reason)) = chosen {
            print_line(format_args!("chosen: {} ({reason})", adapters[*index]))?;
        }
    }
    choice.map(|_| ())
}

fn describe(adapter: &AdapterSummary) -> Result {
    let (limits, features) = (&adapter.limits, &adapter.features);
    print_line(adapter)?;
    print_line(format_args!("   driver    {} {}", adapter.driver, adapter.driver_info))?;
    let mut offers = Vec::new();
    offers.push(if features.shader_f16 { "f16".to_owned() } else { "no f16 (f32 is used)".to_owned() });
    offers.push(match features.subgroup_lanes {
        Some((least, most)) if least == most => format!("subgroups of {least}"),
        Some((least, most)) => format!("subgroups of {least} to {most}"),
        None => "no subgroups".to_owned(),
    });
    offers.push(match features.cooperative_matrices.as_slice() {
        [] => "no cooperative matrices".to_owned(),
        sizes => format!("cooperative matrices {}", sizes.join(", ")),
    });
    if !features.immediates {
        offers.push("no immediates, so nothing runs here".to_owned());
    }
    if features.timestamps {
        offers.push("timestamps".to_owned());
    }
    if features.pipeline_cache {
        offers.push("pipeline cache".to_owned());
    }
    print_line(format_args!("   features  {}", offers.join(", ")))?;
    print_line(format_args!(
        "   limits    bindings of {}, buffers of {}, workgroups of {} lanes and {}",
        bytes(limits.max_binding_bytes),
        bytes(limits.max_buffer_bytes),
        number(limits.max_workgroup_lanes),
        bytes(limits.max_workgroup_bytes.into()),
    ))?;
    match &adapter.memory {
        Some(memory) => print_line(format_args!(
            "   memory    {}, of which {} may be allocated now",
            bytes(memory.heap_bytes),
            bytes(memory.available_bytes())
        )),
        None => print_line("   memory    the backend does not tell"),
    }
}
