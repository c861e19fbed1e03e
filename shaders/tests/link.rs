//! Every kernel with every choice of parts and every legal schedule parses, validates, becomes SPIR-V, MSL and HLSL, has the
//! bindings that the host names, and lays its structs out as the host does.

use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use raglan_shaders::{
    ALL, Access, AdapterLimits, Kernel, Part, PartKind, Scalar, Schedule, StructLayout, Variant, link, unroll,
};
use std::collections::{BTreeSet, HashSet};

fn parse(source: &str, what: &str) -> naga::Module {
    naga::front::wgsl::parse_str(source).unwrap_or_else(|e| panic!("{what}: {}", e.emit_to_string(source)))
}

fn validate(module: naga::Module, source: &str, what: &str) -> (naga::Module, ModuleInfo) {
    let capabilities = Capabilities::IMMEDIATES
        | Capabilities::SHADER_FLOAT16
        | Capabilities::SHADER_FLOAT16_IN_FLOAT32
        | Capabilities::SUBGROUP
        | Capabilities::COOPERATIVE_MATRIX;
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all())
        .validate(&module)
        .unwrap_or_else(|e| panic!("{what}: {}", e.emit_to_string(source)));
    (module, info)
}

/// What every backend is given; HLSL has no cooperative matrices.
fn write_all(module: &naga::Module, info: &ModuleInfo, has_coop: bool, what: &str) {
    spv::write_vec(module, info, &spv::Options::default(), None).unwrap_or_else(|e| panic!("{what}: SPIR-V: {e}"));
    let mut msl_options = msl::Options { lang_version: (3, 0), fake_missing_bindings: true, ..Default::default() };
    msl_options.bounds_check_policies = Default::default();
    msl::write_string(module, info, &msl_options, &msl::PipelineOptions::default())
        .unwrap_or_else(|e| panic!("{what}: MSL: {e}"));
    if has_coop {
        return;
    }
    let hlsl_options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_2,
        immediates_target: Some(hlsl::BindTarget { space: 1, ..Default::default() }),
        ..Default::default()
    };
    let pipeline_options = hlsl::PipelineOptions::default();
    hlsl::Writer::new(&mut String::new(), &hlsl_options, &pipeline_options)
        .write(module, info, None)
        .unwrap_or_else(|e| panic!("{what}: HLSL: {e}"));
}

fn check_bindings(module: &naga::Module, kernel: &Kernel, what: &str) {
    let mut met = vec![None; kernel.bindings.len()];
    for (_, variable) in module.global_variables.iter() {
        let (Some(binding), naga::AddressSpace::Storage { access }) = (&variable.binding, variable.space) else {
            continue;
        };
        assert_eq!(binding.group, 0, "{what}");
        let read_write = access.contains(naga::StorageAccess::STORE);
        met[binding.binding as usize] = Some(if read_write { Access::ReadWrite } else { Access::Read });
    }
    let wanted: Vec<_> = kernel.bindings.iter().copied().map(Some).collect();
    assert_eq!(met, wanted, "{what}: bindings");
}

fn check_struct(module: &naga::Module, layout: &StructLayout, what: &str) {
    let (_, ty) = module
        .types
        .iter()
        .find(|(_, ty)| ty.name.as_deref() == Some(layout.name))
        .unwrap_or_else(|| panic!("{what}: no struct {}", layout.name));
    let naga::TypeInner::Struct { members, span } = &ty.inner else { panic!("{what}: {} is no struct", layout.name) };
    let met: Vec<_> = members
        .iter()
        .map(|member| {
            let naga::TypeInner::Scalar(scalar) = module.types[member.ty].inner else {
                panic!("{what}: {} is no scalar", layout.name)
            };
            let scalar = match (scalar.kind, scalar.width) {
                (naga::ScalarKind::Uint, 4) => Scalar::U32,
                (naga::ScalarKind::Sint, 4) => Scalar::I32,
                (naga::ScalarKind::Float, 4) => Scalar::F32,
                other => panic!("{what}: {}: {other:?}", layout.name),
            };
            (member.name.clone().unwrap_or_default(), member.offset as usize, scalar)
        })
        .collect();
    let wanted: Vec<_> = layout.fields.iter().map(|f| (f.name.to_owned(), f.offset, f.scalar)).collect();
    assert_eq!(met, wanted, "{what}: fields of {}", layout.name);
    assert_eq!(*span as usize, layout.bytes, "{what}: size of {}", layout.name);
}

