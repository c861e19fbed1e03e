//! Twin test of `column_squares.wgsl`.

use crate::self_test::data::store;
use crate::self_test::rig::{Failure, Rig};
use raglan_shaders::column_squares::{ColumnSquaresParams, KERNEL, twin, workgroups};
use raglan_shaders::{Tolerance, Wanted};

pub(super) fn check(rig: &Rig<'_>) -> Result<(), Failure> {
    for schedule in rig.schedules(&KERNEL, &[37, 64]) {
        let lanes = schedule.values[0] as usize;
        for (index, quads) in [1, lanes - 1, lanes, lanes + 1, 131].into_iter().enumerate() {
            for rows in [1, 37] {
                let mut random = rig.random(index);
                let first = 4 * index;
                let cols = 4 * quads;
                let x = store(rig.act, &random.values(rows * cols));
                let before: Vec<f32> = random.values(cols + first + 4).iter().map(|value| value.abs()).collect();
                let params = ColumnSquaresParams { rows: rows as u32, quads: quads as u32, first: first as u32 / 4 };
                let variant = KERNEL.variant(&[rig.act], schedule.clone());
                let inputs: [&[u8]; 2] = [&x.bytes, bytemuck::cast_slice(&before)];
                let met = rig.run(&variant, &inputs, bytemuck::bytes_of(&params), workgroups(&params, &schedule))?;

                let squares = |(at, before): (usize, &f32)| {
                    let col = at.checked_sub(first).filter(|col| *col < cols);
                    let column = col.into_iter().flat_map(|col| x.values[col..].iter().step_by(cols));
                    twin(f64::from(*before), column.copied())
                };
                let want = Wanted::plain(before.iter().enumerate().map(squares).collect());
                let what = || format!("{variant}, {rows} × {quads} quads from {first}, turn {}", rig.turn);
                rig.compare(what, Tolerance::f32(rows), bytemuck::cast_slice(&met[0]), &want)?;
            }
        }
    }
    Ok(())
}
