use super::*;
use crate::batch::{Batch, StepLimits};
use crate::cost::{AdapterClass, Load, ModelCost, StepCost};
use crate::plan::tests::check;
use crate::plan::{AttentionShape, KvGroup, Picked};
use crate::schedules::made_up::{ADAPTER, Time, chance, weights};
use crate::schedules::{AdapterKey, Found, Terms, attention, linear};
use crate::segments::Segment;
use raglan_shaders::{AdapterLimits, Part, WeightFormat};
use raglan_tuner::{Candidate, Cost, Weights};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const STEP: StepLimits = StepLimits { max_batch_tokens: 300, max_sequences: 64, max_adjustments: 0 };

fn shape(numerics: Numerics) -> AttentionShape {
    AttentionShape {
        num_heads: 6,
        num_kv_heads: 2,
        head_dim: 64,
        groups: vec![KvGroup { window: None, kv: KvType::F16 }],
        numerics,
    }
}

fn planner(limits: &AdapterLimits, class: AdapterClass, numerics: Numerics) -> Planner {
    let act = if limits.shader_f16 { Part::ActF16 } else { Part::ActF32 };
    Planner::new(shape(numerics), class, limits, &STEP).with_inputs(act)
}

fn lavapipe() -> AdapterLimits {
    AdapterLimits {
        max_workgroup_bytes: 32 << 10,
        min_subgroup_lanes: 8,
        max_subgroup_lanes: 8,
        coop_side: 8,
        ..AdapterLimits::most()
    }
}

/// A few candidates of everything, by chance.
fn made_up(planner: &Planner, seed: u64, time: Time<'_>) -> Weights {
    let (terms, heads) = (planner.terms(), planner.heads(0));
    let ranked = |texts: Vec<String>, count: usize| -> Vec<usize> {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by(|a, b| chance(seed, &texts[*a]).total_cmp(&chance(seed, &texts[*b])));
        order.truncate(count);
        order
    };
    let mut products = Vec::new();
    for rows in [1, 100] {
        let all = linear::all(rows, terms);
        let texts = all.iter().map(|choice| choice.candidate().to_string()).collect();
        products.extend(ranked(texts, 12).into_iter().map(|index| all[index].clone()));
    }
    let mut forms = Vec::new();
    for form in [Form::Vector, Form::Tile] {
        let all = attention::all(form, &heads, terms, &[]);
        let texts = all.iter().map(|choice| choice.candidate().to_string()).collect();
        forms.extend(ranked(texts, 12).into_iter().map(|index| all[index].clone()));
    }
    weights(ADAPTER, terms, &heads, (&products, &forms), time).expect("something is learned")
}

fn by_cost(seed: u64) -> impl Fn(&str, &[f32], &Candidate, &Cost) -> f64 {
    move |_, shape, candidate, cost| {
        let taste = chance(seed, &format!("{candidate} {}", shape[0].log2() as u32));
        (1.0 + cost.bytes / 1e5 + cost.flops / 1e6) * (0.3 + taste)
    }
}

fn key(class: AdapterClass) -> AdapterKey {
    AdapterKey { adapter_type: ADAPTER.0.to_owned(), driver: ADAPTER.1.to_owned(), class }
}

fn product(cols: usize, inner: usize, format: WeightFormat, normed: bool, gated: bool) -> ProductKey {
    ProductKey { cols, inner, format, normed, gated }
}

fn products() -> Vec<ProductKey> {
    vec![
        product(576, 192, WeightFormat::F16, true, false),
        product(192, 192, WeightFormat::F16, false, false),
        product(1024, 192, WeightFormat::Q4_0, true, true),
        product(192, 512, WeightFormat::Q6K, false, false),
        product(500_000, 192, WeightFormat::F32, true, false),
    ]
}

fn random_limits(rng: &mut StdRng) -> AdapterLimits {
    let mut of = |values: &[u32]| values[rng.random_range(0..values.len())];
    let lanes = of(&[1, 4, 8, 16, 32, 64]);
    let subgroups = lanes > 1;
    let shader_f16 = of(&[0, 1]) == 1;
    AdapterLimits {
        max_workgroup_lanes: of(&[256, 512, 1024]),
        max_workgroup_bytes: of(&[16, 32, 48, 64]) << 10,
        max_workgroups: of(&[65_535, 1 << 20]),
        shader_f16,
        subgroups,
        min_subgroup_lanes: if subgroups { lanes } else { 1 },
        max_subgroup_lanes: lanes * if subgroups { of(&[1, 2]) } else { 1 },
        coop_side: if shader_f16 && subgroups { of(&[0, 8, 16]) } else { 0 },
        ..AdapterLimits::most()
    }
}

