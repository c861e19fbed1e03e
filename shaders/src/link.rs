//! Linking: a kernel's file, its parts and its schedule become one WGSL module.

use crate::{Part, Variant};

/// The WGSL of a variant: `enable` lines, parts, then the kernel with its constants set.
///
/// # Panics
/// If the kernel's file has no line `const NAME: u32 = …;` for one of its tunables.
pub fn link(variant: &Variant) -> String {
    let mut source = variant.kernel.source.to_owned();
    for (tunable, value) in variant.kernel.tunables.iter().zip(&variant.schedule.values) {
        source = with_constant(&source, tunable.name, *value)
            .unwrap_or_else(|| panic!("{}.wgsl: no line `const {}: u32 = …;`", variant.kernel.name, tunable.name));
    }
    let mut module = String::new();
    if variant.parts.iter().any(|part| part.needs_f16()) {
        module.push_str("enable f16;\n");
    }
    if variant.parts.iter().any(|part| part.needs_coop()) {
        module.push_str("enable wgpu_cooperative_matrix;\n");
    }
    for part in &variant.parts {
        module.push_str(Part::source(*part));
        module.push('\n');
    }
    module.push_str(&source);
    module
}

/// `source` with the constant `name` set, or `None` where it has no such line.
fn with_constant(source: &str, name: &str, value: u32) -> Option<String> {
    let head = format!("const {name}: u32 = ");
    let start = source.find(&head)? + head.len();
    let length = source[start..].find(';')?;
    Some(format!("{}{value}u{}", &source[..start], &source[start + length..]))
}
