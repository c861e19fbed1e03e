//! The allowed direction of imports, read from the sources: who may name whom, as the README's tree says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Each module of the root package, and the modules that it may name. `error` may be named by all.
const ALLOWED: &[(&str, &[&str])] = &[
    ("lib", &["*"]),
    ("main", &["*"]),
    ("cli", &["*"]),
    ("self_test", &["*"]),
    ("bench", &["*"]),
    (
        "tune",
        &[
            "batch",
            "cost",
            "gpu",
            "kv_cache",
            "ops",
            "plan",
            "schedules",
            "segments",
            "weights",
            "tuner",
            "shaders",
            "models",
        ],
    ),
    (
        "engine",
        &[
            "scheduler",
            "segments",
            "plan",
            "cost",
            "decoder",
            "sampler",
            "kv_cache",
            "models",
            "batch",
            "sequence",
            "request",
            "weights",
            "ops",
            "gpu",
            "schedules",
            "tune",
            "shaders",
        ],
    ),
    ("request", &[]),
    ("sequence", &["request", "segments"]),
    ("scheduler", &["segments", "sequence", "batch", "request", "cost", "shaders"]),
    ("segments", &[]),
    ("cost", &["batch", "segments", "tuner", "shaders"]),
    ("schedules", &["tuner", "shaders", "cost"]),
    ("batch", &["segments", "shaders"]),
    ("plan", &["batch", "segments", "tuner", "shaders", "cost", "schedules"]),
    ("decoder", &["ops", "weights", "kv_cache", "batch", "plan", "schedules", "models", "shaders", "gpu"]),
    ("sampler", &["ops", "weights", "kv_cache", "batch", "plan", "models", "shaders", "gpu", "request"]),
    ("weights", &["gpu", "models", "shaders"]),
    ("kv_cache", &["gpu", "models", "segments", "shaders"]),
    ("ops", &["gpu", "plan", "schedules", "shaders", "weights", "kv_cache", "models"]),
    ("gpu", &["wgpu", "shaders"]),
    ("error", &["models", "tuner"]),
];

fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a source folder can be read") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// What a source names of the modules and crates that have a direction; comments and the unit tests at its end left out.
fn named(text: &str, modules: &[&str]) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut heads = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        for item in items(rest) {
            heads.insert(item.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>());
        }
    }
    let mut found: Vec<String> =
        modules.iter().filter(|module| heads.contains(**module)).map(|m| (*m).to_owned()).collect();
    let outside =
        [("raglan_models", "models"), ("raglan_shaders", "shaders"), ("raglan_tuner", "tuner"), ("wgpu", "wgpu")];
    found.extend(
        outside.iter().filter(|(name, _)| code.contains(&format!("{name}::"))).map(|(_, word)| (*word).to_owned()),
    );
    // The crate's own names for what it re-exports.
    found.extend(["models", "shaders"].iter().filter(|word| heads.contains(**word)).map(|word| (*word).to_owned()));
    found
}

/// The paths that follow `crate::`: one, or those of a group, however deep.
fn items(rest: &str) -> Vec<&str> {
    let Some(group) = rest.strip_prefix('{') else { return vec![rest] };
    let (mut depth, mut start, mut items) = (1, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && c == ',') {
            items.push(group[start..at].trim());
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    items
}

fn module_of(file: &Path, root: &Path) -> String {
    let relative = file.strip_prefix(root).expect("a file of the tree");
    let first = relative.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn imports_only_point_in_the_allowed_direction() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let modules: Vec<_> = allowed.keys().copied().collect();
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 20, "the tree was found");
    let mut wrong = Vec::new();
    for file in files {
        let module = module_of(&file, &root);
        let may = allowed
            .get(module.as_str())
            .unwrap_or_else(|| panic!("{module}: give it a line in this test and in the README's tree"));
        let text = std::fs::read_to_string(&file).expect("a source can be read");
        for name in named(&text, &modules) {
            if name != module && name != "error" && !may.contains(&"*") && !may.contains(&name.as_str()) {
                wrong.push(format!("{} names {name}", file.display()));
            }
            if name == "wgpu" && module != "gpu" {
                wrong.push(format!("{} names wgpu", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_imports_sees_what_it_must() {
    let modules = ["gpu", "ops", "plan"];
    assert_eq!(named("use crate::gpu::Gpu;", &modules), ["gpu"]);
    assert_eq!(named("use crate::{ops::Ops, plan::{Plan, Planner}};", &modules), ["ops", "plan"]);
    assert_eq!(
        named("// use crate::gpu::Gpu;\nfn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::ops::Ops;\n}", &modules),
        Vec::<String>::new()
    );
    assert_eq!(named("fn f(x: &wgpu::Buffer) {}", &modules), ["wgpu"]);
    assert_eq!(named("#[cfg(test)]\nmod tests;\nuse crate::{ops::{A, B}, gpu::Gpu};", &modules), ["gpu", "ops"]);
    assert_eq!(named("use crate::shaders::BLOCK;", &modules), ["shaders"]);
    assert_eq!(named("fn f() -> crate::plan::Plan {}", &modules), ["plan"]);
}

/// The ground packages know none of each other, and no package but the root builds wgpu.
#[test]
fn packages_depend_only_downward() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = |package: &str| std::fs::read_to_string(root.join(package).join("Cargo.toml")).expect("a manifest");
    for package in ["models", "shaders", "tuner"] {
        let text = manifest(package);
        for other in ["raglan-models", "raglan-shaders", "raglan-tuner", "raglan-tools", "wgpu"] {
            let named =
                text.lines().any(|line| line.starts_with(other) && !line.starts_with(&format!("raglan-{package}")));
            assert!(!named, "{package} names {other}");
        }
    }
    assert!(!manifest(".").contains("raglan-tools"), "nothing imports tools");
}
