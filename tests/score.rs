//! Known tokens through a model: what comes back does not depend on the steps, nor on what a sequence begins in common with.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use raglan::gpu::{Gpu, GpuOptions};
use raglan::models::Checkpoint;
use raglan::{EngineOptions, Error, Request, SamplingParams, Stepper};

/// The tiny model with bit-equal logits whatever the steps; `None` where there is no adapter.
fn engine(checkpoint: &Checkpoint, slots: usize) -> Option<Stepper> {
    let gpu = match Gpu::open(&GpuOptions::default()) {
        Ok(gpu) => gpu,
        Err(Error::NoAdapter) if std::env::var_os("RAGLAN_REQUIRE_ADAPTER").is_none() => {
            println!("skipped: no adapter");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    Some(Stepper::new(&gpu, checkpoint, &options(slots), &mut |_, _| ()).unwrap())
}

fn options(slots: usize) -> EngineOptions {
    EngineOptions { max_context: Some(slots), max_sequences: 64, deterministic: true, ..EngineOptions::default() }
}

fn text(tokens: u64) -> Vec<u32> {
    (0..tokens).map(|at| 3 + ((at * at * 7 + at * 31) % 2000) as u32).collect()
}

fn bits(engine: &mut Stepper, tokens: &[u32], chunk: usize) -> Vec<Vec<u32>> {
    let mut rows = Vec::new();
    let mut scorer = engine.scorer(chunk).unwrap();
    let each = |first: usize, logits: raglan::engine::Logits| {
        assert_eq!(first, rows.len());
        rows.extend((0..logits.rows()).map(|row| logits.row(row).iter().map(|logit| logit.to_bits()).collect()));
        Ok(())
    };
    scorer.score(tokens, each).unwrap();
    rows
}

#[test]
fn logits_are_the_same_bits_whatever_the_steps_and_losses_follow_from_them() {
    let checkpoint = Checkpoint::tiny().unwrap();
    let Some(mut engine) = engine(&checkpoint, 256) else { return };
    let (tokens, free) = (text(75), engine.free_slots());
    let whole = bits(&mut engine, &tokens, 64);
    assert_eq!((whole.len(), whole[0].len()), (75, checkpoint.spec().vocab_size));
    for chunk in [7, 40, usize::MAX] {
        assert!(bits(&mut engine, &tokens, chunk) == whole, "steps of {chunk}");
    }
    let losses = engine.losses(&tokens).unwrap();
    assert_eq!(losses.len(), 74);
    for (at, &loss) in losses.iter().enumerate() {
        let row: Vec<f64> = whole[at].iter().map(|&bits| f64::from(f32::from_bits(bits))).collect();
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|logit| (logit - max).exp()).sum();
        let wanted = sum.ln() + max - row[tokens[at + 1] as usize];
        // Sums of 2,048 terms in f32, in an order of its own.
        let tolerance = f64::from(f32::EPSILON) * (4.0 + 2048f64.sqrt()) * wanted.abs().max(max.abs());
        assert!((f64::from(loss) - wanted).abs() <= tolerance, "{at}: {loss}, wanted {wanted}");
    }
    assert_eq!(engine.free_slots(), free);
}

#[test]
fn what_is_held_gives_continuations_the_likelihood_of_the_whole_and_every_slot_comes_back() {
    let checkpoint = Checkpoint::tiny().unwrap();
    let Some(mut engine) = engine(&checkpoint, 3072) else { return };
    let (free, tokens, next) = (engine.free_slots(), text(600), [9, 800, 77]);
    let whole = [&tokens[..], &next[..]].concat();
    let losses = engine.losses(&whole).unwrap();
    let wanted: f64 = -losses[599..].iter().map(|&loss| f64::from(loss)).sum::<f64>();

    let read = |_| Ok(());
    let held = engine.hold(&tokens, None, 100, read).unwrap();
    assert_eq!(engine.likelihood(&held, &next).unwrap(), wanted);
    // More tokens than a step's, held or foretold.
    let short = EngineOptions { max_batch_tokens: 8, ..options(3072) };
    let mut stepping = Stepper::new(engine.gpu(), &checkpoint, &short, &mut |_, _| ()).unwrap();
    let few = stepping.hold(&tokens, None, usize::MAX, read).unwrap();
    assert_eq!(stepping.likelihood(&few, &next).unwrap(), wanted);
    assert_eq!(stepping.continued(&few, 12, &[]).unwrap(), engine.continued(&held, 12, &[]).unwrap());
    stepping.let_go(few);
    let most = stepping.hold(&tokens[..500], None, usize::MAX, read).unwrap();
    let met = stepping.likelihood(&most, &whole[500..]).unwrap();
    let all: f64 = -losses[499..].iter().map(|&loss| f64::from(loss)).sum::<f64>();
    // 103 terms in another order.
    assert!((met - all).abs() <= 103.0 * f64::EPSILON * all.abs(), "{met}, wanted {all}");
    stepping.let_go(most);
    // A beginning that others share, of which less and less is kept.
    let mut common = engine.hold(&tokens[..560], None, usize::MAX, read).unwrap();
    for kept in [560, 300, 10] {
        engine.shorten(&mut common, kept);
        assert_eq!(common.tokens().len(), kept);
        let mut computed = 0;
        let count = |rows| {
            computed += rows;
            Ok(())
        };
        let other = engine.hold(&tokens, Some(&common), 64, count).unwrap();
        assert_eq!(computed, 600 - kept / 256 * 256, "computed behind {kept}");
        assert_eq!(engine.likelihood(&other, &next).unwrap(), wanted, "behind {kept}");
        engine.let_go(other);
    }
    engine.let_go(common);

    let written = engine.continued(&held, 12, &[]).unwrap();
    assert_eq!(engine.continued(&held, 12, &written[3..4]).unwrap(), written[..3]);
    engine.let_go(held);
    let mut answer = Vec::new();
    let sampling = SamplingParams { max_tokens: 12, ..SamplingParams::default() };
    engine.submit(Request::new(tokens.clone(), sampling)).unwrap();
    while !engine.is_idle() {
        let events = engine.step().unwrap();
        answer.extend(events.into_iter().filter_map(|event| match event {
            raglan::Event::Token { token, .. } => Some(token),
            _ => None,
        }));
    }
    assert_eq!(written, answer);
    engine.forget_prefixes();
    assert_eq!(engine.free_slots(), free);
}

#[test]
fn what_does_not_fit_is_refused_and_a_reader_that_ends_leaves_nothing_behind() {
    let checkpoint = Checkpoint::tiny().unwrap();
    let Some(mut engine) = engine(&checkpoint, 1280) else { return };
    let (free, read) = (engine.free_slots(), |_| Ok(()));
    let refused = |result: Result<raglan::engine::Held, Error>, words: &str| {
        let error = result.expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(engine.hold(&[], None, 64, read), "wanted 1 to");
    refused(engine.hold(&text(100_000), None, 64, read), "100000 tokens to read");
    let first = engine.hold(&text(700), None, usize::MAX, read).unwrap();
    refused(engine.hold(&text(900)[1..], None, usize::MAX, read), "no room");
    assert!(engine.likelihood(&first, &[]).unwrap_err().to_string().contains("continuation"));
    engine.let_go(first);
    let stop = |_| Err(Error::Failed { message: "enough".to_owned() });
    refused(engine.hold(&text(700), None, 64, stop), "enough");
    let met = engine.scorer(16).unwrap().score(&text(80), |first, _| match first {
        32 => Err(Error::Failed { message: "enough".to_owned() }),
        _ => Ok(()),
    });
    assert!(met.is_err_and(|error| error.to_string() == "enough"));
    assert_eq!(engine.free_slots(), free);
    assert_eq!(bits(&mut engine, &text(20), 16).len(), 20);
}
