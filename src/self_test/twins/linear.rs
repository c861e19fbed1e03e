//! What the twin tests of products have in common.

use crate::self_test::rig::Rig;
use raglan_shaders::gated_activation::{self, GatedActivationParams};
use raglan_shaders::{Kernel, PartKind, Schedule, Tolerance, Wanted, WeightFormat, accuracy};

/// A bound on the slope of either activation: SiLU's is 1.0998 at most, that of GELU's tanh form 1.1290.
const STEEPEST: f64 = 1.13;

/// Compiling bounds what can be tried. Schedules and weight formats are independent in the source, so f32 sees every value
/// of every tunable in one way of linking, and each other format one schedule in a way, another from way to way.
pub(super) fn schedules(rig: &Rig<'_>, kernel: &'static Kernel, format: WeightFormat) -> Vec<Schedule> {
    let shape = [64, 64, 64];
    let place = WeightFormat::ALL.iter().position(|other| *other == format).unwrap_or(0);
    match format {
        WeightFormat::F32 if rig.turn == 0 => rig.schedules(kernel, &shape),
        _ if is_tried(rig, format) => vec![rig.one_schedule(kernel, &shape, place)],
        WeightFormat::F32 if kernel.parts.contains(&PartKind::Reduce) => vec![rig.one_schedule(kernel, &shape, 0)],
        _ => Vec::new(),
    }
}

/// Whether a format is tried in this way of linking: in four that differ, in two where it differs from another in little.
pub(super) fn is_tried(rig: &Rig<'_>, format: WeightFormat) -> bool {
    use WeightFormat::{I4G32, I4G128, I8G32, I8G128};
    let place = WeightFormat::ALL.iter().position(|other| *other == format).unwrap_or(0);
    match format {
        I4G32 | I4G128 | I8G32 | I8G128 => rig.is_of_two(place),
        _ => rig.is_of_four(),
    }
}

/// activation(gate) · up of columns in turn, with the errors that gate and up may bring.
pub(super) fn wanted_gated(sums: &Wanted, tolerance: Tolerance, activation: u32) -> Wanted {
    let params = GatedActivationParams { activation, ..GatedActivationParams::default() };
    let allowed = tolerance.allowed(sums);
    let mut want = Wanted::default();
    for (pair, errors) in sums.values.chunks_exact(2).zip(allowed.chunks_exact(2)) {
        let ([gate, up], [gate_error, up_error]) = ([pair[0], pair[1]], [errors[0], errors[1]]);
        let activated = gated_activation::twin(&params, gate, 1.0);
        let built_in = match activation {
            0 => activated.abs() * accuracy::exp(gate),
            _ => 0.5 * gate.abs() * accuracy::TANH,
        };
        want.values.push(activated * up);
        want.scale.push((activated * up).abs());
        want.inherited.push(activated.abs() * up_error + (STEEPEST * gate_error + built_in) * (up.abs() + up_error));
    }
    want
}
