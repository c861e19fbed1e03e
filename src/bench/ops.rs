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
    /// The rate of bytes over the adapter's read rate.
    pub share_of_read: f64,
    /// The rate of operations over the adapter's rate of cooperative matrices, where it has them.
    pub share_of_matrix: Option<f64>,
    /// What of the time is the wait for the dispatch before.
    pub drain_us: f64,
    /// The same of all in a step.
    pub step_drain_us: f64,
    /// Of attention that was split: the attention of a layer and the merge behind it, median.
    pub with_merge_us: Option<f64>,
    /// The least time of that attention over the time with the merge.
    pub share_with_merge: Option<f64>,
}

/// What the attention of a layer takes with its merge.
#[derive(Debug, Clone, Copy)]
struct Merged {
    us: f64,
    /// The least time of the attention alone.
    limit_us: f64,
}

/// Dispatches of one kind.
type Group<'a> = Vec<(&'a Timed, Option<Merged>)>;

/// Sums timed dispatches of `steps` up, in the order in which each kind comes first.
pub(super) fn sum_up(timed: &[Timed], steps: usize, rates: &Rates) -> Vec<OpRow> {
    let mut groups: Vec<(String, Group<'_>)> = Vec::new();
    for timed in timed.iter().zip(merged(timed, rates)) {
        let (timed, with_merge) = timed;
        let key = format!("{} {} {:?}", timed.variant, timed.work.label, kind(&timed.work));
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, group)) => group.push((timed, with_merge)),
            None => groups.push((key, vec![(timed, with_merge)])),
        }
    }
    let total_us: f64 = timed.iter().map(|timed| timed.ns as f64 / 1e3).sum();
    groups.iter().map(|(_, group)| row(group, steps.max(1) as f64, total_us, rates)).collect()
}

/// Of each dispatch of attention that a merge follows: all the attention between the op before and that merge, with it.
fn merged(timed: &[Timed], rates: &Rates) -> Vec<Option<Merged>> {
    let mut all = vec![None; timed.len()];
    let mut first = 0;
    for (index, last) in timed.iter().enumerate() {
        if last.work.label == "merge" {
            let us = timed[first..=index].iter().map(|timed| timed.ns as f64 / 1e3).sum();
            let limit_us = timed[first..index].iter().map(|timed| rates.limit_us(&timed.work)).sum();
            all[first..index].fill(Some(Merged { us, limit_us }));
        }
        if last.work.label != "attention" {
            first = index + 1;
        }
    }
    all
}

fn row(group: &[(&Timed, Option<Merged>)], steps: f64, total_us: f64, rates: &Rates) -> OpRow {
    let us: Vec<f64> = group.iter().map(|(timed, _)| timed.ns as f64 / 1e3).collect();
    let median = |of: fn(Merged) -> f64| {
        let values: Vec<f64> = group.iter().filter_map(|(_, merged)| merged.map(of)).collect();
        if values.is_empty() { None } else { Some(Spread::of(&values).median) }
    };
    let spread = Spread::of(&us);
    // Keys become more from step to step; the middle dispatch stands for all.
    let work = &group[group.len() / 2].0.work;
    let (sum_us, limit_us) = (us.iter().sum::<f64>(), rates.limit_us(work));
    let seconds = spread.median.max(1e-3) / 1e6;
    let (bytes_per_s, flops_per_s) = (work.bytes() as f64 / seconds, work.flops as f64 / seconds);
    let (dispatches, drain_us) = (group.len() as f64 / steps, rates.drain_us.min(spread.median));
    OpRow {
        op: work.label,
        kernel: group[0].0.variant.to_string(),
        shape: shape(work),
        dispatches,
        us: spread.median,
        us_min: spread.min,
        us_max: spread.max,
        step_us: sum_us / steps,
        share_of_step: sum_us / total_us.max(1e-3),
        bytes: work.bytes(),
        flops: work.flops,
        gb_per_s: bytes_per_s / 1e9,
        tflop_per_s: flops_per_s / 1e12,
        limit_us,
        share_of_limit: limit_us / (1e6 * seconds),
        share_of_read: bytes_per_s / rates.read_bytes_per_s,
        share_of_matrix: rates.matrix_flops_per_s.map(|rate| flops_per_s / rate),
        drain_us,
        step_drain_us: dispatches * drain_us,
        with_merge_us: median(|merged| merged.us),
        share_with_merge: median(|merged| merged.limit_us / merged.us.max(1e-3)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use raglan_shaders::measure::copy::KERNEL;

    #[test]
    fn attention_that_was_split_is_seen_with_the_merge_of_its_own_layer() {
        let rates = Rates {
            read_bytes_per_s: 1e9,
            copy_bytes_per_s: 1e9,
            f32_flops_per_s: 1e9,
            f16_flops_per_s: None,
            int8_ops_per_s: 1e9,
            matrix_flops_per_s: None,
            launch_us: 0.0,
            drain_us: 0.5,
        };
        let timed = |label: &'static str, rows: u32, us: u64| Timed {
            variant: KERNEL.variant(&[], KERNEL.default_schedule()),
            workgroups: [1, 1, 1],
            work: Work { label, shape: [rows, 0, 4], read_bytes: 1000, ..Work::default() },
            ns: 1000 * us,
        };
        // A layer of two forms, of which one was split; a layer where nothing was; a merge again.
        let steps = [
            timed("linear", 9, 7),
            timed("attention", 1, 2),
            timed("attention", 9, 3),
            timed("merge", 1, 5),
            timed("linear", 9, 7),
            timed("attention", 5, 4),
            timed("linear", 9, 7),
            timed("attention", 1, 2),
            timed("merge", 1, 6),
        ];
        let rows = sum_up(&steps, 1, &rates);
        let met = |op: &str, rows_of: &str| {
            let found = rows.iter().find(|row| row.op == op && row.shape.starts_with(rows_of));
            found.map(|row| (row.with_merge_us, row.share_with_merge))
        };
        // 2 + 3 + 5 µs and 2 + 6 µs, of which 2 and 1 are needed.
        assert_eq!(met("attention", "rows 1"), Some((Some(9.0), Some(0.1625))));
        assert_eq!(met("attention", "rows 9"), Some((Some(10.0), Some(0.2))));
        assert_eq!(met("attention", "rows 5"), Some((None, None)));
        assert_eq!(met("merge", "rows 1"), Some((None, None)));
        assert_eq!(rows[0].step_drain_us, 1.5, "three products wait");
    }
}