/// What is picked for a batch must be legal by the kernel's own word, whatever a dispatch has of items.
fn assert_attention_is_legal(planner: &Planner, terms: &Terms, what: &str) {
    let packed = (planner.max_batch_tokens * planner.shape.group()) as u32;
    for (_, choice) in planner.attention_choices() {
        let is_legal = (choice.kernel.legal)(&terms.limits, &[1, packed, 64], &choice.schedule);
        assert!(is_legal, "{what}: {}", choice.candidate());
    }
}

#[test]
fn whatever_weights_say_what_runs_is_legal() {
    let mut rng = StdRng::seed_from_u64(5);
    let mut tuned = [0, 0];
    for seed in 0..3 {
        let (limits, class) = match seed {
            0 => (AdapterLimits::most(), AdapterClass::Hardware),
            1 => (AdapterLimits { coop_side: 0, ..AdapterLimits::most() }, AdapterClass::Hardware),
            _ => (lavapipe(), AdapterClass::Software),
        };
        let weights = made_up(&planner(&limits, class, Numerics::Fast), seed, &by_cost(seed));
        for case in 0..40 {
            let limits = if case == 0 { limits.clone() } else { random_limits(&mut rng) };
            let mode = if case % 4 == 3 { Mode::Default } else { Mode::Predict };
            let mut planner = planner(&limits, class, Numerics::Fast);
            planner.tune(Tuner::new(mode, false, Found::of(&key(class), vec![weights.clone()])), &products(), None);
            let (terms, what) = (planner.terms().clone(), format!("weights {seed}, limits {case}"));
            for product in products() {
                for rows in 1..=STEP.max_batch_tokens {
                    let shape = product.at(rows);
                    let choice = planner.table().get(&shape).expect("a product of the model").clone();
                    let sizes = [rows, product.cols, product.inner].map(|size| size as u32);
                    let is_legal = (choice.kernel.legal)(&terms.limits, &sizes, &choice.schedule);
                    // Rules may only choose what is legal too.
                    assert!(is_legal && (product.normed || !choice.fused), "{what}: {}", choice.candidate());
                    let by_rules = choice == planner.linear_rules(&shape);
                    assert!(by_rules || linear::legal(&choice, &shape, &terms), "{what}: {}", choice.candidate());
                    tuned[0] += usize::from(!by_rules);
                }
            }
            assert_attention_is_legal(&planner, &terms, &what);
            tuned[1] += planner.attention_choices().count();
        }
    }
    assert!(tuned.iter().all(|&count| count > 100), "{tuned:?}: weights were used at all");
}

#[test]
fn plans_by_predictions_cover_every_visible_key_once() {
    for seed in 0..3 {
        for (limits, class) in [(AdapterLimits::most(), AdapterClass::Hardware), (lavapipe(), AdapterClass::Software)] {
            let mut planner = planner(&limits, class, Numerics::Fast);
            let found = Found::of(&key(class), vec![made_up(&planner, seed, &by_cost(seed + 10))]);
            planner.tune(Tuner::new(Mode::Predict, false, found), &products(), None);
            let mut picked = Vec::new();
            for prompt in [1, 4, 17, 100, 190] {
                let segment = |first_slot, count| Segment { first_slot, first_position: 0, count };
                let mut batch = Batch::new(1);
                batch.push(0..1, 999, &[[segment(0, 1024)]]);
                batch.push(0..1, 900, &[[segment(0, 1024)]]);
                batch.push(0..prompt, 3000, &[[segment(2048, 4000)]]);
                batch.push(0..100, 0, &[[segment(9000, 100)]]);
                let plan = planner.plan(&batch);
                check(&planner, &batch, &plan, &format!("{class:?}, seed {seed}, prompt {prompt}"));
                picked.extend(plan.groups.iter().flat_map(|group| [group.vector, group.tiles[0], group.tiles[1]]));
                assert_eq!(planner.plan(&batch).items, plan.items, "the same batch has the same plan");
            }
            assert!(picked.iter().any(|picked| matches!(picked, Picked::Choice(_))), "{picked:?}");
            let stats = planner.tuner_stats();
            assert!(stats.memo_hits >= stats.asked / 2 && stats.levels.attention_tile == Level::Exact, "{stats:?}");
        }
    }
}

