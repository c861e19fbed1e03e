//! Timed dispatches by what they do.

use super::Spread;
use crate::cost::Rates;
use crate::gpu::Timed;
use raglan_shaders::Work;

/// Dispatches of one kernel that do the same.
#[derive(Debug, Clone, serde::Serialize)]
pub struct OpRow {
    /// What they do: `linear`, say.
    pub op: &'static str,
    /// Kernel, parts and schedule.
    pub kernel: String,
    /// `rows`, `cols`, `inner` and so on, with their numbers.
    pub shape: String,
    /// How many a step has.
    pub dispatches: f64,
    /// One of them: median.
    pub us: f64,
    /// The least.
    pub us_min: f64,
    /// The largest.
    pub us_max: f64,
    /// All of a step.
    pub step_us: f64,
    /// Their share of the time of all timed dispatches of a step.
    pub share_of_step: f64,
    /// Bytes of one dispatch.
    pub bytes: u64,
    /// Operations of one dispatch.
    pub flops: u64,
    /// What was read and written, 10⁹ bytes a second.
    pub gb_per_s: f64,
    /// What was multiplied, 10¹² operations a second.
    pub tflop_per_s: f64,
    /// The least time at the adapter's rates.
    pub limit_us: f64,
    /// The least time over the time.
    pub share_of_limit: f64,
    /// What of the time is the wait for the dispatch before.
    pub drain_us: f64,
}

/// Sums timed dispatches of `steps` up, in the order in which each kind comes first.
pub(super) fn sum_up(timed: &[Timed], steps: usize, rates: &Rates) -> Vec<OpRow> {
    let mut groups: Vec<(String, Vec<&Timed>)> = Vec::new();
    for timed in timed {
        let key = format!("{} {} {:?}", timed.variant, timed.work.label, kind(&timed.work));
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, group)) => group.push(timed),
            None => groups.push((key, vec![timed])),
        }
    }
    let total_us: f64 = timed.iter().map(|timed| timed.ns as f64 / 1e3).sum();
    groups.iter().map(|(_, group)| row(group, steps.max(1) as f64, total_us, rates)).collect()
}

fn row(group: &[&Timed], steps: f64, total_us: f64, rates: &Rates) -> OpRow {
    let us: Vec<f64> = group.iter().map(|timed| timed.ns as f64 / 1e3).collect();
    let spread = Spread::of(&us);
    // Keys become more from step to step; the middle dispatch stands for all.
    let work = &group[group.len() / 2].work;
    let (sum_us, limit_us) = (us.iter().sum::<f64>(), rates.limit_us(work));
    let seconds = spread.median.max(1e-3) / 1e6;
    OpRow {
        op: work.label,
        kernel: group[0].variant.to_string(),
        shape: shape(work),
        dispatches: group.len() as f64 / steps,
        us: spread.median,
        us_min: spread.min,
        us_max: spread.max,
        step_us: sum_us / steps,
        share_of_step: sum_us / total_us.max(1e-3),
        bytes: work.bytes(),
        flops: work.flops,
        gb_per_s: work.bytes() as f64 / seconds / 1e9,
        tflop_per_s: work.flops as f64 / seconds / 1e12,
        limit_us,
        share_of_limit: limit_us / (1e6 * seconds),
        drain_us: rates.drain_us.min(spread.median),
    }
}

/// What of a shape stays the same from step to step.
fn kind(work: &Work) -> [u32; 3] {
    match work.label {
        "attention" | "merge" => [work.shape[0], 0, work.shape[2]],
        _ => work.shape,
    }
}

/// `rows 1, cols 4096, inner 4096`
fn shape(work: &Work) -> String {
    let words = Work::shape_words(work.label);
    let parts = words.iter().zip(work.shape).filter(|(word, size)| !word.is_empty() && *size > 0);
    parts.map(|(word, size)| format!("{word} {size}")).collect::<Vec<_>>().join(", ")
}
