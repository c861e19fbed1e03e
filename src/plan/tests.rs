use super::*;
use crate::schedules::LinearShape;
use crate::segments::{Move, Segment};
use raglan_shaders::attention::DIRECT;
use raglan_shaders::{AdapterLimits, Kernel, Part, WeightFormat};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

fn shape(windows: Vec<Option<usize>>, numerics: Numerics) -> AttentionShape {
    AttentionShape {
        num_heads: 6,
        num_kv_heads: 2,
        head_dim: 16,
        groups: windows.into_iter().map(|window| KvGroup { window, kv: KvType::F32 }).collect(),
        numerics,
    }
}

fn limits(max_batch_tokens: usize) -> StepLimits {
    StepLimits { max_batch_tokens, max_sequences: 64, max_adjustments: 0 }
}

fn planner(windows: Vec<Option<usize>>) -> Planner {
    Planner::new(shape(windows, Numerics::Fast), AdapterClass::Hardware, &AdapterLimits::most(), &limits(512))
}

fn segment(first_slot: usize, first_position: usize, count: usize) -> Segment {
    Segment { first_slot, first_position, count }
}

/// Every (row, key) pair that causality and the window allow is in just one item; the results of each row are joined from
/// just its items, by position, or its only item is direct; and no two items of a pass write the same partial row.
pub(super) fn check(planner: &Planner, batch: &Batch, plan: &Plan, what: &str) {
    let heads = planner.shape.group();
    for ((group, window), planned) in
        batch.groups.iter().zip(planner.shape.groups.iter().map(|group| group.window)).zip(&plan.groups)
    {
        // Of each row: (key, slot), and the first key of each partial row.
        let mut seen = vec![Vec::new(); batch.tokens()];
        let mut done = vec![0; batch.tokens()];
        for pass in &plan.passes[planned.passes.clone()] {
            let mut written = vec![None; plan.partials];
            for item in
                [&pass.vector, &pass.tiles[0], &pass.tiles[1]].into_iter().flat_map(|items| &plan.items[items.clone()])
            {
                for row in item.first_row..item.first_row + item.rows {
                    let position = batch.positions[row as usize];
                    let masked_from = item.row_position + row - item.first_row;
                    let last_key = (item.first_position + item.count).min(masked_from + 1);
                    assert!(masked_from == position || last_key <= position + 1, "{what}: row {row}");
                    for key in item.first_position..last_key {
                        seen[row as usize].push((key, item.first_slot + key - item.first_position));
                    }
                    if item.partial == DIRECT {
                        done[row as usize] += 1;
                        continue;
                    }
                    for head in 0..heads {
                        let at = item.partial as usize + (row - item.first_row) as usize * heads + head;
                        let before = written[at].replace((row, item.first_position));
                        assert_eq!(before, None, "{what}: partial row {at}");
                    }
                }
            }
            for merge in &plan.merges[pass.merges.clone()] {
                let parts = &plan.parts[merge.first_part as usize..(merge.first_part + merge.parts) as usize];
                for row in 0..merge.rows {
                    done[(merge.first_row + row) as usize] += 1;
                    let mut last = None;
                    for &part in parts {
                        let place = written[part as usize + row as usize * heads].take();
                        let (owner, key) = place.unwrap_or_else(|| panic!("{what}: a part of nothing"));
                        assert_eq!(owner, merge.first_row + row, "{what}");
                        assert!(last < Some(key), "{what}: parts in order");
                        last = Some(key);
                        for head in 1..heads {
                            assert!(written[part as usize + row as usize * heads + head].take().is_some(), "{what}");
                        }
                    }
                }
            }
            assert!(written.iter().all(Option::is_none), "{what}: every partial row is merged");
        }
        for sequence in 0..batch.sequences() {
            let own = group.segment_indptr[sequence] as usize..group.segment_indptr[sequence + 1] as usize;
            for row in batch.q_indptr[sequence] as usize..batch.q_indptr[sequence + 1] as usize {
                let position = batch.positions[row] as usize;
                let from = window.map_or(0, |w| (position + 1).saturating_sub(w));
                let slots = group.segments[own.clone()].iter().flat_map(|s| (s.first_slot..).take(s.count));
                let want: Vec<_> = (0..).zip(slots.map(|slot| slot as u32)).take(position + 1).skip(from).collect();
                seen[row].sort_unstable();
                seen[row].retain(|&(key, _)| key as usize >= from);
                assert_eq!(seen[row], want, "{what}: row {row}");
                assert_eq!(done[row], 1, "{what}: row {row} is finished once");
            }
        }
    }
}

