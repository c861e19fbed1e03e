//! The MLP: features → hidden → hidden → a number for each candidate, plus a line in each candidate's traits.
//!
//! A layer holds, for each of its inputs, the weights to all outputs, in blocks: the innermost loop runs over outputs,
//! which compilers turn into vectors without any leave to change the order of additions.

use rand::Rng;

use crate::MOST_CANDIDATES;
use crate::numbers::{BLOCK, Block};
use crate::prior::{Lanes, TRAITS};

/// Blocks of the widest output.
pub(crate) const MOST_OUTPUTS: usize = MOST_CANDIDATES / BLOCK;

/// Sizes of an MLP, in features and in blocks of [`BLOCK`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) inputs: usize,
    pub(crate) hidden: usize,
    pub(crate) outputs: usize,
}

impl Sizes {
    /// Where the parts of the parameters begin, in blocks: three layers of weights and biases, the traits' and the end.
    pub(crate) fn parts(&self) -> [usize; 10] {
        let lens = [
            self.inputs * self.hidden,
            self.hidden,
            self.hidden * BLOCK * self.hidden,
            self.hidden,
            self.hidden * BLOCK * self.outputs,
            self.outputs,
            TRAITS * self.outputs,
            self.hidden * BLOCK,
            1,
        ];
        let mut parts = [0; 10];
        for (at, len) in lens.iter().enumerate() {
            parts[at + 1] = parts[at] + len;
        }
        parts
    }
}

/// An MLP's parameters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mlp {
    pub(crate) sizes: Sizes,
    /// In the order of [`Sizes::parts`].
    pub(crate) blocks: Vec<Block>,
}

/// What the layers held for one shape.
pub(crate) struct Trace<const H: usize> {
    before: [[Block; H]; 2],
    after: [[Block; H]; 2],
}

impl Mlp {
    /// Of chance in the hidden layers, of zeros in the last, so that it begins by predicting its biases.
    pub(crate) fn new(sizes: Sizes, rng: &mut impl Rng) -> Mlp {
        let parts = sizes.parts();
        let mut blocks = vec![Block::ZERO; parts[9]];
        for (begin, end, inputs) in [(parts[0], parts[1], sizes.inputs), (parts[2], parts[3], sizes.hidden * BLOCK)] {
            let reach = (3.0 / inputs.max(1) as f32).sqrt();
            for block in &mut blocks[begin..end] {
                for weight in &mut block.0 {
                    *weight = reach * (uniform(rng) * 2.0 - 1.0);
                }
            }
        }
        Mlp { sizes, blocks }
    }

    /// Adds the MLP's word to `out`, times `share`.
    #[inline]
    pub(crate) fn add_to(&self, features: &[f32], traits: &[Lanes; TRAITS], share: f32, out: &mut Lanes) {
        match self.sizes.hidden {
            1 => self.add_wide::<1>(features, traits, share, out),
            2 => self.add_wide::<2>(features, traits, share, out),
            _ => self.add_wide::<4>(features, traits, share, out),
        }
    }

    #[inline]
    fn add_wide<const H: usize>(&self, features: &[f32], traits: &[Lanes; TRAITS], share: f32, out: &mut Lanes) {
        let trace = self.hidden::<H>(features);
        match self.sizes.outputs {
            1 => self.last::<H, 1>(&trace, traits, share, out),
            2 => self.last::<H, 2>(&trace, traits, share, out),
            _ => self.last::<H, 3>(&trace, traits, share, out),
        }
    }

    #[inline(always)]
    pub(crate) fn hidden<const H: usize>(&self, features: &[f32]) -> Trace<H> {
        let parts = self.sizes.parts();
        let mut first = first_blocks::<H>(&self.blocks[parts[1]..parts[2]]);
        sums(features, &self.blocks[parts[0]..parts[1]], &mut first);
        let first_after = first.map(activated);
        let second: [Block; H] =
            dense(&first_after, &self.blocks[parts[2]..parts[3]], &self.blocks[parts[3]..parts[4]]);
        Trace { before: [first, second], after: [first_after, second.map(activated)] }
    }