#[test]
fn foreign_and_stale_weights_fall_back_in_order() {
    let planner = planner(&AdapterLimits::most(), AdapterClass::Hardware, Numerics::Fast);
    let own = made_up(&planner, 7, &by_cost(7));
    let own_key = key(AdapterClass::Hardware);
    let level = |key: &AdapterKey, weights: &[&Weights]| {
        let found = Found::of(key, weights.iter().map(|weights| (*weights).clone()).collect());
        (found.level("linear_many"), found.notes.len())
    };
    assert_eq!(level(&own_key, &[&own]), (Level::Exact, 0));
    let newer = AdapterKey { driver: "driver 2".to_owned(), ..own_key.clone() };
    assert_eq!(level(&newer, &[&own]), (Level::OtherDriver, 4), "flagged, a note a space");
    let sister = AdapterKey { adapter_type: "made-down-8".to_owned(), ..own_key.clone() };
    assert_eq!(level(&sister, &[&own]), (Level::Nearest, 4));
    let mut stale = own.clone();
    stale.kernel_hashes.values_mut().for_each(|hash| *hash = "0".repeat(16));
    assert_eq!(level(&own_key, &[&stale]), (Level::Analytical, 4));
    let nearest = Weights { adapter_type: "made-down-8".to_owned(), ..own.clone() };
    assert_eq!(level(&own_key, &[&stale, &nearest]), (Level::Nearest, 4), "measured nearby before constants alone");
    let foreign = AdapterKey { adapter_type: "other-8".to_owned(), ..own_key };
    assert_eq!(level(&foreign, &[&own]), (Level::Defaults, 0));
    assert_eq!(level(&foreign, &[]), (Level::Defaults, 0));
}

/// Times that a test makes up, with how often it was asked.
struct Told<'a> {
    time: &'a dyn Fn(&LinearShape, &LinearChoice) -> Option<f64>,
    asked: usize,
}

impl Measure for Told<'_> {
    fn time_us(&mut self, shape: &LinearShape, choice: &LinearChoice) -> Option<f64> {
        self.asked += 1;
        (self.time)(shape, choice)
    }
}

#[test]
fn what_was_measured_is_taken_and_what_fails_never() {
    let (limits, class) = (AdapterLimits::most(), AdapterClass::Hardware);
    let mut planner = planner(&limits, class, Numerics::Fast);
    let found = Found::of(&key(class), vec![made_up(&planner, 3, &by_cost(3))]);
    let one = [product(1024, 2048, WeightFormat::F16, true, false)];
    let text = |choice: &LinearChoice| choice.candidate().to_string();
    let time = |shape: &LinearShape, choice: &LinearChoice| {
        let us = 1.0 + 100.0 * chance(4, &format!("{} {}", text(choice), shape.rows));
        (chance(5, &text(choice)) > 0.15).then_some(us)
    };
    let mut told = Told { time: &time, asked: 0 };
    planner.tune(Tuner::new(Mode::Exhaustive, false, found.clone()), &one, Some(&mut told));
    let exhaustive = told.asked;
    for rows in [1, 2, 4, 8, 16, 64, 256] {
        let shape = one[0].at(rows);
        let model = planner.tuner().linear(rows).expect("weights of this space");
        let legal = model.choices().into_iter().filter(|choice| linear::legal(choice, &shape, planner.terms()));
        let best = legal.filter_map(|choice| Some((time(&shape, &choice)?, choice))).min_by(|a, b| a.0.total_cmp(&b.0));
        let (us, best) = best.expect("some candidate runs");
        // Those that hardly gain are not compiled.
        let met = time(&shape, &planner.linear(&shape)).expect("it runs") / us;
        assert!(met < 1.5, "{rows} rows: {met} of {}", text(&best));
    }
    // Calibration asks for three a step of rows.
    let mut told = Told { time: &time, asked: 0 };
    planner.tune(Tuner::new(Mode::Predict, true, found), &one, Some(&mut told));
    assert!(told.asked <= 3 * 10 && told.asked > 10 && exhaustive > told.asked, "{} of {exhaustive}", told.asked);
    for rows in [1, 8, 100] {
        assert!(time(&one[0].at(rows), &planner.linear(&one[0].at(rows))).is_some(), "what fails is not taken");
    }
    // With no weights, what rules would take is measured.
    let mut told = Told { time: &time, asked: 0 };
    planner.tune(Tuner::new(Mode::Exhaustive, false, Found::default()), &one, Some(&mut told));
    assert!(told.asked > 0);
}

