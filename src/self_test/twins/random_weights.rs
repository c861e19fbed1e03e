//! Twin test of `random_weights.wgsl`.

use crate::self_test::data::words;
use crate::self_test::rig::{Failure, Rig};
use raglan_shaders::WeightFormat;
use raglan_shaders::random_weights::{KERNEL, RandomWeightsParams, twin, workgroups};

pub(super) fn check(rig: &Rig<'_>) -> Result<(), Failure> {
    for format in WeightFormat::ALL {
        for (index, (cols, first_row, rows)) in [(512, 0, 3), (768, 1000, 37), (256, 3, 1)].into_iter().enumerate() {
            // Floats also with padding columns.
            let cols = if format.block_values() == 1 { cols + 6 } else { cols };
            let params = RandomWeightsParams::rows(format, cols, first_row, rows, 7 + index as u32);
            let variant = KERNEL.variant(&[], rig.one_schedule(&KERNEL, &[params.quads], index));
            // A quad past the last, which no lane may write.
            let out = vec![0xffu8; 16 * (params.quads as usize + 1)];
            let met = rig.run(&variant, &[&out], bytemuck::bytes_of(&params), workgroups(&params))?.remove(0);
            let mut want = twin(&params);
            want.extend([u32::MAX; 4]);
            rig.same(|| format!("{variant}, {format:?}, {rows} rows of {cols}"), &words(&met), &want)?;
        }
    }
    Ok(())
}
