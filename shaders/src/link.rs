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

/// WGSL files as one text, those that are shared before the one that uses them; named as by `include_str!`, without the ending and
/// without what the names begin with where that is given.
macro_rules! wgsl {
    ($($file:literal),+) => { concat!($(include_str!(concat!($file, ".wgsl")), "\n"),+) };
    ($start:literal => $($file:literal),+) => { concat!($(include_str!(concat!($start, $file, ".wgsl")), "\n"),+) };
}
pub(crate) use wgsl;

/// What [`link`] gives, parsed, with its loops over the registers of a lane [unrolled](crate::unroll); `None` where it does
/// not parse.
pub fn module(variant: &Variant) -> Option<naga::Module> {
    let mut module = naga::front::wgsl::parse_str(&link(variant)).ok()?;
    crate::unroll(&mut module);
    Some(module)
}

/// `source` with the constant `name` set, or `None` where it has no such line.
fn with_constant(source: &str, name: &str, value: u32) -> Option<String> {
    let head = format!("const {name}: u32 = ");
    let start = source.find(&head)? + head.len();
    let length = source[start..].find(';')?;
    Some(format!("{}{value}u{}", &source[..start], &source[start + length..]))
}
