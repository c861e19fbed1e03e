//! Lengths of prompts and answers: of real traces where their folder is given, else of distributions with the same moments.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::path::Path;

/// Every workload.
pub(crate) const NAMES: [&str; 7] = ["conv", "code", "arxiv", "sharegpt", "reason", "mix", "vlong"];

/// The lengths of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lengths {
    /// Tokens of the prompt.
    pub(crate) prompt: usize,
    /// Tokens of the answer.
    pub(crate) answer: usize,
}

/// Log-normal lengths with this mean and this median, clamped.
struct LogNormal {
    mean: f64,
    median: f64,
    least: usize,
    most: usize,
}

const fn log_normal(mean: f64, median: f64, least: usize, most: usize) -> LogNormal {
    LogNormal { mean, median, least, most }
}

/// The moments of the Azure conversation trace: prompts, answers.
const CONV: [LogNormal; 2] = [log_normal(1155.0, 1020.0, 3, 14_050), log_normal(211.0, 129.0, 1, 1000)];
/// Of the Azure code trace.
const CODE: [LogNormal; 2] = [log_normal(2048.0, 1500.0, 3, 7437), log_normal(28.0, 13.0, 1, 1899)];
/// Summaries of papers: 2,588 tokens in and 291 out.
const ARXIV: [LogNormal; 2] = [log_normal(2588.0, 2300.0, 200, 8192), log_normal(291.0, 260.0, 20, 1000)];
/// Dialogues as in ShareGPT: short prompts, answers twice as long.
const SHAREGPT: [LogNormal; 2] = [log_normal(161.0, 60.0, 4, 2048), log_normal(338.0, 240.0, 4, 2048)];
/// Reasoning: short prompts, long answers.
const REASON: [LogNormal; 2] = [log_normal(200.0, 120.0, 20, 1500), log_normal(3500.0, 2900.0, 200, 8192)];
/// Answers about very long documents.
const VLONG_ANSWER: LogNormal = log_normal(500.0, 400.0, 50, 2000);

impl LogNormal {
    fn draw(&self, rng: &mut StdRng) -> usize {
        let sigma = (2.0 * (self.mean / self.median).ln()).sqrt();
        let (u, v) = (rng.random::<f64>().max(1e-12), rng.random::<f64>());
        let normal = (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos();
        ((self.median * (sigma * normal).exp()).round() as usize).clamp(self.least, self.most)
    }
}

/// The requests of a workload in order of arrival. A seed draws others, or takes the next part of a trace.
///
/// # Errors
/// The file and line of a trace that cannot be read.
pub(crate) fn requests(name: &str, traces: Option<&Path>, seed: u64) -> Result<Vec<Lengths>, String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let file = |file: &str| traces.map(|dir| dir.join(file));
    let mut conv = |count: usize| match file("AzureLLMInferenceTrace_conv.csv") {
        Some(path) => read(&path, count, seed),
        None => Ok(draw(&mut rng, count, &CONV)),
    };
    Ok(match name {
        "conv" => conv(9000)?,
        "mix" => {
            let mut requests = conv(9000)?;
            for request in &mut requests {
                if rng.random_bool(0.05) {
                    request.prompt = rng.random_range(20_000..=45_000);
                }
            }
            requests
        }
        "code" => match file("AzureLLMInferenceTrace_code.csv") {
            Some(path) => read(&path, 4000, seed)?,
            None => draw(&mut rng, 4000, &CODE),
        },
        "arxiv" => draw(&mut rng, 4000, &ARXIV),
        "sharegpt" => draw(&mut rng, 6000, &SHAREGPT),
        "reason" => draw(&mut rng, 1500, &REASON),
        "vlong" => {
            let mut one =
                |_| Lengths { prompt: rng.random_range(70_000..=190_000), answer: VLONG_ANSWER.draw(&mut rng) };
            (0..240).map(&mut one).collect()
        }
        _ => return Err(format!("no workload {name}: it is one of {}", NAMES.join(", "))),
    })
}

fn draw(rng: &mut StdRng, count: usize, [prompts, answers]: &[LogNormal; 2]) -> Vec<Lengths> {
    (0..count).map(|_| Lengths { prompt: prompts.draw(rng), answer: answers.draw(rng) }).collect()
}

/// The columns ContextTokens and GeneratedTokens of an Azure trace: `count` lines, the part of this number; the trace
/// starts over after its end.
fn read(path: &Path, count: usize, part: u64) -> Result<Vec<Lengths>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut requests = Vec::new();
    for (number, line) in text.lines().enumerate().skip(1) {
        let mut fields = line.split(',').skip(1).map(|field| field.trim().parse::<usize>());
        match (fields.next(), fields.next()) {
            (Some(Ok(prompt)), Some(Ok(answer))) => {
                requests.push(Lengths { prompt: prompt.max(1), answer: answer.max(1) });
            }
            _ => {
                let place = format!("{}:{}", path.display(), number + 1);
                return Err(format!("{place}: met {line:?}, wanted a time and the tokens of prompt and answer"));
            }
        }
    }
    if requests.is_empty() {
        return Err(format!("{}: no requests", path.display()));
    }
    let first = count * part as usize;
    Ok(requests.into_iter().cycle().skip(first).take(count).collect())
}
