//! The scheduler and the slot allocator under random histories, without a GPU: what a step computes is checked against what
//! the sequences are, whatever is moved, shared, swapped, preempted and cancelled on the way.

mod scheduler_support;

use raglan::cost::{ModelCost, Predicted, StepCost};
use raglan::request::{Event, FinishReason, Request, RequestId, SamplingParams};
use raglan::scheduler::{Scheduler, SchedulerOptions};
use raglan::segments::{Policy, SlotGroups};
use raglan::sequence::Sequence;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use scheduler_support::{Case, Ran, Run, history, limits};

fn check(ran: &Ran) {
    for (request, asked) in &ran.asked {
        let answer = ran.answers.get(request).map_or(&[][..], |answer| answer);
        let reason = ran.ended[request];
        let mut tokens = asked.prompt.clone();
        for &token in answer {
            assert_eq!(token, ran.case.next_token(&tokens), "{:?}, {request:?}", ran.case);
            tokens.push(token);
        }
        // The last token needs no slot.
        let cut = reason == FinishReason::Cancelled || ran.case.refuse || tokens.len() > ran.case.longest();
        assert!(
            answer.len() == asked.sampling.max_tokens || cut,
            "{:?}, {request:?}: prompt {}, {} of {}",
            ran.case,
            asked.prompt.len(),
            answer.len(),
            asked.sampling.max_tokens
        );
    }
}

#[test]
fn every_answer_is_the_models_whatever_runs_beside_it() {
    let (mut cancelled, mut cached) = (0, 0);
    for seed in 0..40 {
        let ran = history(&Case { seed, pipeline: 1 + seed as usize % 2, ..Case::default() });
        check(&ran);
        cancelled += ran.ended.values().filter(|&&reason| reason == FinishReason::Cancelled).count();
        cached += ran.stats.cached_tokens;
    }
    assert!(cancelled > 0, "some requests were cancelled");
    assert!(cached > 0, "some prefixes were shared");
}

#[test]
fn answers_stay_the_same_when_slots_run_out() {
    let (mut preempted, mut swapped, mut moved) = (0, 0, 0);
    for seed in 0..80 {
        let swap = seed % 3 != 0;
        let ran = history(&Case { seed, pipeline: 1 + seed as usize % 2, capacity: 192, swap, ..Case::default() });
        check(&ran);
        preempted += ran.stats.preemptions;
        swapped += ran.stats.swaps;
        moved += ran.moved;
        assert!(swap || ran.stats.swaps == 0);
    }
    assert!(preempted > swapped && swapped > 0, "{preempted} preemptions, {swapped} swaps");
    assert!(moved > 0, "some rows were moved");
}

#[test]
fn answers_stay_the_same_with_windows() {
    for seed in 0..60 {
        let groups = [vec![Some(24)], vec![None, Some(24)], vec![Some(16), None]][seed as usize % 3].clone();
        for capacity in [192, 1024] {
            let pipeline = 1 + seed as usize % 2;
            let refuse = seed % 2 == 0;
            check(&history(&Case { seed, pipeline, capacity, refuse, groups: groups.clone(), ..Case::default() }));
        }
    }
}

#[test]
fn answers_stay_the_same_with_large_quanta() {
    for seed in 0..60 {
        let groups = [vec![None], vec![Some(40)], vec![None, Some(70)]][seed as usize % 3].clone();
        for (quantum, capacity) in [(32, 512), (64, 2048)] {
            let pipeline = 1 + seed as usize % 2;
            check(&history(&Case { seed, pipeline, capacity, quantum, groups: groups.clone(), ..Case::default() }));
        }
    }
}

#[test]
fn ten_thousand_requests_leave_nothing_behind() {
    let case = Case { seed: 7, pipeline: 2, capacity: 512, requests: 10_000, refuse: true, ..Case::default() };
    let ran = history(&case);
    check(&ran);
    assert!(ran.stats.preemptions > 0 && ran.stats.swaps > 0 && ran.refused > 100, "{:?}", ran.stats);
    let cancelled = ran.ended.values().filter(|&&reason| reason == FinishReason::Cancelled).count();
    assert!(cancelled > 100, "{cancelled} cancelled");
}

