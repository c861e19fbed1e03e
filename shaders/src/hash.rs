//! A name for the code of kernels: measurements of other code are stale.

use crate::{Kernel, Part};
use sha2::{Digest, Sha256};

/// Hexadecimal digits of a hash.
const DIGITS: usize = 16;

/// The start of the SHA-256 of some kernels' WGSL, of all parts that they may link, and of their tunables' names and values.
/// Comments and indents do not count: they change no time.
pub fn kernel_hash(kernels: &[&Kernel]) -> String {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    for kernel in kernels {
        add(kernel.name);
        add(&code(kernel.source));
        for part in kernel.parts.iter().flat_map(|&kind| Part::all(kind)) {
            add(part.name());
            add(&code(part.source()));
        }
        for tunable in kernel.tunables {
            add(tunable.name);
            add(&format!("{:?}", tunable.values));
        }
    }
    let digest = hash.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()[..DIGITS].to_owned()
}

/// What a compiler sees of WGSL without block comments.
fn code(source: &str) -> String {
    let lines = source.lines().map(|line| line.split("//").next().unwrap_or(line).trim());
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{matmul, matvec};

    #[test]
    fn code_is_the_same_in_other_words() {
        let said = "// one\nfn a() { // two\n    b();\n\n}\n";
        assert_eq!(code(said), code("fn a() {\nb();\n// three\n}"));
        assert_ne!(code(said), code("fn a() {\n    c();\n}"));
        let all = [&matvec::KERNEL, &matmul::KERNEL].map(|kernel| kernel.source).concat();
        assert!(!all.contains("/*"), "no comment but to the end of a line");
    }

    #[test]
    fn a_hash_names_the_kernels_and_their_order() {
        let both = kernel_hash(&[&matvec::KERNEL, &matmul::KERNEL]);
        assert_eq!(both.len(), DIGITS);
        assert_eq!(both, kernel_hash(&[&matvec::KERNEL, &matmul::KERNEL]));
        assert_ne!(both, kernel_hash(&[&matmul::KERNEL]));
    }
}
