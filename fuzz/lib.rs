//! What is fuzzed, compiled without the GPU and all that it brings along.

/// The modules of the root package that need nothing else of it.
#[path = "../src"]
pub mod raglan {
    pub mod segments;
}
