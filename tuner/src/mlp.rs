//! The MLP: features → hidden → hidden → a number for each candidate, plus a line in each candidate's traits whose slope is
//! the candidate's own and the shape's.
//!
//! A layer holds, for each of its inputs, the weights to all outputs, in blocks: the innermost loop runs over outputs,
//! which compilers turn into vectors without any leave to change the order of additions.

use rand::Rng;

use crate::MOST_CANDIDATES;
use crate::numbers::{BLOCK, Block, QUAD, Quad};
use crate::prior::{Lanes, TRAITS};

/// Blocks of the widest output.
pub(crate) const MOST_OUTPUTS: usize = MOST_CANDIDATES / BLOCK;

/// Blocks of the widest hidden layer.
pub(crate) const MOST_HIDDEN: usize = 2;
/// Numbers of a row of the layer that weighs traits by shape: [`TRAITS`] and a place that is not used.
pub(crate) const TRAIT_ROW: usize = 4;

/// Sizes of an MLP, in features and in blocks of [`BLOCK`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) inputs: usize,
    pub(crate) first: usize,
    pub(crate) second: usize,
    pub(crate) outputs: usize,
}

/// Where the parts of an MLP's parameters begin, in blocks; a layer's biases follow its weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts {
    pub(crate) first: [usize; 2],
    pub(crate) second: [usize; 2],
    pub(crate) last: [usize; 2],
    /// A row a trait: its slope for each candidate.
    pub(crate) traits: usize,
    /// Rows of [`TRAIT_ROW`] from the second hidden layer to slopes that all candidates share.
    pub(crate) shared: [usize; 2],
    pub(crate) end: usize,
}

impl Sizes {
    #[inline(always)]
    pub(crate) fn parts(&self) -> Parts {
        let Sizes { inputs, first: f, second: s, outputs } = *self;
        let first = [0, inputs * f];
        let second = [first[1] + f, first[1] + f + f * BLOCK * s];
        let last = [second[1] + s, second[1] + s + s * BLOCK * outputs];
        let traits = last[1] + outputs;
        let shared = [traits + TRAITS * outputs, traits + TRAITS * outputs + s * TRAIT_ROW];
        Parts { first, second, last, traits, shared, end: shared[1] + 1 }
    }
}

/// An MLP's parameters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mlp {
    pub(crate) sizes: Sizes,
    /// As [`Parts`] says.
    pub(crate) blocks: Vec<Block>,
}

/// What the hidden layers held for one shape, before and after the activation.
pub(crate) struct Trace<const F: usize, const S: usize> {
    first: [[Block; F]; 2],
    second: [[Block; S]; 2],
}