#[test]
fn items_cover_every_visible_key_once() {
    for window in [None, Some(5), Some(40)] {
        let planner = planner(vec![window]);
        let mut batch = Batch::new(1);
        batch.push(0..1, 999, &[[segment(0, 0, 1024)]]);
        batch.push(0..37, 63, &[[segment(2048, 0, 1024)]]);
        let two = [segment(4000, 0, 48), segment(1500, 48, 200)];
        batch.push(0..100, 0, &[two]);
        batch.push(0..0, 0, &[two]);
        batch.push(0..1, 120, &[two]);
        check(&planner, &batch, &planner.plan(&batch), &format!("window {window:?}"));
    }
}

#[test]
fn many_rows_take_matrices_where_the_adapter_has_them_and_rounding_may_differ() {
    let most = AdapterLimits::most();
    let without = AdapterLimits { coop_side: 0, ..most.clone() };
    let deterministic = Numerics::Deterministic { longest_context: 4096 };
    let wide = |kv, numerics| AttentionShape {
        head_dim: 128,
        groups: [None, Some(40)].map(|window| KvGroup { window, kv }).into(),
        ..shape(vec![], numerics)
    };
    let forms = |shape: AttentionShape, class, adapter: &AdapterLimits| -> Vec<(&'static str, usize)> {
        let planner = Planner::new(shape, class, adapter, &limits(512));
        planner.tiles(0).iter().map(|tile| (tile.kernel.name, tile.packed_rows)).collect()
    };
    let (software, hardware) = (AdapterClass::Software, AdapterClass::Hardware);
    let [coop, lanes] = ["attention_coop", "attention_tile"].map(|name| vec![(name, 32), (name, 64)]);
    assert_eq!(forms(wide(KvType::F16, Numerics::Fast), hardware, &most), coop);
    assert_eq!(forms(wide(KvType::F32, Numerics::Fast), hardware, &most), lanes);
    assert_eq!(forms(wide(KvType::F16, Numerics::Fast), hardware, &without), lanes);
    assert_eq!(forms(wide(KvType::F16, deterministic), hardware, &most), lanes[..1]);
    assert_eq!(forms(wide(KvType::F16, Numerics::Fast), software, &most), lanes[..1]);
    assert_eq!(forms(wide(KvType::F16, Numerics::Fast), hardware, &AdapterLimits::least())[0].0, "attention_tile");

    let planner = Planner::new(wide(KvType::F16, Numerics::Fast), hardware, &most, &limits(512));
    let mut batch = Batch::new(2);
    for (place, rows) in [1, 5, 11, 21, 22, 100].into_iter().enumerate() {
        let slots = [segment(1000 * place, 0, 400)];
        batch.push((0..rows).map(|_| 0), 300, &[slots, slots]);
    }
    let plan = planner.plan(&batch);
    check(&planner, &batch, &plan, "forms");
    let rows_of = |form: usize| {
        let items = &plan.items[plan.passes[0].tiles[form].clone()];
        let mut sequences: Vec<_> = items.iter().map(|item| item.first_slot / 1000).collect();
        sequences.dedup();
        sequences.sort_unstable();
        sequences.dedup();
        sequences
    };
    // Three packed rows to a row; sequences of up to 32 of them take the lower tiles.
    assert_eq!([rows_of(0), rows_of(1)], [vec![1], vec![2, 3, 4, 5]]);
}