#[test]
fn a_lone_answer_submits_a_step_in_every_turn() {
    let (answer, submitted) = alone(2, 1024, 64);
    assert_eq!(answer.len(), 100);
    // The last turn collects.
    assert!(submitted[..submitted.len() - 1].iter().all(|&step| step), "{submitted:?}");
}

#[test]
fn a_full_context_ends_an_answer_at_the_same_token_whatever_the_pipeline() {
    for capacity in [32, 48, 64, 112] {
        for max_batch_tokens in [1, 3, 64] {
            let (one, _) = alone(1, capacity, max_batch_tokens);
            assert_eq!(one, alone(2, capacity, max_batch_tokens).0, "{capacity} slots");
            assert_eq!(one.len(), capacity - 20 + 1, "every slot is used, and the last sample needs none");
        }
    }
}

/// Runs one greedy request of 20 and 100 tokens as the engine does; its answer, and in which turns a step was submitted.
fn alone(pipeline: usize, capacity: usize, max_batch_tokens: usize) -> (Vec<u32>, Vec<bool>) {
    let case = Case { pipeline, capacity, max_batch_tokens, ..Case::default() };
    let mut run = Run::new(&case, SchedulerOptions::default());
    run.add(Request::new((0..20).collect(), SamplingParams { max_tokens: 100, ..SamplingParams::default() }));
    let (mut answer, mut submitted) = (Vec::new(), Vec::new());
    for _ in 0..1000 {
        let (step, events) = run.turn();
        submitted.push(step.is_some());
        for event in events {
            match event {
                Event::Started { cached_tokens, .. } => assert_eq!(cached_tokens, 0),
                Event::Token { token, .. } => answer.push(token),
                Event::Finished { .. } => return (answer, submitted),
                Event::Failed { message, .. } => panic!("{message}"),
            }
        }
    }
    panic!("the request does not end: {answer:?}");
}

fn greedy(prompt: Vec<u32>, max_tokens: usize) -> Request {
    Request::new(prompt, SamplingParams { max_tokens, ..SamplingParams::default() })
}

/// A prompt of 20,000 tokens comes while 16 answers run: in every step that computes some of it, the answers' next tokens
/// come within the bound of when they would have come without it.
#[test]
fn a_long_prompt_never_delays_running_answers_by_more_than_the_bound() {
    for (max_delay_us, max_batch_tokens) in [(8e3, 512), (20e3, 2048), (80e3, 8192)] {
        let case = Case { capacity: 200_000, max_batch_tokens, max_sequences: 32, ..Case::default() };
        let mut run = Run::new(&case, SchedulerOptions { max_delay_us, ..SchedulerOptions::default() });
        let answers: Vec<_> = (0..16u32).map(|i| run.add(greedy((i * 1000..i * 1000 + 900).collect(), 4000))).collect();
        // Until all of them write.
        while answers.iter().any(|id| run.scheduler.sequence(*id).is_some_and(|s| s.generated() == 0)) {
            run.turn();
        }
        let long = run.add(greedy((0..20_000).map(|i| i % 7919 + 20_000).collect(), 1));
        let (mut steps, mut worst) = (0, 0.0f64);
        while run.scheduler.sequence(long).is_some() {
            let (step, _) = run.turn();
            let Some(step) = step else { continue };
            // Every answer has its token in every step.
            assert_eq!(step.sampled.iter().filter(|request| answers.contains(request)).count(), 16);
            let alone: Vec<_> =
                answers.iter().map(|id| run.scheduler.sequence(*id).expect("it runs").computed).collect();
            let load =
                alone.iter().map(|&computed| run.cost.load(1, computed - 1)).fold(Default::default(), |a, b| a + b);
            worst = worst.max(step.predicted_us - run.cost.step_us(&load));
            steps += 1;
        }
        assert!(steps > 5, "the prompt came in {steps} steps");
        assert!(worst <= max_delay_us && worst > 0.3 * max_delay_us, "{worst:.0} µs later, allowed {max_delay_us}");
    }
}

