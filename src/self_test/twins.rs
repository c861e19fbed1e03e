//! Every kernel against its CPU twin, in every way in which it may be linked; and mutants of it, which must fail.

mod attention;
mod column_squares;
mod embedding;
mod gated_activation;
mod linear;
mod matmul;
mod matvec;
mod measure;
mod move_rows;
mod mutants;
mod random_weights;
mod rms_norm;
mod rope_append;
mod rotate_heads;
mod sampling;

pub(super) use attention::{wanted as attention_wanted, wanted_packed as attention_wanted_packed};
pub(super) use rope_append::half_step;

use super::rig::{Failure, Mutation, Rig};
use super::{Adapters, SelfTest, test};
use raglan_shaders::attention::{coop, tile, vector};
use raglan_shaders::{KvType, Part, PartKind, WeightFormat};

/// Checks one kernel in one way.
pub(super) type Check = Box<dyn Fn(&Rig<'_>) -> Result<(), Failure> + Send + Sync>;

/// A kernel's test: `matmul/q4_1` say.
pub(super) struct Twin {
    pub(super) kernel: &'static str,
    /// Of what there are several, which: a weight format, or a type of keys and values.
    variant: Option<Part>,
    /// What is changed in the kernel, without changing what it computes.
    pub(super) mutation: Option<Mutation>,
    pub(super) check: Check,
}

fn twin(kernel: &'static str, check: impl Fn(&Rig<'_>) -> Result<(), Failure> + Send + Sync + 'static) -> Twin {
    Twin { kernel, variant: None, mutation: None, check: Box::new(check) }
}

pub(super) fn twins() -> Vec<Twin> {
    let of_format = |kernel, check: fn(&Rig<'_>, WeightFormat) -> Result<(), Failure>| {
        WeightFormat::ALL
            .map(|format| Twin { variant: Some(Part::Weight(format)), ..twin(kernel, move |rig| check(rig, format)) })
    };
    let of_kv = |kernel, check: fn(&Rig<'_>, KvType) -> Result<(), Failure>| {
        let quantised = KvType::ALL.into_iter().filter(|kv| kv.is_quantised());
        quantised.map(move |kv| Twin { variant: Some(Part::Kv(kv)), ..twin(kernel, move |rig| check(rig, kv)) })
    };
    let mut twins = Vec::new();
    twins.extend(of_format("embedding", embedding::check));
    twins.push(twin("rms_norm", rms_norm::check));
    twins.extend(of_format("matvec", matvec::check_plain));
    twins.extend(of_format("matvec_int8", matvec::check_int8).into_iter().filter(Twin::has_blocks));
    twins.push(twin("matvec_normed", matvec::check_normed));
    twins.push(twin("matvec_gated", matvec::check_gated));
    twins.extend(of_format("matmul", matmul::check_matmul));
    twins.extend(of_format("matmul_coop", matmul::check_coop));
    twins.push(Twin { mutation: Some(matmul::QUADS), ..twin("matmul_coop_quads", matmul::check_quads) });
    twins.push(twin("split_sum", matmul::check_split_sum));
    twins.push(twin("rope_append", rope_append::check));
    twins.extend(of_kv("rope_append", rope_append::check_quantised));
    twins.push(twin("rotate_heads", rotate_heads::check));
    twins.push(twin("move_rows", move_rows::check));
    twins.push(twin("attention_vector", attention::check_vector));
    twins.extend(of_kv("attention_vector", |rig, kv| attention::check_quantised(rig, &vector::KERNEL, kv)));
    twins.push(twin("attention_tile", attention::check_tile));
    twins.extend(of_kv("attention_tile", |rig, kv| attention::check_quantised(rig, &tile::KERNEL, kv)));
    twins.push(twin("attention_coop", attention::check_coop));
    twins.extend(of_kv("attention_coop", |rig, kv| attention::check_quantised(rig, &coop::KERNEL, kv)));
    twins.push(twin("attention_merge", attention::check_merge));
    twins.push(twin("attention_deterministic", attention::check_deterministic));
    twins.push(twin("gated_activation", gated_activation::check));
    twins.push(twin("column_squares", column_squares::check));
    twins.push(twin("adjust_logits", sampling::check_adjust_logits));
    twins.push(twin("argmax", sampling::check_argmax));
    twins.push(twin("top_k", sampling::check_top_k));
    twins.push(twin("cross_entropy", sampling::check_cross_entropy));
    twins.push(twin("random_weights", random_weights::check));
    twins.extend(measure::CHECKS.map(|(kernel, check)| twin(kernel.name, check)));
    twins
}

impl Twin {
    fn has_blocks(&self) -> bool {
        self.variant.is_some_and(|part| part.is(PartKind::Quants))
    }

    fn name(&self) -> String {
        match self.variant {
            Some(part) => {
                let name = part.name().trim_start_matches("weight_").trim_start_matches("kv_");
                format!("{}/{name}", self.kernel)
            }
            None => self.kernel.to_owned(),
        }
    }
}

pub(super) fn tests() -> Vec<SelfTest> {
    let mut tests = Vec::new();
    for twin in twins() {
        tests.push(test(format!("twin/{}", twin.name()), move |adapters| {
            let (mut checks, mut worst) = (0, [0.0f64; 2]);
            for rig in adapters.ways() {
                let rig = match twin.mutation {
                    Some(mutation) => rig.with_mutation(mutation),
                    None => rig,
                };
                (twin.check)(&rig).map_err(|failure| format!("{}: {}", rig.name(), String::from(failure)))?;
                checks += rig.checks();
                worst = [0, 1].map(|index| worst[index].max(rig.worst()[index]));
            }
            let [f32, f16] = worst;
            Ok(format!("{checks} comparisons; worst error of what rounding explains: {f32:.2} in f32, {f16:.2} in f16"))
        }));
    }
    for mutant in mutants::ALL {
        tests.push(test(format!("mutant/{}/{}", mutant.twin, mutant.mutation.what), |adapters| kill(adapters, mutant)));
    }
    tests
}

/// Runs the twin test of a mutant, with bounds checks since a mutant may reach anywhere.
fn kill(adapters: &Adapters, mutant: &mutants::Mutant) -> Result<String, String> {
    let twin = twins().into_iter().find(|twin| twin.name() == mutant.twin).ok_or("no twin test of that name")?;
    let Some(rig) = adapters.checked_way(mutant.subgroups, mutant.coop) else {
        return Ok("skipped: the adapter has no such operations".to_owned());
    };
    match (twin.check)(&rig.with_mutation(mutant.mutation)) {
        Err(Failure::Differs(message)) => Ok(format!("noticed: {message}")),
        Err(Failure::Broken(message)) => Err(message),
        Ok(()) => Err(format!("{:?} instead of {:?} goes unnoticed", mutant.mutation.to, mutant.mutation.from)),
    }
}