/// Random trees of forks: each sequence keeps some leading segments of the one before it.
fn forks(rng: &mut StdRng, quantum: usize, tokens: usize) -> Batch {
    let mut batch = Batch::new(1);
    let (mut last, mut next_slot) = (Vec::<Segment>::new(), 0);
    let sequences = rng.random_range(1..20);
    for _ in 0..sequences {
        let mut segments = last[..rng.random_range(0..=last.len())].to_vec();
        let mut keys: usize = segments.iter().map(|s| s.count).sum();
        let own_from = keys;
        while segments.len() < 8 && (keys == own_from || rng.random_bool(0.4)) {
            let count = quantum * rng.random_range(1..10);
            segments.push(segment(next_slot, keys, count));
            (keys, next_slot) = (keys + count, next_slot + count + 1);
        }
        if keys == own_from {
            continue;
        }
        let most = if rng.random_bool(0.5) { 1 } else { 40 };
        let rows = rng.random_range(1..=most.min(keys - own_from));
        let end = rng.random_range(own_from + rows..=keys);
        if batch.tokens() + rows > tokens {
            break;
        }
        batch.push((0..rows).map(|_| 0), end - rows, &[&segments]);
        last = segments;
    }
    batch
}

#[test]
fn whatever_is_shared_every_row_sees_its_own_keys() {
    let mut plan = Plan::default();
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let planner = planner(vec![None]);
        let batch = forks(&mut rng, 16, 512);
        planner.plan_into(&batch, &mut plan);
        check(&planner, &batch, &plan, &format!("seed {seed}"));
    }
}

#[test]
fn deterministic_items_are_chunks_of_positions() {
    for seed in 0..100 {
        let mut rng = StdRng::seed_from_u64(seed);
        let window = [None, Some(300)][seed as usize % 2];
        let numerics = Numerics::Deterministic { longest_context: 8 * 9 * CHUNK };
        let planner =
            Planner::new(shape(vec![window], numerics), AdapterClass::Hardware, &AdapterLimits::most(), &limits(512));
        let batch = forks(&mut rng, CHUNK, 512);
        let plan = planner.plan(&batch);
        check(&planner, &batch, &plan, &format!("seed {seed}"));
        for item in &plan.items {
            assert_eq!(item.first_position as usize % CHUNK, 0, "seed {seed}");
            assert!(item.count as usize <= CHUNK && item.partial != DIRECT, "seed {seed}");
        }
    }
}

#[test]
fn what_needs_more_room_takes_more_passes() {
    let numerics = Numerics::Deterministic { longest_context: 1 << 17 };
    let planner =
        Planner::new(shape(vec![None], numerics), AdapterClass::Hardware, &AdapterLimits::most(), &limits(64));
    let mut batch = Batch::new(1);
    batch.push((0..50).map(|_| 0), (1 << 17) - 50, &[[segment(0, 0, 1 << 17)]]);
    batch.push(0..14, 1 << 16, &[[segment(1 << 18, 0, 1 << 17)]]);
    let plan = planner.plan(&batch);
    assert!(plan.passes.len() > 1);
    check(&planner, &batch, &plan, "long contexts");
}

#[test]
fn a_shared_prefix_is_read_once() {
    let planner = planner(vec![None]);
    let (mut forked, mut copied) = (Batch::new(1), Batch::new(1));
    for fork in 0..8 {
        forked.push(0..1, 4100, &[[segment(0, 0, 4096), segment(10_000 + 16 * fork, 4096, 16)]]);
        copied.push(0..1, 4100, &[[segment(5000 * fork, 0, 4096), segment(50_000 + 16 * fork, 4096, 16)]]);
    }
    let plan = planner.plan(&forked);
    check(&planner, &forked, &plan, "forks");
    assert_eq!(plan.keys_read, 4096 + 8 * 5);
    assert_eq!(planner.plan(&copied).keys_read, 8 * (4096 + 5));
}

#[test]
fn a_long_prompt_chunk_fills_the_adapter() {
    let planner = planner(vec![None]);
    let mut batch = Batch::new(1);
    batch.push((0..32).map(|_| 0), 32_768 - 32, &[[segment(0, 0, 32_768)]]);
    let plan = planner.plan(&batch);
    check(&planner, &batch, &plan, "one chunk");
    // In two kv heads.
    assert!(2 * plan.items.len() >= 128, "{} items", plan.items.len());
    assert!(plan.items.is_sorted_by_key(|item| std::cmp::Reverse(item.count)));
}