#[test]
fn a_second_turn_computes_only_what_is_new_and_samples_share_their_prompt() {
    let case = Case { capacity: 8192, max_batch_tokens: 256, max_sequences: 64, ..Case::default() };
    let mut run = Run::new(&case, SchedulerOptions::default());
    let prompt: Vec<u32> = (0..1000).collect();
    let first = run.add(greedy(prompt.clone(), 50));
    let answers = run.finish();
    let computed = run.scheduler.stats().computed_tokens;
    let mut second: Vec<u32> = [prompt.clone(), answers[&first].clone(), (5000..5020).collect()].concat();
    run.add(greedy(second.clone(), 1));
    run.finish();
    // The answer's last token was never computed, nor is the second answer's.
    assert_eq!(run.scheduler.stats().computed_tokens - computed, 21);
    second.extend(6000..6100);

    // Sixteen samples of one new prompt, all at once: it is computed once.
    let computed = run.scheduler.stats().computed_tokens;
    let new: Vec<u32> = (9000..9777).collect();
    for seed in 0..16 {
        let sampling = SamplingParams { max_tokens: 4, temperature: 1.0, seed, ..SamplingParams::default() };
        run.add(Request::new(new.clone(), sampling));
    }
    let free = run.slots.free_slots();
    run.finish();
    assert_eq!(run.scheduler.stats().computed_tokens - computed, 777 + 15 + 16 * 3);
    assert!(run.most_used <= 8192 - free + 777 + 16 * 48, "{} slots at most", run.most_used);
}

#[test]
fn a_prefix_goes_when_its_slots_are_wanted_and_the_least_recently_used_first() {
    let mut run = Run::new(&Case { capacity: 512, ..Case::default() }, SchedulerOptions::default());
    let prompt = |i: u32| (i * 1000..i * 1000 + 100).collect::<Vec<u32>>();
    for i in [1, 2, 3] {
        run.add(greedy(prompt(i), 2));
        run.finish();
    }
    // The first is used again, then a fourth and a fifth need slots.
    for i in [1, 4, 5] {
        run.add(greedy(prompt(i), 2));
        run.finish();
    }
    let cached = |run: &mut Run, i: u32| {
        let before = run.scheduler.stats().cached_tokens;
        run.add(greedy(prompt(i), 2));
        run.finish();
        run.scheduler.stats().cached_tokens - before
    };
    assert_eq!(cached(&mut run, 1), 99, "used lately");
    assert_eq!(cached(&mut run, 2), 0, "long not used");
}

#[test]
fn the_oldest_never_leaves_and_a_higher_priority_goes_first() {
    let mut run = Run::new(&Case { capacity: 256, ..Case::default() }, SchedulerOptions::default());
    let requests: Vec<_> = (0..4u32).map(|i| run.add(greedy((i * 500..i * 500 + 60).collect(), 150))).collect();
    let urgent = run.add(Request { priority: 1, ..greedy((9000..9060).collect(), 20) });
    let mut order = Vec::new();
    let mut started = Vec::new();
    while !run.scheduler.is_idle() {
        let (_, events) = run.turn();
        // The turn after an end admits the next.
        let ended = events.iter().any(|event| matches!(event, Event::Finished { .. }));
        for event in events {
            match event {
                Event::Started { request, .. } => started.push(request),
                Event::Finished { request, reason } => {
                    assert_eq!(reason, FinishReason::Length);
                    order.push(request);
                }
                Event::Token { .. } => {}
                Event::Failed { message, .. } => panic!("{message}"),
            }
        }
        let running = |id: &RequestId| run.scheduler.sequence(*id).is_some_and(|s| s.tables.is_some());
        let live = |id: &&RequestId| run.scheduler.sequence(**id).is_some();
        let oldest = [urgent].iter().chain(&requests).find(live).copied();
        assert!(ended || oldest.is_none_or(|id| running(&id)), "the first by rank runs");
    }
    assert_eq!(started[0], urgent);
    assert_eq!(order[0], urgent);
    assert_eq!(order[1..], requests, "first come, first served");
    assert!(run.scheduler.stats().preemptions > 0);
}

