//! The wave model: a dispatch runs in waves of as many workgroups as the adapter holds, and a wave takes as long as its
//! bytes or its operations need, whichever is longer.

/// What a dispatch does, whole.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// Read and written.
    pub bytes: f64,
    /// Floating-point operations; a multiply-add counts two.
    pub flops: f64,
    /// Workgroups that run independently; 0 where the dispatch is illegal.
    pub workgroups: f64,
    /// Workgroup memory of each, which bounds how many share a compute unit.
    pub workgroup_bytes: f64,
}

impl Cost {
    /// What a candidate costs that must not run: no workgroups.
    pub const ILLEGAL: Cost = Cost { bytes: 0.0, flops: 0.0, workgroups: 0.0, workgroup_bytes: 0.0 };

    /// No dispatch has more of anything.
    pub(crate) const LARGEST: f32 = 1e18;

    /// Whether the dispatch may run, by what it states: at least one workgroup, and numbers that a dispatch can have.
    pub fn is_legal(&self) -> bool {
        let sound = |x: f32, least: f32| x >= least && x <= Cost::LARGEST;
        let [bytes, flops, workgroups, workgroup_bytes] = self.as_f32();
        sound(bytes, 0.0) && sound(flops, 0.0) && sound(workgroups, 1.0) && sound(workgroup_bytes, 0.0)
    }

    /// Bytes, operations, workgroups and workgroup memory.
    #[inline(always)]
    pub(crate) fn as_f32(&self) -> [f32; 4] {
        [self.bytes as f32, self.flops as f32, self.workgroups as f32, self.workgroup_bytes as f32]
    }
}

/// Constants of a type of adapter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WaveModel {
    /// From the end of one dispatch to the start of a dependent one.
    pub launch_us: f64,
    /// All compute units together.
    pub bytes_per_us: f64,
    /// All compute units together.
    pub flops_per_us: f64,
    /// Workgroups that run at once.
    pub wave: f64,
}

impl WaveModel {
    /// Predicted time in microseconds. A last wave that is not full takes as long as a full one.
    pub fn predict_us(&self, cost: &Cost) -> f64 {
        let workgroups = cost.workgroups.max(1.0);
        let waves = (workgroups / self.wave).ceil();
        let busy_us = (cost.bytes / self.bytes_per_us).max(cost.flops / self.flops_per_us);
        self.launch_us + busy_us * waves * self.wave / workgroups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: WaveModel = WaveModel { launch_us: 2.0, bytes_per_us: 1000.0, flops_per_us: 10_000.0, wave: 100.0 };

    #[test]
    fn a_full_wave_runs_at_the_adapters_rate_and_a_lone_workgroup_at_its_share() {
        let full = Cost { bytes: 1e6, flops: 0.0, workgroups: 100.0, workgroup_bytes: 0.0 };
        assert_eq!(MODEL.predict_us(&full), 1002.0);
        assert_eq!(MODEL.predict_us(&Cost { workgroups: 1.0, ..full }), 100_002.0);
    }

    #[test]
    fn one_workgroup_more_than_a_wave_costs_another_wave() {
        let cost = |workgroups: f64| Cost { bytes: workgroups * 1e4, flops: 0.0, workgroups, workgroup_bytes: 0.0 };
        assert_eq!(MODEL.predict_us(&cost(100.0)), 1002.0);
        assert!((MODEL.predict_us(&cost(101.0)) - 2002.0).abs() < 1e-9);
    }
}
