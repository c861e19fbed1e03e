//! The engine's handle from many threads: answers, cancellation, shutdown, and what follows the loss of the adapter.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use raglan::gpu::{Gpu, GpuOptions};
use raglan::models::Checkpoint;
use raglan::{
    Engine, EngineOptions, Error, Event, EventStream, FinishReason, Loading, Request, SamplingParams, Stepper,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SLOTS: usize = 1024;

fn gpu() -> Option<Gpu> {
    match Gpu::open(&GpuOptions::default()) {
        Ok(gpu) => Some(gpu),
        Err(Error::NoAdapter) if std::env::var_os("RAGLAN_REQUIRE_ADAPTER").is_none() => {
            println!("skipped: no adapter");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn options() -> EngineOptions {
    EngineOptions { max_context: Some(SLOTS), max_sequences: 8, ..EngineOptions::default() }
}

/// The tiny model on an adapter of its own; `None` where there is none.
fn engine() -> Option<Engine> {
    Some(Engine::new(&gpu()?, Arc::new(Checkpoint::tiny().unwrap()), &options(), |_| ()).unwrap())
}

fn request(first: u32, max_tokens: usize) -> Request {
    let sampling = SamplingParams { max_tokens, ..SamplingParams::default() };
    Request::new(vec![first, 769, 260, 770], sampling)
}

/// Its tokens and how it ended.
fn answer(stream: EventStream) -> (Vec<u32>, Event) {
    let (mut tokens, mut last) = (Vec::new(), None);
    let id = stream.request();
    for event in stream {
        assert!(last.is_none(), "{event:?} after {last:?}");
        assert_eq!(event.request(), id);
        match event {
            Event::Started { .. } => assert!(tokens.is_empty(), "it starts before its first token"),
            Event::Token { token, .. } => tokens.push(token),
            event => last = Some(event),
        }
    }
    (tokens, last.expect("a stream ends with its request"))
}

fn finished(engine: &Engine, request: Request) -> Vec<u32> {
    let stream = engine.submit(request).unwrap();
    let id = stream.request();
    let (tokens, last) = answer(stream);
    assert_eq!(last, Event::Finished { request: id, reason: FinishReason::Length });
    tokens
}

/// What a stepper answers to it alone.
fn wanted(requests: &[Request]) -> Vec<Vec<u32>> {
    let checkpoint = Checkpoint::tiny().unwrap();
    let mut stepper = Stepper::new(&gpu().unwrap(), &checkpoint, &options(), &mut |_, _| ()).unwrap();
    let mut alone = |request: &Request| {
        let mut tokens = Vec::new();
        stepper.submit(request.clone()).unwrap();
        while !stepper.is_idle() {
            tokens.extend(stepper.step().unwrap().into_iter().filter_map(|event| match event {
                Event::Token { token, .. } => Some(token),
                _ => None,
            }));
        }
        tokens
    };
    requests.iter().map(&mut alone).collect()
}

/// Waits until the engine has nothing to do.
fn settle(engine: &Engine) {
    let start = Instant::now();
    while engine.stats().running + engine.stats().waiting > 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", engine.stats());
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn many_threads_have_the_answers_that_each_would_have_alone() {
    let Some(gpu) = gpu() else { return };
    let (weights, kernels) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let progress = |loading| match loading {
        Loading::Weights { done, total } => weights.store((100 * done / total) as usize, Ordering::Relaxed),
        Loading::Kernels { done, total } => kernels.store(100 * done / total, Ordering::Relaxed),
    };
    let engine = Engine::new(&gpu, Arc::new(Checkpoint::tiny().unwrap()), &options(), progress).unwrap();
    assert_eq!((weights.into_inner(), kernels.into_inner()), (100, 100));
    assert_eq!((engine.spec().vocab_size, engine.capacity()), (2048, SLOTS));

    let requests: Vec<_> = (0..6).map(|index| request(517 + index, 10 + 3 * index as usize)).collect();
    let wanted = wanted(&requests);
    std::thread::scope(|scope| {
        for round in 0..4 {
            let (engine, requests, wanted) = (engine.clone(), &requests, &wanted);
            scope.spawn(move || {
                for (request, wanted) in requests.iter().zip(wanted).cycle().skip(round).take(6) {
                    assert_eq!(&finished(&engine, request.clone()), wanted);
                }
            });
        }
    });
    let stats = engine.stats();
    let tokens: usize = wanted.iter().map(Vec::len).sum();
    assert_eq!((stats.finished, stats.failed, stats.running, stats.waiting), (24, 0, 0, 0));
    assert_eq!((stats.prompt_tokens, stats.generated_tokens), (96, 4 * tokens as u64));
    assert_eq!((stats.capacity, stats.restarts), (SLOTS, 0));
    assert!(stats.steps > 0);
}

#[test]
fn a_prompt_that_was_read_before_is_found_and_counted_unless_that_is_switched_off() {
    for prefix_cache in [true, false] {
        let Some(gpu) = gpu() else { return };
        let options = EngineOptions { prefix_cache, ..options() };
        let engine = Engine::new(&gpu, Arc::new(Checkpoint::tiny().unwrap()), &options, |_| ()).unwrap();
        let request = Request::new(vec![517; 200], SamplingParams { max_tokens: 4, ..SamplingParams::default() });
        let cached = || {
            let mut events = engine.submit(request.clone()).unwrap();
            match events.next() {
                Some(Event::Started { cached_tokens, .. }) => (cached_tokens, answer(events).0),
                event => panic!("{event:?}"),
            }
        };
        let (first, wanted) = cached();
        let (second, met) = cached();
        assert_eq!((first, met), (0, wanted));
        assert_eq!(second > 150, prefix_cache, "{second} tokens were found");
        assert_eq!(engine.stats().cached_tokens, second as u64);
        engine.lose();
        assert!(matches!(engine.submit(request.clone()).unwrap().last(), Some(Event::Failed { .. })));
        assert_eq!(cached().0, 0, "nothing is left of a lost adapter");
    }
}

#[test]
fn bad_requests_are_refused_before_they_are_queued() {
    let Some(engine) = engine() else { return };
    let refused = |request: Request, word: &str| match engine.submit(request) {
        Err(Error::Request { message }) => assert!(message.contains(word), "{message}"),
        other => panic!("{other:?}"),
    };
    refused(Request { prompt: Vec::new(), ..request(0, 1) }, "no tokens");
    refused(request(99_999, 1), "99999");
    refused(Request { prompt: vec![5; SLOTS + 1], ..request(0, 1) }, &SLOTS.to_string());
    refused(request(5, 0), "max_tokens");
    let sampling = SamplingParams { top_p: 2.0, ..SamplingParams::default() };
    refused(Request::new(vec![5], sampling), "top_p");
    assert_eq!(engine.stats().failed, 0);
    assert_eq!(finished(&engine, request(517, 3)).len(), 3);
}

#[test]
fn a_stream_that_is_cancelled_or_dropped_gives_its_slots_back() {
    let Some(engine) = engine() else { return };
    let mut cancelled = engine.submit(request(517, 900)).unwrap();
    let dropped = engine.submit(request(518, 900)).unwrap();
    assert!(cancelled.by_ref().any(|event| matches!(event, Event::Token { .. })));
    drop(dropped);
    cancelled.cancel();
    let id = cancelled.request();
    assert_eq!(answer(cancelled).1, Event::Finished { request: id, reason: FinishReason::Cancelled });
    settle(&engine);
    let stats = engine.stats();
    assert_eq!(stats.finished, 2);
    assert!(stats.generated_tokens < 1000, "{stats:?}");
}

#[test]
fn a_stream_is_read_with_patience_or_without() {
    let Some(engine) = engine() else { return };
    let mut stream = engine.submit(request(517, 5)).unwrap();
    let mut events = Vec::new();
    while !stream.has_ended() {
        events.extend(stream.try_next());
        events.extend(stream.next_timeout(Duration::from_millis(1)));
    }
    events.retain(|event| !matches!(event, Event::Started { .. }));
    assert_eq!(events.len(), 6, "{events:?}");
    assert!(events[5].is_last());
    assert_eq!((stream.try_next(), stream.next_timeout(Duration::MAX), stream.next()), (None, None, None));
}

#[test]
fn shutdown_cancels_what_runs_and_refuses_what_comes() {
    let Some(engine) = engine() else { return };
    let mut streams: Vec<_> = (0..12).map(|index| engine.submit(request(517 + index, 900)).unwrap()).collect();
    assert!(streams[0].by_ref().any(|event| matches!(event, Event::Token { .. })));
    engine.shutdown();
    engine.shutdown();
    for stream in streams {
        let id = stream.request();
        assert_eq!(answer(stream).1, Event::Finished { request: id, reason: FinishReason::Cancelled });
    }
    let refused = engine.clone().submit(request(517, 1)).unwrap_err();
    assert!(matches!(&refused, Error::EngineDown { reason } if reason.contains("shut down")), "{refused}");
}

#[test]
fn a_stream_keeps_the_engine_alive_and_the_last_owner_ends_it() {
    let Some(engine) = engine() else { return };
    let gpu = engine.gpu();
    let stream = engine.submit(request(517, 20)).unwrap();
    let unread = engine.submit(request(518, 900)).unwrap();
    drop(engine);
    let id = stream.request();
    let (tokens, last) = answer(stream);
    assert_eq!((tokens.len(), last), (20, Event::Finished { request: id, reason: FinishReason::Length }));
    drop(unread);
    // The thread has ended: nothing but this test uses the adapter.
    assert!(gpu.buffer("after", 16).is_ok());
}

#[test]
fn a_lost_adapter_ends_requests_with_its_name_and_the_engine_goes_on() {
    let Some(engine) = engine() else { return };
    let want = finished(&engine, request(517, 30));
    let lost = engine.gpu();
    let mut running = engine.submit(request(517, 900)).unwrap();
    assert!(running.by_ref().any(|event| matches!(event, Event::Token { .. })));
    engine.lose();
    let id = running.request();
    let Event::Failed { request: failed, message } = answer(running).1 else { panic!("it cannot go on") };
    assert_eq!(failed, id);
    assert!(message.contains(&lost.summary().name) && message.contains("lost"), "{message}");
    // This one waits for the start, or runs after it.
    assert_eq!(finished(&engine, request(517, 30)), want);
    let stats = engine.stats();
    assert_eq!((stats.failed, stats.finished, stats.restarts), (1, 2, 1));
    assert_eq!((stats.running, stats.waiting, stats.capacity), (0, 0, SLOTS));
    assert_eq!(engine.gpu().summary().name, lost.summary().name);
    assert!(lost.buffer("lost", 16).is_err() && engine.gpu().buffer("found", 16).is_ok());
}

#[test]
fn an_adapter_that_is_lost_again_and_again_is_given_up_for_a_while() {
    let Some(engine) = engine() else { return };
    let start = Instant::now();
    let mut restarts = 0;
    loop {
        engine.lose();
        match engine.submit(request(517, 2)) {
            Ok(stream) => match answer(stream).1 {
                Event::Failed { .. } => {}
                event => panic!("{event:?} on a lost adapter"),
            },
            Err(error) => {
                assert!(matches!(&error, Error::EngineDown { reason } if reason.contains("lost")), "{error}");
                break;
            }
        }
        // The next loss is the next engine's.
        while engine.stats().restarts == restarts && engine.submit(request(99_999, 1)).is_err() && restarts < 3 {
            assert!(start.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(5));
        }
        restarts = engine.stats().restarts;
    }
    assert_eq!(restarts, 3);
    assert_eq!(engine.stats().waiting, 0);
}

#[test]
fn a_prompt_that_was_stopped_goes_on_from_where_it_was() {
    let Some(gpu) = gpu() else { return };
    let options = EngineOptions { max_batch_tokens: 16, ..options() };
    let engine = Engine::new(&gpu, Arc::new(Checkpoint::tiny().unwrap()), &options, |_| ()).unwrap();
    let prompt: Vec<u32> = (0..900).map(|place| 300 + place * 7 % 1000).collect();
    let sampling = SamplingParams { max_tokens: 4, ..SamplingParams::default() };
    let request = Request::new(prompt.clone(), sampling);

    let mut stopped = engine.submit(request.clone()).unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    while stopped.computed() < 200 {
        assert!(Instant::now() < patience && !stopped.has_ended(), "{} tokens", stopped.computed());
        let _ = stopped.next_timeout(Duration::from_millis(1));
    }
    stopped.cancel();
    let read = loop {
        match stopped.next_timeout(Duration::from_secs(60)).expect("it ends") {
            Event::Finished { reason, .. } => {
                assert_eq!(reason, FinishReason::Cancelled);
                break stopped.computed();
            }
            Event::Started { cached_tokens, .. } => assert_eq!(cached_tokens, 0),
            other => panic!("{other:?} before 900 tokens were read"),
        }
    };
    assert!((200..900).contains(&read), "{read}");

    let mut again = engine.submit(request.clone()).unwrap();
    let cached = again.find_map(|event| match event {
        Event::Started { cached_tokens, .. } => Some(cached_tokens),
        _ => None,
    });
    assert!(cached.is_some_and(|cached| cached >= read && cached < 900), "{cached:?} of {read} tokens were there");
    let (tokens, _) = answer(again);
    let fresh = Engine::new(&gpu, Arc::new(Checkpoint::tiny().unwrap()), &options, |_| ()).unwrap();
    assert_eq!(tokens, finished(&fresh, request));
}
