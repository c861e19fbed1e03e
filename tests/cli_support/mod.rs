//! Runs the program from outside.

use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// How a run ended.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program with `args`, through `$RAGLAN_RUNNER` where that is set, as for software Vulkan. Nothing of the user's is
/// read: models come from `args` alone, and no network is used.
pub(crate) fn command(args: &[&str]) -> Command {
    let binary = env!("CARGO_BIN_EXE_raglan");
    let mut command = match std::env::var_os("RAGLAN_RUNNER").filter(|runner| !runner.is_empty()) {
        Some(runner) => {
            let mut command = Command::new(runner);
            command.arg(binary);
            command
        }
        None => Command::new(binary),
    };
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("raglan-cache");
    command.args(args).env("RAGLAN_CACHE", cache).env("RAGLAN_OFFLINE", "1").env_remove("RUST_LOG");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    command
}

/// Runs it to its end with `input` on standard input.
pub(crate) fn run_with(args: &[&str], input: impl AsRef<[u8]>) -> Run {
    let pipes = command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = pipes.expect("the program starts");
    // A program that has refused its arguments reads no input.
    let _ = child.stdin.take().expect("it is piped").write_all(input.as_ref());
    Run::new(child.wait_with_output().expect("the program ends"))
}

/// Runs it to its end.
pub(crate) fn run(args: &[&str]) -> Run {
    run_with(args, "")
}

/// Runs it to a good end; what it printed as JSON.
pub(crate) fn json(args: &[&str]) -> Value {
    let run = run(args);
    run.succeeds(args);
    assert_eq!(run.stdout.lines().count(), 1, "{args:?} printed more than an object: {}", run.stdout);
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {}", run.stdout))
}

impl Run {
    fn new(output: Output) -> Run {
        let text = |bytes| String::from_utf8(bytes).expect("the program writes UTF-8");
        Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    pub(crate) fn succeeds(&self, args: &[&str]) {
        assert_eq!(self.code, Some(0), "{args:?}: {}", self.stderr);
    }

    /// It failed with `code`, said all of `words` in one line, and nothing on standard output.
    pub(crate) fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{}", self.stderr);
        let told = self.stderr.lines().find(|line| words.iter().all(|word| line.contains(word)));
        assert!(told.is_some(), "wanted a line with {words:?}, met {}", self.stderr);
        assert!(code != 1 || self.stderr.lines().filter(|line| line.starts_with("raglan: error: ")).count() == 1);
    }
}

/// Whether there is an adapter to test with; says so where there is none, and fails where there must be one.
pub(crate) fn has_adapter() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let devices = run(&["devices"]);
        let found = devices.code == Some(0);
        let required = std::env::var_os("RAGLAN_REQUIRE_ADAPTER").is_some();
        assert!(found || devices.stderr.contains("adapter was found"), "devices failed: {}", devices.stderr);
        assert!(found || !required, "RAGLAN_REQUIRE_ADAPTER is set: {}", devices.stderr);
        if !found {
            eprintln!("skipped for want of an adapter: {}", devices.stderr);
        }
        found
    })
}

/// A new empty folder.
pub(crate) fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("the folder for tests can be written");
    path
}

/// A golden fixture.
pub(crate) fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).join("golden.json");
    serde_json::from_slice(&std::fs::read(&path).expect("the fixture is there")).expect("the fixture is JSON")
}

/// A list of ids as `--token-ids` takes it.
pub(crate) fn comma_separated(ids: &Value) -> String {
    ids.as_array().expect("a list").iter().map(Value::to_string).collect::<Vec<_>>().join(",")
}