#[test]
fn a_step_ends_where_products_turn_dear() {
    let mut planner = planner(&AdapterLimits::most(), AdapterClass::Hardware, Numerics::Fast);
    let time = |shape: &LinearShape, _: &LinearChoice| Some(if shape.rows <= 128 { 100.0 } else { 90_000.0 });
    let mut told = Told { time: &time, asked: 0 };
    let all: Vec<(ProductKey, bool, usize)> = products().into_iter().map(|product| (product, false, 2)).collect();
    let keys: Vec<ProductKey> = products();
    planner.tune(Tuner::new(Mode::Exhaustive, false, Found::default()), &keys, Some(&mut told));
    let predicted = planner.predicted(&all, &[2], 64);
    let model = ModelCost { weight_bytes: 1e6, token_flops: 1e6, slot_bytes: 1e3, pair_flops: 1.0, window: None };
    let cost = StepCost::new(model, AdapterClass::Hardware).with_predicted(predicted);
    assert_eq!(cost.tokens_within(150e3, &Load::default(), 0, 300), 128);
    // The time of a step is that of ten products, and a bound that it passes admits less.
    let us = cost.step_us(&cost.load(100, 0));
    assert!((1000.0..1300.0).contains(&us), "{us}");
    assert_eq!(cost.tokens_within(0.9 * us, &Load::default(), 0, 300), 0);
    // What was learned of an adapter that is slower stays on top.
    let mut slow = cost.clone();
    slow.observe(us, 300.0 * us);
    assert!(slow.step_us(&slow.load(100, 0)) > 100.0 * us);
}

#[test]
fn a_software_adapter_compiles_few_kernels_and_off_asks_nothing() {
    let class = AdapterClass::Software;
    let mut planner = planner(&lavapipe(), class, Numerics::Fast);
    let found = Found::of(&key(class), vec![made_up(&planner, 11, &by_cost(11))]);
    let count = |planner: &Planner| {
        let mut names: Vec<String> =
            planner.table().chosen().map(|(_, choice)| choice.candidate().to_string()).collect();
        names.sort();
        names.dedup();
        names.len()
    };
    planner.tune(Tuner::new(Mode::Predict, false, found.clone()), &products(), None);
    let predict = count(&planner);
    assert!((1..=16).contains(&predict), "{predict}");
    planner.tune(Tuner::new(Mode::Default, false, found.clone()), &products(), None);
    assert!(count(&planner) <= predict.max(6), "one a space, and rules where that is not legal");
    planner.tune(Tuner::new(Mode::Off, false, found), &products(), None);
    assert_eq!(planner.tuner_stats().levels, Levels::default());
    for product in products() {
        for rows in 1..=300 {
            let shape = product.at(rows);
            assert_eq!(planner.linear(&shape), planner.linear_rules(&shape), "{shape:?}");
        }
    }
    assert_eq!(planner.attention_choices().count(), 0);
}

#[test]
fn deterministic_runs_take_one_kernel_whole_and_attention_as_it_is() {
    let class = AdapterClass::Software;
    let found = Found::of(&key(class), vec![made_up(&planner(&lavapipe(), class, Numerics::Fast), 13, &by_cost(13))]);
    let mut planner = planner(&lavapipe(), class, Numerics::Deterministic { longest_context: 4096 });
    planner.tune(Tuner::new(Mode::Predict, false, found), &products(), None);
    assert!(planner.table().chosen().all(|(_, choice)| choice.kernel.name == "matmul" && choice.splits == 1));
    assert_eq!(planner.attention_choices().count(), 0);
}
