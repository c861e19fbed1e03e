//! Twin test of `rotate_heads.wgsl`.

use crate::self_test::data::{is_f16, load, store};
use crate::self_test::rig::{Failure, Rig};
use raglan_shaders::kv_rows::rotate;
use raglan_shaders::rotate_heads::{KERNEL, RotateHeadsParams};
use raglan_shaders::{Tolerance, Wanted, rotation};

const UNTOUCHED: f32 = 1234.0;

pub(super) fn check(rig: &Rig<'_>) -> Result<(), Failure> {
    if !rig.is_of_four() {
        return Ok(());
    }
    for (index, (rows, heads, head_dim)) in
        [(1, 1, 64), (5, 3, 80), (2, 2, 128), (3, 1, 256), (2, 4, 20), (1, 2, 33), (7, 1, 2), (2, 2, 96)]
            .into_iter()
            .enumerate()
    {
        let mut random = rig.random(index);
        let cols: usize = heads * head_dim;
        let stride: usize = (cols + 3) / 2 * 2;
        let mut values = vec![UNTOUCHED; rows * stride];
        values.chunks_exact_mut(stride).for_each(|row| row[..cols].copy_from_slice(&random.values(cols)));
        let x = store(rig.act, &values);
        let params =
            RotateHeadsParams { head_dim: head_dim as u32, rotation: rotation(head_dim) as u32, stride: stride as u32 };
        let groups = [rows as u32, heads as u32, 1];
        for schedule in rig.schedules(&KERNEL, &[groups[0], groups[1]]) {
            let variant = KERNEL.variant(&[rig.act], schedule);
            let met = rig.run(&variant, &[&x.bytes], bytemuck::bytes_of(&params), groups)?;
            let mut want = Wanted::default();
            for head in x.values.chunks_exact(stride).flat_map(|row| row[..cols].chunks_exact(head_dim)) {
                let mut turned = head.to_vec();
                rotate(&mut turned, rotation(head_dim));
                // Every column of a block is in each of its sums.
                let size = |block: &[f64]| block.iter().map(|x| x.abs()).sum::<f64>() / (block.len() as f64).sqrt();
                want.values.extend(turned);
                want.scale
                    .extend(head.chunks_exact(rotation(head_dim)).flat_map(|block| vec![size(block); block.len()]));
            }
            want.inherited = vec![0.0; want.values.len()];
            let places: Vec<usize> = (0..rows).flat_map(|row| row * stride..row * stride + cols).collect();
            let tolerance = Tolerance::f32(rotation(head_dim));
            let tolerance = if is_f16(rig.act) { tolerance.stored_f16() } else { tolerance };
            let what = || format!("{variant}, {rows} × {heads} heads of {head_dim}, seed {}", random.seed);
            rig.compare_places(what, tolerance, &load(rig.act, &met[0]), (&places, UNTOUCHED), &want)?;
        }
    }
    Ok(())
}
