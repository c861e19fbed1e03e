//! Fetching models, against a little server on this machine.

mod hub_server;

use std::path::PathBuf;
use std::time::Duration;

use hub_server::{Page, Server, sha256};
use raglan_models::hub::{Cache, Hub, HubName, Source, resolve};
use raglan_models::{Error, hub};

/// A cache in a folder that goes away.
fn fresh() -> (tempfile::TempDir, Cache) {
    let folder = tempfile::tempdir().expect("there is a folder for temporary files");
    let cache = Cache::at(folder.path());
    (folder, cache)
}

fn hub(cache: &Cache, server: &Server) -> Hub {
    with(Hub::new(cache.clone(), &server.address()), |hub| hub.retry_wait = Duration::from_millis(5))
}

fn with(mut hub: Hub, change: impl FnOnce(&mut Hub)) -> Hub {
    change(&mut hub);
    hub
}

fn name(text: &str) -> HubName {
    HubName::parse(text).expect("is a name")
}

fn fetch(hub: &Hub, text: &str) -> Result<PathBuf, Error> {
    hub.fetch(&name(text), &mut |_| {})
}

/// A repository of safetensors, as the hub serves one: everything under `main`, then by commit.
fn repository(files: &[(&str, &[u8])]) -> Server {
    let server = Server::start();
    for (file, bytes) in files {
        for revision in ["main", "c0ffee"] {
            let page = Page::new(bytes).header("x-repo-commit", "c0ffee").header("etag", "\"0123abcd\"");
            server.put(&format!("/org/model/resolve/{revision}/{file}"), page);
        }
    }
    server
}