impl Mlp {
    /// Of chance in the hidden layers, of zeros in the last, so that it begins by predicting its biases.
    pub(crate) fn new(sizes: Sizes, rng: &mut impl Rng) -> Mlp {
        let parts = sizes.parts();
        let mut blocks = vec![Block::ZERO; parts.end];
        for ([begin, end], inputs) in [(parts.first, sizes.inputs), (parts.second, sizes.first * BLOCK)] {
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
        let Sizes { first, second, outputs, .. } = self.sizes;
        match (first, second, outputs) {
            (1, _, 1) => self.add_sized::<1, 1, 1>(features, traits, share, out),
            (1, _, 2) => self.add_sized::<1, 1, 2>(features, traits, share, out),
            (1, _, _) => self.add_sized::<1, 1, 3>(features, traits, share, out),
            (2, 1, 1) => self.add_sized::<2, 1, 1>(features, traits, share, out),
            (2, 1, 2) => self.add_sized::<2, 1, 2>(features, traits, share, out),
            (2, 1, _) => self.add_sized::<2, 1, 3>(features, traits, share, out),
            (2, _, 1) => self.add_sized::<2, 2, 1>(features, traits, share, out),
            (2, _, 2) => self.add_sized::<2, 2, 2>(features, traits, share, out),
            _ => self.add_sized::<2, 2, 3>(features, traits, share, out),
        }
    }

    /// The same word, but so much less.
    pub(crate) fn quieter(mut self, share: f32) -> Mlp {
        let begin = self.sizes.parts().last[0];
        for x in self.blocks[begin..].iter_mut().flat_map(|block| &mut block.0) {
            *x *= share;
        }
        self
    }

    // Apart, so that the code of one size lies together.
    #[inline(never)]
    fn add_sized<const F: usize, const S: usize, const O: usize>(
        &self,
        features: &[f32],
        traits: &[Lanes; TRAITS],
        share: f32,
        out: &mut Lanes,
    ) {
        let trace = self.hidden::<F, S>(features);
        self.last::<F, S, O>(&trace, traits, share, out);
    }

    #[inline(always)]
    pub(crate) fn hidden<const F: usize, const S: usize>(&self, features: &[f32]) -> Trace<F, S> {
        let Parts { first: [weights, bias], second, .. } = self.sizes.parts();
        let (rows, _) = self.blocks[weights..bias].as_chunks::<F>();
        let first = layer(&sums::<F>(features, rows, &self.blocks[bias..]));
        let (rows, _) = self.blocks[second[0]..second[1]].as_chunks::<S>();
        let second = layer(&sums::<S>(first[1].as_flattened_numbers(), rows, &self.blocks[second[1]..]));
        Trace { first, second }
    }

    #[inline(always)]
    pub(crate) fn last<const F: usize, const S: usize, const O: usize>(
        &self,
        trace: &Trace<F, S>,
        traits: &[Lanes; TRAITS],
        share: f32,
        out: &mut Lanes,
    ) {
        let parts = self.sizes.parts();
        let hidden = trace.second[1].as_flattened_numbers();
        let shared = self.shared(hidden);
        let (rows, _) = self.blocks[parts.last[0]..parts.last[1]].as_chunks::<O>();
        let (slopes, _) = self.blocks[parts.traits..parts.shared[0]].as_chunks::<O>();
        let biases = &self.blocks[parts.last[1]..parts.traits];
        let (out, _) = out.as_chunks_mut::<BLOCK>();
        let sums = sums(hidden, rows, biases);
        for (at, (sums, out)) in sums.into_iter().zip(out).enumerate() {
            with_traits(sums, slopes, shared, traits, share, at, out);
        }
    }

    /// The slopes of the traits that all candidates share.
    #[inline(always)]
    fn shared(&self, inputs: &[f32]) -> [f32; TRAIT_ROW] {
        let [weights, bias] = self.sizes.parts().shared;
        let mut sum = self.blocks[bias].quads()[0];
        let (inputs, _) = inputs.as_chunks::<{ BLOCK / TRAIT_ROW }>();
        for (inputs, block) in inputs.iter().zip(&self.blocks[weights..bias]) {
            for (x, row) in inputs.iter().zip(block.quads()) {
                sum += row * Quad::splat(*x);
            }
        }
        sum.to_array()
    }

    /// Adds to `gradient` what `slopes`, the loss's derivatives by the outputs, make of it.
    pub(crate) fn learn<const F: usize, const S: usize, const O: usize>(
        &self,
        features: &[f32],
        traits: &[Lanes; TRAITS],
        trace: &Trace<F, S>,
        slopes: &[Block; O],
        gradient: &mut [Block],
    ) {
        let parts = self.sizes.parts();
        let mut shared = [0.0; TRAIT_ROW];
        for (which, values) in traits.iter().enumerate() {
            let (values, _) = values.as_chunks::<BLOCK>();
            let mut all = Block::ZERO;
            for at in 0..O {
                let sum = &mut gradient[parts.traits + which * O + at].0;
                for lane in 0..BLOCK {
                    let slope = slopes[at].0[lane] * values[at][lane];
                    sum[lane] += slope;
                    all.0[lane] += slope;
                }
            }
            shared[which] = all.0.iter().sum();
        }
        let mut back = self.learn_dense(parts.last, &trace.second[1], slopes, gradient);
        self.learn_shared(&trace.second[1], &shared, &mut back, gradient);
        let second = before_activation(&back, &trace.second[0]);
        let back = self.learn_dense(parts.second, &trace.first[1], &second, gradient);
        let first = before_activation(&back, &trace.first[0]);
        let (weights, bias) = gradient[..parts.second[0]].split_at_mut(parts.first[1]);
        add_all(bias, 1.0, &first);
        for (weights, x) in weights.chunks_exact_mut(F).zip(features) {
            add_all(weights, *x, &first);
        }
    }

    /// Adds to a layer's gradient, and returns the slopes by its inputs.
    #[inline(always)]
    fn learn_dense<const H: usize, const O: usize>(
        &self,
        [weights, bias]: [usize; 2],
        inputs: &[Block; H],
        slopes: &[Block; O],
        gradient: &mut [Block],
    ) -> [Block; H] {
        add_all(&mut gradient[bias..bias + O], 1.0, slopes);
        let mut back = [Block::ZERO; H];
        for at in 0..H * BLOCK {
            let row = weights + at * O;
            add_all(&mut gradient[row..row + O], inputs[at / BLOCK].0[at % BLOCK], slopes);
            let mut sums = Block::ZERO;
            for (weights, slopes) in self.blocks[row..row + O].iter().zip(slopes) {
                for lane in 0..BLOCK {
                    sums.0[lane] += weights.0[lane] * slopes.0[lane];
                }
            }
            back[at / BLOCK].0[at % BLOCK] = sums.0.iter().sum();
        }
        back
    }

    /// As [`Mlp::learn_dense`] of the layer of shared slopes, adding to what the other layer above gave back.
    fn learn_shared<const S: usize>(
        &self,
        inputs: &[Block; S],
        slopes: &[f32; TRAIT_ROW],
        back: &mut [Block; S],
        gradient: &mut [Block],
    ) {
        let [weights, bias] = self.sizes.parts().shared;
        for (which, slope) in slopes.iter().enumerate() {
            gradient[bias].0[which] += slope;
            for at in 0..S * BLOCK {
                let place = at * TRAIT_ROW + which;
                let (block, lane) = (weights + place / BLOCK, place % BLOCK);
                gradient[block].0[lane] += inputs[at / BLOCK].0[at % BLOCK] * slope;
                back[at / BLOCK].0[at % BLOCK] += self.blocks[block].0[lane] * slope;
            }
        }
    }
}

/// Slopes by what came into an activation, from those by what came out.
#[inline(always)]
fn before_activation<const H: usize>(after: &[Block; H], before: &[Block; H]) -> [Block; H] {
    let mut slopes = *after;
    for (slopes, before) in slopes.iter_mut().zip(before) {
        for (slope, x) in slopes.0.iter_mut().zip(&before.0) {
            *slope *= activation_slope(*x);
        }
    }
    slopes
}

/// Blocks as the numbers that they hold.
trait Numbers {
    fn as_flattened_numbers(&self) -> &[f32];
}

impl<const H: usize> Numbers for [Block; H] {
    #[inline(always)]
    fn as_flattened_numbers(&self) -> &[f32] {
        bytemuck::cast_slice(self)
    }
}

/// A layer's outputs: rows of weights, one an input, and biases. Three blocks are as many as registers hold.
#[inline(always)]
fn sums<const O: usize>(inputs: &[f32], rows: &[[Block; O]], biases: &[Block]) -> [[Quad; BLOCK / QUAD]; O] {
    let mut sums = [[Quad::ZERO; BLOCK / QUAD]; O];
    for (sum, bias) in sums.iter_mut().zip(biases) {
        *sum = bias.quads();
    }
    for (x, row) in inputs.iter().zip(rows) {
        let x = Quad::splat(*x);
        for (sum, weights) in sums.iter_mut().zip(row) {
            for (sum, weights) in sum.iter_mut().zip(weights.quads()) {
                *sum += weights * x;
            }
        }
    }
    sums
}

/// Adds a block of outputs, and its candidates' traits by their own slopes and the shared ones, to `out`.
#[inline(always)]
fn with_traits<const O: usize>(
    sums: [Quad; BLOCK / QUAD],
    slopes: &[[Block; O]],
    shared: [f32; TRAIT_ROW],
    traits: &[Lanes; TRAITS],
    share: f32,
    at: usize,
    out: &mut [f32; BLOCK],
) {
    let (out, _) = out.as_chunks_mut::<QUAD>();
    for (quad, (out, mut sum)) in out.iter_mut().zip(sums).enumerate() {
        for ((slopes, values), shared) in slopes.iter().zip(traits).zip(shared) {
            let (values, _) = values.as_chunks::<QUAD>();
            let slope = slopes[at].quads()[quad] + Quad::splat(shared);
            sum += slope * Quad::from(values[at * BLOCK / QUAD + quad]);
        }
        *out = (Quad::from(*out) + sum * Quad::splat(share)).to_array();
    }
}

/// A hidden layer from its sums: before and after the activation.
///
/// It is softsign: smooth and bounded as a hyperbolic tangent, for the price of a division.
#[inline(always)]
fn layer<const N: usize>(sums: &[[Quad; BLOCK / QUAD]; N]) -> [[Block; N]; 2] {
    let mut layer = [[Block::ZERO; N]; 2];
    for (block, sums) in sums.iter().enumerate() {
        for (quad, x) in sums.iter().enumerate() {
            layer[0][block].0.as_chunks_mut().0[quad] = x.to_array();
            layer[1][block].0.as_chunks_mut().0[quad] = (*x / (x.abs() + Quad::splat(1.0))).to_array();
        }
    }
    layer
}

fn add_all(to: &mut [Block], factor: f32, from: &[Block]) {
    for (to, from) in to.iter_mut().zip(from) {
        to.add(factor, from);
    }
}

/// The slope of softsign.
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
        let sizes = Sizes { inputs: 5, first: 2, second: 1, outputs: 2 };
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
        mlp.learn::<2, 1, 2>(&features, &traits, &mlp.hidden::<2, 1>(&features), &slopes, &mut gradient);
        for (at, lane) in (0..mlp.blocks.len()).map(|at| (at, at * 7 % BLOCK)) {
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