#[test]
fn a_window_holds_no_more_than_itself_a_chunk_and_a_quantum() {
    for (window, max_batch_tokens) in [(64, 32), (100, 48), (256, 64), (48, 16)] {
        let case = Case { groups: vec![Some(window)], capacity: 4096, max_batch_tokens, ..Case::default() };
        let mut run = Run::new(&case, SchedulerOptions { prefix_cache: false, ..SchedulerOptions::default() });
        let length = 4 * window;
        let id = run.add(greedy((0..length as u32 / 2).collect(), length - length / 2));
        let answers = run.finish();
        assert_eq!(answers[&id].len(), length - length / 2);
        let most = window + max_batch_tokens + 16;
        assert!(run.most_used <= most, "{} slots, at most {most}", run.most_used);
    }
}

#[test]
fn a_sequence_that_gave_way_comes_back_when_there_is_room_to_stay() {
    let preemptions = |spare_share: f64| {
        let case = Case { capacity: 2048, max_sequences: 16, requests: 0, ..Case::default() };
        let mut run =
            Run::new(&case, SchedulerOptions { spare_share, spare_steps: 512.0, ..SchedulerOptions::default() });
        for request in 0..40 {
            // Each fits, and answers are far longer than the head-room.
            run.add(greedy(vec![request; 20], 500));
        }
        run.finish();
        run.scheduler.stats().preemptions
    };
    let (without, with) = (preemptions(0.0), preemptions(0.25));
    assert!(without > 20 && 2 * with < without, "{with} of {without}");
}

#[test]
fn small_requests_pass_a_large_one_that_finds_no_room_but_not_for_ever() {
    let options = SchedulerOptions { overtakes: 8, prefix_cache: false, ..SchedulerOptions::default() };
    let mut run = Run::new(&Case { capacity: 1024, max_batch_tokens: 256, ..Case::default() }, options);
    run.add(greedy((0..500).collect(), 100));
    run.turn();
    let large = run.add(greedy((1000..1900).collect(), 1));
    let mut rng = StdRng::seed_from_u64(1);
    let small: Vec<_> =
        (0..100).map(|_| run.add(greedy((0..40).map(|_| rng.random_range(5000..9000)).collect(), 30))).collect();
    let mut ended = Vec::new();
    while !run.scheduler.is_idle() {
        ended.extend(run.turn().1.into_iter().filter_map(|event| match event {
            Event::Finished { request, .. } => Some(request),
            _ => None,
        }));
    }
    let place = ended.iter().position(|id| *id == large).expect("it ended");
    let before = ended[..place].iter().filter(|id| small.contains(id)).count();
    assert!((1..=8 + 6).contains(&before), "{before} passed");
    assert_eq!(limits(&Case::default()).max_sequences, 6);
}

#[test]
fn a_prompt_of_seventy_thousand_tokens_is_cut_into_steps_of_bounded_time() {
    let case = Case { capacity: 80_000, max_batch_tokens: 8192, ..Case::default() };
    let options = SchedulerOptions::default();
    let bound = options.max_step_us;
    let mut run = Run::new(&case, options);
    let id = run.add(greedy((0..70_000).map(|i| i % 50_021).collect(), 3));
    let mut chunks = Vec::new();
    while run.scheduler.sequence(id).is_some() {
        if let Some(step) = run.turn().0 {
            assert!(step.predicted_us <= bound, "{} tokens in {:.0} µs", step.batch.tokens(), step.predicted_us);
            chunks.push(step.batch.tokens());
        }
    }
    assert_eq!(chunks.iter().sum::<usize>(), 70_002);
    let prompt: Vec<usize> = chunks.iter().copied().filter(|&tokens| tokens > 1).collect();
    assert!(prompt[0] > 2 * prompt[prompt.len() - 2], "a longer context makes shorter chunks: {prompt:?}");
}

