//! `make-checkpoint --config config.json --format Q4_K OUT`: a checkpoint of random numbers.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use raglan_models::Format;
use raglan_tools::make_checkpoint::{Recipe, make};

/// Writes a checkpoint of random numbers in the shapes of a config.json: a .gguf file where OUT ends so, else a folder.
#[derive(Parser)]
struct Arguments {
    /// The config.json that says family and shapes.
    #[arg(long)]
    config: PathBuf,
    /// How matrices are stored: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K.
    #[arg(long, default_value = "F16", value_parser = format)]
    format: Format,
    /// The same seed gives the same bytes.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What to write.
    out: PathBuf,
}

fn format(name: &str) -> Result<Format, String> {
    let formats = || Format::ALL.into_iter().filter(|format| format.is_in_gguf());
    let known = formats().find(|format| format.name().eq_ignore_ascii_case(name));
    known.ok_or_else(|| format!("one of {}", formats().map(Format::name).collect::<Vec<_>>().join(", ")))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let recipe = Recipe { config: arguments.config, format: arguments.format, seed: arguments.seed };
    match make(&recipe, &arguments.out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("make-checkpoint: {error}");
            ExitCode::FAILURE
        }
    }
}