const FOLDER: &[(&str, &[u8])] = &[
    ("config.json", b"{}"),
    ("tokenizer.json", b"{\"t\": 1}"),
    ("model.safetensors.index.json", br#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#),
    ("model-1.safetensors", b"one"),
    ("model-2.safetensors", b"two"),
];

#[test]
fn a_folder_is_fetched_whole_and_only_once() {
    let (_folder, cache) = fresh();
    let server = repository(FOLDER);
    let hub = hub(&cache, &server);
    let path = fetch(&hub, "org/model").expect("fetches");
    for (file, bytes) in FOLDER {
        assert_eq!(&std::fs::read(path.join(file)).expect("is there"), bytes, "{file}");
    }
    assert!(!path.join("chat_template.jinja").exists());
    let asked = server.requests();
    assert!(asked[1..].iter().filter(|r| r.method == "GET").all(|r| r.path.contains("/resolve/c0ffee/")), "{asked:?}");
    assert_eq!(fetch(&hub, "org/model").expect("is cached"), path);
    let offline = with(hub, |hub| hub.offline = true);
    assert_eq!(fetch(&offline, "org/model").expect("is cached"), path);
    assert_eq!(server.requests().len(), asked.len(), "the second time asks nothing");
    assert_eq!(cache.models_here(), ["org/model"]);
}

#[test]
fn a_download_goes_on_where_it_was_cut() {
    let (_folder, cache) = fresh();
    let bytes: Vec<u8> = (0..1_000_000u32).map(|i| (i * 7 % 251) as u8).collect();
    let server = Server::start();
    let page = Page::new(&bytes).header("x-linked-etag", &format!("\"{}\"", sha256(&bytes)));
    server.put("/org/model/resolve/main/m.gguf", page.clone().cut_after(300_000, 2));
    let hub = hub(&cache, &server);
    let mut last = 0;
    let path = hub.fetch(&name("org/model:m.gguf"), &mut |progress| {
        assert!(progress.done > last && progress.total == Some(1_000_000) && progress.file == "m.gguf");
        last = progress.done;
    });
    assert_eq!(std::fs::read(path.expect("fetches")).expect("is there"), bytes);
    assert_eq!(last, 1_000_000);
    let ranges: Vec<String> = server.requests().into_iter().filter_map(|request| request.range).collect();
    assert_eq!(ranges, ["bytes=300000-", "bytes=600000-"]);

    // And in a later run of the program.
    let (_folder, cache) = fresh();
    let hub = with(hub, |hub| hub.cache = cache);
    server.put("/org/model/resolve/main/m.gguf", page.clone().cut_after(400_000, 1).then_status(503));
    let refusal = fetch(&hub, "org/model:m.gguf").expect_err("gives up").to_string();
    assert!(refusal.contains("503") && refusal.contains("400000 bytes are kept"), "{refusal}");
    server.put("/org/model/resolve/main/m.gguf", page);
    assert_eq!(std::fs::read(fetch(&hub, "org/model:m.gguf").expect("fetches")).expect("is there"), bytes);
    assert_eq!(server.requests().last().and_then(|request| request.range.clone()).as_deref(), Some("bytes=400000-"));
}

#[test]
fn a_server_that_knows_no_ranges_starts_again() {
    let (_folder, cache) = fresh();
    let bytes = vec![7; 50_000];
    let server = Server::start();
    server.put("/org/model/resolve/main/m.gguf", Page::new(&bytes).without_ranges().cut_after(20_000, 1));
    let path = fetch(&hub(&cache, &server), "org/model:m.gguf").expect("fetches");
    assert_eq!(std::fs::read(path).expect("is there"), bytes);
}

#[test]
fn what_is_damaged_is_thrown_away() {
    let (folder, cache) = fresh();
    let server = Server::start();
    let wrong = format!("\"{}\"", sha256(b"something else"));
    server.put("/org/model/resolve/main/m.gguf", Page::new(b"bytes").header("x-linked-etag", &wrong));
    let refusal = fetch(&hub(&cache, &server), "org/model:m.gguf").expect_err("is damaged").to_string();
    assert!(refusal.contains("sha256") && refusal.contains("try again"), "{refusal}");
    let left = std::fs::read_dir(folder.path().join("models/org--model")).expect("is there").count();
    assert_eq!(left, 0);
}

#[test]
fn the_token_goes_to_the_hub_and_not_to_where_it_leads() {
    let (_folder, cache) = fresh();
    let (server, elsewhere) = (Server::start(), Server::start());
    let bytes = b"large";
    elsewhere.put("/store", Page::new(bytes));
    let page = Page::redirect(&format!("{}/store", elsewhere.address()))
        .header("x-linked-etag", &sha256(bytes))
        .header("x-linked-size", "5");
    server.put("/org/new/resolve/main/m.gguf", page);
    server.put("/org/old/resolve/main/m.gguf", Page::redirect("/org/new/resolve/main/m.gguf"));
    let hub = with(hub(&cache, &server), |hub| hub.token = Some("secret".into()));
    let path = fetch(&hub, "org/old:m.gguf").expect("fetches");
    assert_eq!(std::fs::read(path).expect("is there"), bytes);
    assert!(server.requests().iter().filter(|r| r.method == "HEAD").all(|r| r.authorized), "{:?}", server.requests());
    assert!(elsewhere.requests().iter().all(|request| !request.authorized), "{:?}", elsewhere.requests());
    assert_eq!(elsewhere.requests().len(), 1);
}

#[test]
fn refusals_say_what_to_do() {
    let (_folder, cache) = fresh();
    let server = repository(&[]);
    server.put("/org/gated/resolve/main/m.gguf", Page::status(401));
    server.put("/org/gone/resolve/main/m.gguf", Page::status(404).header("x-error-code", "RepoNotFound"));
    server.put("/org/circle/resolve/main/m.gguf", Page::redirect("/org/circle/resolve/main/m.gguf"));
    server.put("/org/long/resolve/main/m.gguf", Page::new(b"four").header("x-linked-size", "3"));
    let hub = hub(&cache, &server);
    for (model, word) in [
        ("org/gated:m.gguf", "HF_TOKEN"),
        ("org/gone:m.gguf", "no such repository"),
        ("org/model:m.gguf", "this file is not"),
        ("org/model", "name one of its .gguf files"),
        ("org/circle:m.gguf", "leads on"),
        ("org/long:m.gguf", "more than the 3 bytes"),
    ] {
        let refusal = fetch(&hub, model).expect_err(model).to_string();
        assert!(refusal.starts_with(model) && refusal.contains(word), "{refusal}");
    }
    let gone = Server::start().address();
    let nobody = with(Hub::new(cache, &gone), |hub| hub.retry_wait = Duration::ZERO);
    let refusal = fetch(&nobody, "org/model:m.gguf").expect_err("nobody listens").to_string();
    assert!(refusal.contains("is the network there"), "{refusal}");
}

#[test]
fn offline_says_what_is_in_the_cache() {
    let (_folder, cache) = fresh();
    let offline = with(Hub::new(cache.clone(), "http://127.0.0.1:9"), |hub| hub.offline = true);
    let refusal = fetch(&offline, "org/model").expect_err("is not here").to_string();
    assert!(refusal.contains("org/model is not in the cache") && refusal.contains("which has nothing"), "{refusal}");
    std::fs::create_dir_all(cache.root().join("models")).expect("creates");
    std::fs::write(cache.default_path(), b"GGUF").expect("writes");
    let refusal = fetch(&offline, "org/model").expect_err("is not here").to_string();
    assert!(refusal.contains("which has smollm2-135m") && refusal.contains("RAGLAN_OFFLINE"), "{refusal}");
}

#[test]
fn an_index_cannot_name_files_outside_the_folder() {
    for shard in [
        "../evil.safetensors",
        "/etc/x.safetensors",
        "a\\b.safetensors",
        ".hidden.safetensors",
        "run.sh",
        "",
        "a%2fb.safetensors",
    ] {
        let (_folder, cache) = fresh();
        let index = serde_json::json!({ "weight_map": { "a": shard } }).to_string();
        let server = repository(&[("config.json", b"{}"), ("model.safetensors.index.json", index.as_bytes())]);
        let refusal = fetch(&hub(&cache, &server), "org/model").expect_err(shard).to_string();
        assert!(refusal.contains("index.json: weight_map") && refusal.contains("plain file name"), "{refusal}");
        assert!(server.requests().iter().all(|request| !request.path.contains("evil")));
    }
}

#[test]
fn a_name_means_what_it_says() {
    let (folder, cache) = fresh();
    let meaning = |text: &str| resolve(Some(text), &cache).map(|resolved| resolved.source);
    assert_eq!(meaning("tiny").expect("is known"), Source::Tiny);
    assert_eq!(meaning("Qwen/Qwen3-0.6B").expect("is known"), Source::Hub(name("Qwen/Qwen3-0.6B")));
    assert_eq!(meaning("qwen3-0.6b").expect("is known"), Source::Hub(name("Qwen/Qwen3-0.6B")));
    assert_eq!(meaning("a/b:c/d-Q4_0.gguf").expect("is known"), Source::Hub(name("a/b:c/d-Q4_0.gguf")));
    let here = folder.path().to_str().expect("is UTF-8");
    assert_eq!(meaning(here).expect("is there"), Source::Local(here.into()));
    for text in [
        "",
        "nothing",
        "./a/b",
        "/a/b",
        "a/b/c",
        "model.gguf",
        "a/b:../c.gguf",
        "a/..",
        "../b",
        "a/b:c.bin",
        "a b/c",
        "org/m.gguf",
    ] {
        let refusal = meaning(text).expect_err(text).to_string();
        assert!(refusal.contains("tiny") && refusal.contains("qwen3-0.6b"), "{refusal}");
    }
    for (short, long) in hub::SHORT_NAMES {
        assert!(HubName::parse(long).is_some(), "{short}");
    }
}

#[test]
fn without_a_name_the_default_model_answers_or_the_tiny_one_says_so() {
    let (_folder, cache) = fresh();
    let tiny = resolve(None, &cache).expect("always");
    assert_eq!(tiny.source, Source::Tiny);
    assert!(
        tiny.notice.is_some_and(|notice| notice.contains("tools/fetch-model") && notice.contains("nine story plots"))
    );
    assert!(matches!(resolve(Some("smollm2-135m"), &cache).expect("is known").source, Source::Hub(_)));
    std::fs::create_dir_all(cache.root().join("models")).expect("creates");
    std::fs::write(cache.default_path(), b"GGUF").expect("writes");
    for name in [None, Some("smollm2-135m"), Some("SmolLM2-135M")] {
        let resolved = resolve(name, &cache).expect("is here");
        assert_eq!((resolved.source, resolved.notice), (Source::Local(cache.default_path()), None));
    }
    let embedded = Source::Tiny.open(&Hub::new(cache, "http://127.0.0.1:9"), &mut |_| {});
    assert!(embedded.is_ok());
}