#[test]
fn a_prompt_is_cut_where_the_tuner_predicts_that_products_turn_dear() {
    let products = vec![(1, 8e3), (64, 9e3), (128, 10e3), (256, 90e3), (512, 170e3)];
    let predicted = Predicted { products, key_us: Some(0.1), pair_us: Some(1e-4), exact: true };
    let case = Case { capacity: 4096, max_batch_tokens: 512, ..Case::default() };
    let chunks = |max_step_us: f64| -> Vec<usize> {
        let options = SchedulerOptions { max_step_us, prefix_cache: false, ..SchedulerOptions::default() };
        let cost = scheduler_support::cost().with_predicted(predicted.clone());
        let mut scheduler = Scheduler::new(limits(&case), options, cost);
        let mut slots = SlotGroups::new(&[(None, 4096)], &Policy::default());
        scheduler.add(Sequence::new(RequestId(0), greedy((0..600).collect(), 1)));
        let mut chunks = Vec::new();
        while let Some(step) = scheduler.next_batch(&mut slots) {
            chunks.push(step.batch.tokens());
            assert!(step.predicted_us <= max_step_us, "{step:?}");
            scheduler.commit(&step, &vec![Some(0); step.sampled.len()], &mut slots);
        }
        chunks
    };
    assert_eq!(chunks(50e3), [128, 128, 128, 128, 88]);
    // Where a longer step is allowed, more tokens go with it.
    assert_eq!(chunks(100e3), [256, 256, 88]);
}

#[test]
fn a_window_larger_than_the_arena_keeps_every_position() {
    for (capacity, prompt) in [(2048, 100), (2048, 2000), (4096, 3000)] {
        let case = Case { groups: vec![Some(4096)], capacity, max_batch_tokens: 512, ..Case::default() };
        let mut run = Run::new(&case, SchedulerOptions::default());
        assert_eq!(run.slots.longest(), capacity);
        let id = run.add(greedy((0..prompt).collect(), 10_000));
        let mut chunks = Vec::new();
        let mut answer = 0;
        while run.scheduler.sequence(id).is_some() {
            let (step, events) = run.turn();
            chunks.extend(step.map(|step| step.batch.tokens()));
            answer += events.iter().filter(|event| matches!(event, Event::Token { .. })).count();
        }
        assert_eq!(answer, capacity - prompt as usize + 1, "it ends with the arena");
        assert!(chunks[0] == (prompt as usize).min(512), "{:?}", &chunks[..4]);
    }
}

/// A prefix of whole chunks of 256 may have scrolled out of the window that the whole prefix still fits: nobody will
/// compute it, so nobody waits for it.
#[test]
fn nobody_waits_for_a_prefix_that_nobody_computes() {
    for window in [300, 512, 1024] {
        let case = Case { groups: vec![Some(window)], capacity: 8192, max_batch_tokens: 512, ..Case::default() };
        let mut run = Run::new(&case, SchedulerOptions { fork_quantum: 256, ..SchedulerOptions::default() });
        run.slots = SlotGroups::new(&[(Some(window), 8192)], &Policy { quantum: 256, ..Policy::default() });
        let first: Vec<u32> = (0..1000).collect();
        let id = run.add(greedy(first.clone(), 50));
        let answer = run.finish()[&id].clone();
        run.add(greedy([first, answer, (5000..5020).collect()].concat(), 5));
        assert_eq!(run.finish().len(), 1, "window {window}");
    }
}

/// Where the weights alone take longer than the bound on a step, prompts are not read token by token, and answers do not
/// take turns.
#[test]
fn a_slow_adapter_fills_the_time_that_one_token_takes() {
    let model =
        ModelCost { weight_bytes: 14e9, token_flops: 14e9, slot_bytes: 524_288.0, pair_flops: 524_288.0, window: None };
    let cost = StepCost::with_rates(model, (6e4, 4e6, 12e3, 100.0));
    let options = SchedulerOptions::default();
    assert!(cost.step_us(&cost.load(1, 0)) > options.max_step_us);
    let case = Case { capacity: 40_000, max_batch_tokens: 512, max_sequences: 64, ..Case::default() };
    let mut run = Run::new(&case, options.clone());
    run.scheduler = Scheduler::new(limits(&case), options, cost);
    let mut steps = |requests: Vec<Request>| {
        requests.into_iter().for_each(|request| _ = run.add(request));
        let mut steps = 0;
        while !run.scheduler.is_idle() {
            steps += usize::from(run.turn().0.is_some());
        }
        steps
    };
    let prompt = steps(vec![greedy((0..1000).collect(), 1)]);
    assert!(prompt < 20, "a prompt of 1000 tokens in {prompt} steps");
    let answers = steps((0..16).map(|i| greedy((i * 1000 + 5000..i * 1000 + 5016).collect(), 50)).collect());
    assert!(answers < 80, "16 answers of 50 tokens in {answers} steps");
}

