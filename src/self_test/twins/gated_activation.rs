//! Twin test of `gated_activation.wgsl`.

use crate::self_test::data::{is_f16, load, store};
use crate::self_test::rig::{Failure, Rig};
use raglan_shaders::gated_activation::{GatedActivationParams, KERNEL, twin, workgroups};
use raglan_shaders::{Schedule, Tolerance, Wanted, accuracy};

/// Gates at which a careless formula overflows: exp is infinite from 89 on, tanh's exponentials from 45 on.
const EXTREMES: [f32; 12] = [0.0, 45.0, -45.0, 87.0, -87.0, 89.0, -89.0, 105.0, -105.0, 1e4, -1e4, -0.0];

pub(super) fn check(rig: &Rig<'_>) -> Result<(), Failure> {
    for schedule in rig.schedules(&KERNEL, &[8, 64]) {
        let lanes = schedule.values[0] as usize;
        for activation in [0, 1] {
            for (index, quads) in [1, lanes - 1, lanes, lanes + 1, 131].into_iter().enumerate() {
                let mut random = rig.random(index);
                let (rows, stride) = (3, 2 * 4 * quads + 32);
                let gate_up: Vec<f32> = random.values(rows * stride).iter().map(|value| value * 8.0).collect();
                case(rig, &schedule, activation, quads, rows, &gate_up)?;
            }
            // Alone, since the largest result bounds the error of all.
            for gate in EXTREMES {
                let gate_up: Vec<f32> = [[gate; 4], [1e4, -1e4, 1.0, 0.0]].concat();
                case(rig, &schedule, activation, 1, 1, &gate_up)?;
            }
        }
    }
    Ok(())
}

fn case(
    rig: &Rig<'_>,
    schedule: &Schedule,
    activation: u32,
    quads: usize,
    rows: usize,
    gate_up: &[f32],
) -> Result<(), Failure> {
    let stride = gate_up.len() / rows;
    let params = GatedActivationParams {
        rows: rows as u32,
        quads: quads as u32,
        up_quads: (stride / 4 - quads) as u32,
        stride_quads: (stride / 4) as u32,
        activation,
    };
    let variant = KERNEL.variant(&[rig.act], schedule.clone());
    let out = store(rig.act, &vec![0.0; rows * 4 * quads]).bytes;
    let inputs: [&[u8]; 2] = [bytemuck::cast_slice(gate_up), &out];
    let met = rig.run(&variant, &inputs, bytemuck::bytes_of(&params), workgroups(&params, schedule))?;

    let mut want = Wanted::default();
    for row in gate_up.chunks_exact(stride) {
        for col in 0..4 * quads {
            let (gate, up) = (f64::from(row[col]), f64::from(row[stride - 4 * quads + col]));
            let value = twin(&params, gate, up);
            want.values.push(value);
            want.scale.push(value.abs());
            want.inherited.push(match activation {
                // Past 2¹²⁶ WGSL promises nothing of a quotient: it may be zero.
                0 if (-gate).exp() > 2f64.powi(126) => value.abs(),
                // d silu / silu = -d exp / (1 + exp), exp of -gate.
                0 => value.abs() * accuracy::exp(gate) / (1.0 + gate.exp()),
                _ => 0.5 * (gate * up).abs() * accuracy::TANH,
            });
        }
    }
    // Additions: 1 + exp; or the polynomial in tanh, and 1 + tanh.
    let tolerance = Tolerance::f32(2);
    let tolerance = if is_f16(rig.act) { tolerance.stored_f16() } else { tolerance };
    let what = || {
        format!(
            "{variant}, activation {activation}, {rows} × {quads} quads, gate {} first, turn {}",
            gate_up[0], rig.turn
        )
    };
    let met = load(rig.act, &met[0]);
    for (met, index) in met.chunks_exact(4 * quads).zip(0..) {
        let part = |values: &[f64]| values[index * 4 * quads..][..4 * quads].to_vec();
        let want = Wanted { values: part(&want.values), scale: part(&want.scale), inherited: part(&want.inherited) };
        rig.compare(what, tolerance, met, &want)?;
    }
    Ok(())
}
