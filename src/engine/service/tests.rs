//! What cannot be brought about from outside.

use super::*;
use crate::gpu::GpuOptions;
use crate::request::SamplingParams;

#[test]
fn a_panic_of_the_thread_ends_streams_and_refuses_requests() {
    let gpu = match Gpu::open(&GpuOptions::default()) {
        Err(Error::NoAdapter) if std::env::var_os("RAGLAN_REQUIRE_ADAPTER").is_none() => return,
        gpu => gpu.unwrap(),
    };
    let checkpoint = Arc::new(Checkpoint::tiny().unwrap());
    let options = EngineOptions { max_context: Some(512), max_sequences: 2, ..EngineOptions::default() };
    let engine = Engine::new(&gpu, checkpoint, &options, |_| ()).unwrap();
    let sampling = SamplingParams { max_tokens: 400, ..SamplingParams::default() };
    let request = Request::new(vec![517, 769, 260, 770], sampling);
    let mut stream = engine.submit(request.clone()).unwrap();
    assert!(matches!(stream.find(|event| matches!(event, Event::Token { .. })), Some(Event::Token { .. })));
    engine.0.commands.send(Command::Panic).unwrap();
    let last = stream.last().unwrap();
    assert!(matches!(&last, Event::Failed { message, .. } if message.contains("panic")), "{last:?}");
    let error = engine.submit(request).unwrap_err();
    assert!(matches!(&error, Error::EngineDown { reason } if reason.contains("panic")), "{error}");
}