/// Answers that together take longer than a step may do not keep a prompt from being read.
#[test]
fn a_prompt_is_read_beside_more_answers_than_a_step_has_time_for() {
    let case = Case { capacity: 400_000, max_batch_tokens: 512, max_sequences: 64, ..Case::default() };
    let options = SchedulerOptions { max_step_us: 14e3, max_delay_us: 5e3, ..SchedulerOptions::default() };
    let mut run = Run::new(&case, options);
    for i in 0..16u32 {
        run.add(greedy((i * 1000..i * 1000 + 900).collect(), 3000));
    }
    (0..200).for_each(|_| _ = run.turn());
    let prompt = run.add(greedy((20_000..22_000).collect(), 1));
    let mut turns = 0;
    while run.scheduler.sequence(prompt).is_some() {
        run.turn();
        turns += 1;
    }
    assert!(turns < 300, "2000 tokens in {turns} steps");
    // And the answers go on, in turn.
    let written: Vec<_> =
        (0..16).filter_map(|id| run.scheduler.sequence(RequestId(id))).map(|s| s.generated()).collect();
    assert!(written.iter().all(|&tokens| tokens > 10), "{written:?}");
}

/// Answers with more penalties than a step has room for take turns, and do not keep a prompt from being read.
#[test]
fn a_prompt_is_read_beside_more_penalties_than_a_step_has_room_for() {
    let case = Case { capacity: 200_000, max_batch_tokens: 512, max_sequences: 32, ..Case::default() };
    let mut run = Run::new(&case, SchedulerOptions { max_step_us: 1e9, max_delay_us: 1e9, ..Default::default() });
    for i in 0..16u32 {
        let sampling = SamplingParams { max_tokens: 2000, presence_penalty: 1.0, ..SamplingParams::default() };
        run.add(Request::new((i * 1000..i * 1000 + 900).collect(), sampling));
    }
    (0..100).for_each(|_| _ = run.turn());
    let prompt = run.add(greedy((20_000..25_000).collect(), 1));
    let mut turns = 0;
    while run.scheduler.sequence(prompt).is_some() {
        run.turn();
        turns += 1;
    }
    assert!(turns < 50, "5000 tokens in {turns} turns");
}

/// A request that would not come in even if nothing were kept takes nothing of what is kept.
#[test]
fn who_cannot_come_in_takes_no_kept_prefix() {
    let mut run =
        Run::new(&Case { capacity: 10_000, max_batch_tokens: 2048, ..Case::default() }, SchedulerOptions::default());
    let kept: Vec<u32> = (50_000..51_900).collect();
    run.add(greedy(kept.clone(), 2));
    run.finish();
    let long = run.add(greedy((0..5900).collect(), 2000));
    while run.scheduler.sequence(long).is_some_and(|s| s.generated() == 0) {
        run.turn();
    }
    let free = run.slots.free_slots();
    for more in [3990, 4050, 4090] {
        let waiter = run.add(greedy((60_000..60_000 + more).collect(), 1));
        (0..20).for_each(|_| _ = run.turn());
        assert!(run.scheduler.sequence(waiter).is_some_and(|s| s.tables.is_none()), "{more} tokens do not fit");
        assert!(run.slots.free_slots() <= free, "{more} tokens: what was kept went for nothing");
        run.scheduler.cancel(waiter, &mut run.slots);
    }
    let cached = run.scheduler.stats().cached_tokens;
    run.add(greedy(kept, 1));
    (0..5).for_each(|_| _ = run.turn());
    assert_eq!(run.scheduler.stats().cached_tokens - cached, 1899, "the prefix is still there");
}