#[test]
fn a_row_with_one_item_is_written_directly_and_others_are_merged() {
    let planner = planner(vec![None]);
    let mut batch = Batch::new(1);
    batch.push(0..1, 100, &[[segment(0, 0, 112)]]);
    batch.push(0..1, 100, &[[segment(200, 0, 64), segment(400, 64, 64)]]);
    let plan = planner.plan(&batch);
    assert_eq!(plan.items.iter().filter(|i| i.partial == DIRECT).count(), 1);
    assert_eq!(plan.merges.len(), 1);
    assert!(plan.merges.iter().all(|m| m.parts == 2 && m.first_row == 1));
    assert_eq!(plan.partials, 2 * 3);
}

#[test]
fn scratch_memory_at_13b_is_bounded() {
    let shape = AttentionShape {
        num_heads: 40,
        num_kv_heads: 40,
        head_dim: 128,
        groups: vec![KvGroup { window: None, kv: KvType::F16 }],
        numerics: Numerics::Fast,
    };
    for numerics in [Numerics::Fast, Numerics::Deterministic { longest_context: 70_000 }] {
        let capacity = Capacity::of(&AttentionShape { numerics, ..shape.clone() }, &limits(512));
        let bytes = capacity.partials * 40 * 4 * (128 + 2) + capacity.input_bytes();
        assert!(bytes <= 128 << 20, "{numerics:?}: {bytes}");
    }
}

#[test]
fn moves_are_cut_where_they_do_not_overlap_themselves() {
    let planner = planner(vec![None, Some(64)]);
    let mut batch = Batch::new(2);
    let whole = [segment(0, 0, 16)];
    batch.push(0..1, 0, &[whole, whole]);
    let (disjoint, slide) = (Move { from: 1000, to: 0, count: 300 }, Move { from: 2016, to: 2000, count: 5000 });
    batch.groups[0].moves = vec![vec![disjoint, slide], vec![], vec![Move { from: 9000, to: 8000, count: 1 }]];
    batch.groups[1].moves = vec![vec![Move { from: 0, to: 600_000, count: 500_000 }]];
    let plan = planner.plan(&batch);
    let of_counts = |plan: &Plan, round: usize| -> Vec<u32> {
        plan.moves[plan.rounds[round].clone()].iter().map(|rows| rows.count).collect()
    };
    let rounds: Vec<_> = plan.groups[0].rounds.clone().map(|round| of_counts(&plan, round)).collect();
    // Half a million rows leave room for items of 512.
    assert_eq!(rounds, [vec![300, 5000], vec![1]]);
    assert_eq!(plan.groups[1].rounds, 2..3);
    assert!(plan.moves.len() <= MOST_MOVES);
    let last = &plan.moves[plan.rounds[2].clone()];
    assert_eq!(last.iter().map(|m| m.count).sum::<u32>(), 500_000);

    batch.groups[1].moves.clear();
    let plan = planner.plan(&batch);
    assert_eq!(of_counts(&plan, 0), [128, 128, 44, 5000]);
}

fn linear(rows: usize, cols: usize, inner: usize, format: WeightFormat) -> LinearShape {
    LinearShape { rows, cols, inner, format, normed: false, gated: false }
}

#[test]
fn deterministic_products_have_one_schedule() {
    let numerics = Numerics::Deterministic { longest_context: 4096 };
    for class in [AdapterClass::Software, AdapterClass::Hardware] {
        let planner = Planner::new(shape(vec![None], numerics), class, &AdapterLimits::most(), &limits(512));
        let one = planner.linear(&linear(1, 4096, 4096, WeightFormat::F16));
        for rows in [2, 4, 5, 8, 64, 512] {
            let choice = planner.linear(&linear(rows, 4096, 4096, WeightFormat::F16));
            assert!(std::ptr::eq(choice.kernel, one.kernel) && choice.schedule == one.schedule, "{class:?}, {rows}");
        }
    }
}

#[test]
fn few_rows_take_a_legal_schedule_on_any_hardware() {
    for (adapter, int8) in
        [(AdapterLimits::least(), false), (AdapterLimits::most(), false), (AdapterLimits::most(), true)]
    {
        let planner = Planner::new(shape(vec![None], Numerics::Fast), AdapterClass::Hardware, &adapter, &limits(512));
        let planner = planner.with_int8_activations(int8);
        for format in WeightFormat::ALL {
            for rows in 1..=9 {
                for (cols, inner) in
                    [(32, 256), (2048, 2048), (5120, 13_824), (32_000, 5120), (262_144, 4096), (500_000, 512)]
                {
                    let choice = planner.linear(&linear(rows, cols, inner, format));
                    assert_eq!(choice.takes_few_rows(), rows < 9, "{rows} × {cols} × {inner}");
                    let shape = [rows, cols, inner].map(|size| size as u32);
                    assert!((choice.kernel.legal)(&adapter, &shape, &choice.schedule), "{rows} × {cols}: {choice:?}");
                }
            }
        }
    }
}