/// Shapes whose legal schedules together cover the space: every head stride for attention, one large shape otherwise.
fn shapes(kernel: &Kernel) -> Vec<Vec<u32>> {
    match kernel.dims.last() {
        Some(&"word_values") => {
            let strides = raglan_shaders::attention::HEAD_STRIDES;
            strides.iter().flat_map(|&stride| [8, 16].map(|word_values| vec![64, 64, stride, word_values])).collect()
        }
        _ => vec![vec![512; kernel.dims.len()]],
    }
}

fn schedules(kernel: &Kernel) -> Vec<Schedule> {
    let mut seen = HashSet::new();
    let all = shapes(kernel).into_iter().flat_map(|shape| kernel.legal_schedules(&AdapterLimits::most(), &shape));
    all.filter(|schedule| seen.insert(schedule.clone())).collect()
}

/// Every choice of parts.
fn part_choices(kernel: &Kernel) -> Vec<Vec<Part>> {
    kernel.parts.iter().fold(vec![Vec::new()], |choices, &kind| {
        let with = |choice: &Vec<Part>, part| choice.iter().copied().chain([part]).collect();
        choices.iter().flat_map(|choice| Part::all(kind).into_iter().map(move |part| with(choice, part))).collect()
    })
}

fn check(kernel: &'static Kernel, parts: &[Part], schedule: Schedule, write: bool) {
    let variant = kernel.variant(parts, schedule);
    let what = variant.to_string();
    let source = link(&variant);
    let has_coop = parts.iter().any(|part| part.needs_coop());
    let (module, info) = validate(parse(&source, &what), &source, &what);
    let mut unrolled = module.clone();
    unroll(&mut unrolled);
    let (unrolled, unrolled_info) = validate(unrolled, &source, &format!("{what}, unrolled"));
    if write {
        write_all(&module, &info, has_coop, &what);
        write_all(&unrolled, &unrolled_info, has_coop, &format!("{what}, unrolled"));
    }
    check_bindings(&module, kernel, &what);
    check_struct(&module, &kernel.immediates, &what);
    kernel.structs.iter().for_each(|layout| check_struct(&module, layout, &what));
    let entries: Vec<_> = module.entry_points.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(entries, [kernel.name], "{what}: entry points");
}

/// Parts only bring declarations and schedules only constants, so the two are not crossed in full: every schedule meets the
/// first parts and one other choice, every choice of parts the default schedule and a few others, and the three writers see
/// every schedule with the first parts and every choice of parts with the default schedule.
#[test]
fn every_kernel_links_with_every_part_and_legal_schedule() {
    let mut checked = 0;
    for &kernel in ALL {
        let choices = part_choices(kernel);
        for (j, schedule) in schedules(kernel).into_iter().enumerate() {
            for (i, parts) in choices.iter().enumerate() {
                let is_written = i == 0 || j == 0;
                if is_written || i == j % choices.len() {
                    check(kernel, parts, schedule.clone(), is_written);
                    checked += 1;
                }
            }
        }
    }
    println!("{checked} variants");
}

#[test]
fn every_file_of_the_parts_is_linked_by_some_kernel() {
    let parts = ALL.iter().flat_map(|kernel| kernel.parts).flat_map(|&kind| Part::all(kind)).map(Part::source);
    let linked: Vec<_> = ALL.iter().map(|kernel| kernel.source).chain(parts).collect();
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/parts")).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(linked.iter().any(|source| source.contains(&text)), "nothing links {}", path.display());
    }
}

#[test]
fn every_default_schedule_is_legal_on_the_least_adapter() {
    // The least adapter has no cooperative matrices.
    for &kernel in ALL.iter().filter(|kernel| !kernel.parts.contains(&PartKind::Coop)) {
        let shape = &shapes(kernel)[0];
        assert!((kernel.legal)(&AdapterLimits::least(), shape, &kernel.default_schedule()), "{}", kernel.name);
    }
}

#[test]
fn names_are_unique_and_tunables_have_distinct_values() {
    let names: BTreeSet<_> = ALL.iter().map(|kernel| kernel.name).collect();
    assert_eq!(names.len(), ALL.len());
    for tunable in ALL.iter().flat_map(|kernel| kernel.tunables) {
        let values: BTreeSet<_> = tunable.values.iter().collect();
        assert_eq!(values.len(), tunable.values.len(), "{}", tunable.name);
    }
}

#[test]
fn a_part_of_the_wrong_kind_is_refused() {
    let kernel = raglan_shaders::rms_norm::KERNEL.default_schedule();
    let wrong = std::panic::catch_unwind(|| -> Variant {
        raglan_shaders::rms_norm::KERNEL.variant(&[Part::ReduceShared, Part::ActF32], kernel)
    });
    assert!(wrong.is_err());
}