    #[inline(always)]
    pub(crate) fn last<const H: usize, const O: usize>(
        &self,
        trace: &Trace<H>,
        traits: &[Lanes; TRAITS],
        share: f32,
        out: &mut Lanes,
    ) {
        let parts = self.sizes.parts();
        let mut sums: [Block; O] =
            dense(&trace.after[1], &self.blocks[parts[4]..parts[5]], &self.blocks[parts[5]..parts[6]]);
        let (slopes, _) = self.blocks[parts[6]..parts[7]].as_chunks::<O>();
        let [of_shape] =
            dense::<H, 1>(&trace.after[1], &self.blocks[parts[7]..parts[8]], &self.blocks[parts[8]..parts[9]]);
        for ((slopes, values), of_shape) in slopes.iter().zip(traits).zip(of_shape.0) {
            let (values, _) = values.as_chunks::<BLOCK>();
            for at in 0..O {
                for lane in 0..BLOCK {
                    sums[at].0[lane] += (slopes[at].0[lane] + of_shape) * values[at][lane];
                }
            }
        }
        let (out, _) = out.as_chunks_mut::<BLOCK>();
        for (out, sum) in out.iter_mut().zip(&sums) {
            for (out, sum) in out.iter_mut().zip(&sum.0) {
                *out += share * sum;
            }
        }
    }

    /// Adds to `gradient` what `slopes`, the loss's derivatives by the outputs, make of it.
    pub(crate) fn learn<const H: usize, const O: usize>(
        &self,
        features: &[f32],
        traits: &[Lanes; TRAITS],
        trace: &Trace<H>,
        slopes: &[Block; O],
        gradient: &mut [Block],
    ) {
        let parts = self.sizes.parts();
        let mut of_shape = [Block::ZERO];
        for (which, values) in traits.iter().enumerate() {
            let (values, _) = values.as_chunks::<BLOCK>();
            let mut all = Block::ZERO;
            for at in 0..O {
                let sum = &mut gradient[parts[6] + which * O + at].0;
                for lane in 0..BLOCK {
                    let slope = slopes[at].0[lane] * values[at][lane];
                    sum[lane] += slope;
                    all.0[lane] += slope;
                }
            }
            of_shape[0].0[which] = all.0.iter().sum();
        }
        let mut second = self.learn_dense::<H, O>([parts[4], parts[5], parts[6]], trace, 1, slopes, gradient);
        let more = self.learn_dense::<H, 1>([parts[7], parts[8], parts[9]], trace, 1, &of_shape, gradient);
        add_all(&mut second, 1.0, &more);
        let first = self.learn_dense::<H, H>([parts[2], parts[3], parts[4]], trace, 0, &second, gradient);
        let (weights, bias) = gradient[..parts[2]].split_at_mut(parts[1]);
        add_all(bias, 1.0, &first);
        for (weights, x) in weights.chunks_exact_mut(H).zip(features) {
            add_all(weights, *x, &first);
        }
    }

    /// A layer above hidden layer `below`: adds to its gradient, and returns the slopes by what came into the layer below.
    #[inline(always)]
    fn learn_dense<const H: usize, const O: usize>(
        &self,
        [weights, bias, end]: [usize; 3],
        trace: &Trace<H>,
        below: usize,
        slopes: &[Block; O],
        gradient: &mut [Block],
    ) -> [Block; H] {
        add_all(&mut gradient[bias..end], 1.0, slopes);
        let mut back = [Block::ZERO; H];
        for at in 0..H * BLOCK {
            let row = weights + at * O;
            add_all(&mut gradient[row..row + O], trace.after[below][at / BLOCK].0[at % BLOCK], slopes);
            let mut sums = Block::ZERO;
            for (weights, slopes) in self.blocks[row..row + O].iter().zip(slopes) {
                for lane in 0..BLOCK {
                    sums.0[lane] += weights.0[lane] * slopes.0[lane];
                }
            }
            let slope = activation_slope(trace.before[below][at / BLOCK].0[at % BLOCK]);
            back[at / BLOCK].0[at % BLOCK] = slope * sums.0.iter().sum::<f32>();
        }
        back
    }
}