#[test]
fn products_are_legal_wherever_they_run_and_known_from_powers_of_two() {
    let coop = |side, lanes, kib: u32| AdapterLimits {
        coop_side: side,
        min_subgroup_lanes: lanes,
        max_subgroup_lanes: lanes,
        max_workgroup_bytes: kib << 10,
        ..AdapterLimits::most()
    };
    let adapters = [
        AdapterLimits::least(),
        AdapterLimits::most(),
        coop(16, 32, 48),
        coop(16, 64, 64),
        coop(8, 32, 32),
        coop(8, 8, 32),
    ];
    let shapes = [(4096, 4096), (12288, 4096), (22016, 4096), (4096, 11008), (128_256, 4096), (576, 576), (300, 100)];
    let mut splits = 0;
    for adapter in &adapters {
        for act in [Part::ActF32, Part::ActF16] {
            let shape = shape(vec![None], Numerics::Fast);
            let planner = Planner::new(shape, AdapterClass::Hardware, adapter, &limits(8192)).with_inputs(act);
            for (cols, inner) in shapes {
                for rows in [9, 16, 17, 31, 32, 33, 64, 100, 128, 500, 512, 4096] {
                    let choice = planner.linear(&linear(rows, cols, inner, WeightFormat::F16));
                    let sizes = [rows, cols, inner].map(|size| size as u32);
                    assert!((choice.kernel.legal)(adapter, &sizes, &choice.schedule), "{rows} × {cols} × {inner}");
                    let is_coop = choice.kernel.name == "matmul_coop";
                    assert_eq!(
                        is_coop,
                        adapter.coop_side > 0
                            && act == Part::ActF16
                            && adapter.max_subgroup_lanes == adapter.min_subgroup_lanes
                    );
                    let power = planner.linear(&linear(rows.next_power_of_two(), cols, inner, WeightFormat::F16));
                    assert_eq!(choice, power);
                    if let Some(blocks) = choice.split_blocks(inner) {
                        let parts = inner.div_ceil(32).div_ceil(blocks as usize);
                        assert!(parts > 1 && (parts * rows * cols * 4) as u64 <= planner.split_bytes());
                        splits += 1;
                    }
                }
            }
        }
    }
    assert!(splits > 0, "few rows are split");
}

#[test]
fn every_type_of_cache_has_schedules_of_its_own_and_they_are_legal() {
    let groups = KvType::ALL.map(|kv| KvGroup { window: None, kv });
    for head_dim in [64, 80, 128, 256] {
        for (class, adapter) in [
            (AdapterClass::Software, AdapterLimits::most()),
            (AdapterClass::Hardware, AdapterLimits::most()),
            (AdapterClass::Hardware, AdapterLimits { subgroups: false, coop_side: 0, ..AdapterLimits::most() }),
        ] {
            let shape = AttentionShape { head_dim, groups: groups.into(), ..shape(vec![], Numerics::Fast) };
            let planner = Planner::new(shape, class, &adapter, &limits(64));
            for (group, KvGroup { kv, .. }) in groups.into_iter().enumerate() {
                let heads = planner.heads(group);
                assert_eq!((heads.kv, heads.head_stride), (kv, kv.head_stride(head_dim).unwrap()));
                let legal = |kernel: &Kernel, schedule: &Schedule| {
                    let dims = [1, 1, heads.head_stride as u32, kv.word_values() as u32];
                    assert!((kernel.legal)(&adapter, &dims, schedule), "{kv} {head_dim} {}: {schedule:?}", kernel.name);
                };
                for rows in 1..=8 {
                    legal(
                        &raglan_shaders::attention::vector::KERNEL,
                        planner.vector_schedule(group, Picked::Rules, rows),
                    );
                }
                planner.tiles(group).iter().for_each(|tile| legal(tile.kernel, &tile.schedule));
            }
        }
    }
}