/// A layer's sums over its inputs.
#[inline(always)]
fn sums<const O: usize>(inputs: &[f32], weights: &[Block], sums: &mut [Block; O]) {
    let (rows, _) = weights.as_chunks::<O>();
    for (x, row) in inputs.iter().zip(rows) {
        for (sum, weights) in sums.iter_mut().zip(row) {
            sum.add(*x, weights);
        }
    }
}

#[inline(always)]
fn first_blocks<const O: usize>(blocks: &[Block]) -> [Block; O] {
    let mut first = [Block::ZERO; O];
    first.copy_from_slice(&blocks[..O]);
    first
}

/// A layer over a hidden one.
#[inline(always)]
fn dense<const H: usize, const O: usize>(inputs: &[Block; H], weights: &[Block], bias: &[Block]) -> [Block; O] {
    let mut out = first_blocks::<O>(bias);
    let (rows, _) = weights.as_chunks::<O>();
    let (rows, _) = rows.as_chunks::<BLOCK>();
    for (inputs, rows) in inputs.iter().zip(rows) {
        sums(&inputs.0, rows.as_flattened(), &mut out);
    }
    out
}

fn add_all(to: &mut [Block], factor: f32, from: &[Block]) {
    for (to, from) in to.iter_mut().zip(from) {
        to.add(factor, from);
    }
}

#[inline(always)]
fn activated(before: Block) -> Block {
    let mut after = before;
    for x in &mut after.0 {
        *x = activation(*x);
    }
    after
}

/// Softsign: smooth and bounded as a hyperbolic tangent, for the price of a division.
#[inline(always)]
fn activation(x: f32) -> f32 {
    x / (1.0 + x.abs())
}

fn activation_slope(x: f32) -> f32 {
    let y = 1.0 / (1.0 + x.abs());
    y * y
}

/// From 0 to 1, of the generator's next 24 bits, so the same whatever version draws it.
pub(crate) fn uniform(rng: &mut impl Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 / (1 << 24) as f32
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::Xoshiro256PlusPlus;

    use super::*;

    #[test]
    fn gradients_are_what_differences_say() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(3);
        let sizes = Sizes { inputs: 5, hidden: 2, outputs: 2 };
        let mut mlp = Mlp::new(sizes, &mut rng);
        for block in &mut mlp.blocks {
            for x in &mut block.0 {
                *x += uniform(&mut rng) - 0.5;
            }
        }
        let features = [0.3, -1.0, 2.0, 0.0, 0.7];
        let traits = [[0.2; MOST_CANDIDATES], [0.9; MOST_CANDIDATES], [0.4; MOST_CANDIDATES]];
        let mut slopes = [Block::ZERO; 2];
        slopes.iter_mut().flat_map(|block| &mut block.0).for_each(|x| *x = uniform(&mut rng) - 0.5);
        let loss = |mlp: &Mlp| {
            let mut out = [0.0; MOST_CANDIDATES];
            mlp.add_to(&features, &traits, 1.0, &mut out);
            out.iter().zip(slopes.iter().flat_map(|block| &block.0)).map(|(a, b)| f64::from(a * b)).sum::<f64>()
        };
        let mut gradient = vec![Block::ZERO; mlp.blocks.len()];
        mlp.learn::<2, 2>(&features, &traits, &mlp.hidden::<2>(&features), &slopes, &mut gradient);
        for at in 0..mlp.blocks.len() {
            let lane = at * 7 % BLOCK;
            let mut moved = mlp.clone();
            moved.blocks[at].0[lane] += 0.01;
            let up = loss(&moved);
            moved.blocks[at].0[lane] -= 0.02;
            let difference = (up - loss(&moved)) / 0.02;
            let met = f64::from(gradient[at].0[lane]);
            assert!((met - difference).abs() < 1e-3 + 0.01 * difference.abs(), "block {at}: {met}, {difference}");
        }
    }
}
