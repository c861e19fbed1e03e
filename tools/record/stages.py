"""The stages: their commands, at full sizes for a GPU with tens of gigabytes, at small ones for a software adapter."""

import glob
import os
import shutil
import subprocess
import tempfile

from run import Stage, Step

# What a run of one size measures. On an 80 GB card the cache of Llama-2-13B at f16 holds 60 to 72 thousand tokens, so
# what may not fit is apart from what does: the last depths, in two lists, the second prompt, and a ragged batch of 48K
# tokens at most. A depth that does not fit has a row that says for how much there is room. `square` is the product of
# 4096 cubed: Llama-2-7B's o_proj at 4,096 rows.
FULL = {
    "kernels": {
        "products": "--formats f16,q4_0 --rows 1,8,32,512 --depth 1024",
        "attention": "--formats f16 --rows 1 --depth 8192,32768,65536 --filter attention",
        # Eight contexts of an MHA model at 32K are more than a binding of 2 GiB holds.
        "attention-batch": "--formats f16 --rows 8 --depth 8192,16384 --filter attention",
        "square": "--models llama-2-7b --formats f16 --rows 4096 --depth 0 --filter linear",
        # What the driver's checks of buffer accesses cost, and what activations in 8 bits give.
        "unchecked": "--models llama-2-13b --formats f16,q4_0 --rows 1,512 --depth 8192 --no-robust-access",
        "int8": "--models llama-2-13b --formats q4_0 --rows 1,8 --depth 0 --filter linear --int8-activations",
    },
    "models": ["llama-2-7b", "llama-2-7b:q4_0", "llama-2-13b", "llama-3.1-8b", "llama-3.1-8b:q4_0", "qwen3-8b"],
    "model_options": "--prompt 512,2048 --gen 128 --batch 1,8,32",
    "deep": "llama-2-13b",
    "depths": "1024,2048,4096,8192,16384,32768,49152",
    "last_depths": ["53248,57344,59392,61440", "63488,65536,67584,69632,71680"],
    "deep_gen": "32",
    "ragged": {
        "llama-2-13b": "512,1024x4,2048x4,4096x2,24576",
        "llama-3.1-8b": "512x8,2048x8,4096x8,8192x6,32768x2",
    },
    "ragged_gen": "64",
    "prefill": ["70000", "57344"],
    # The headline contexts: f16 throughout as far as the card goes, and 280K in int8 weights and int4 keys and values. A
    # depth beyond the card has a row that says so; `1024..` ends at what fits.
    "long": {
        "f16": "--model synthetic:llama-2-13b --kv-type f16 --depth 1024.. --gen 100 --repetitions 2",
        "int4": "--model synthetic:llama-2-13b:int8_g128 --kv-type int4 --depth 1024..280000 --gen 100 --repetitions 2",
        "read": "--model synthetic:llama-2-13b:int8_g128 --kv-type int4 --depth 32768 --gen 32 --repetitions 1 --real-prefill",
    },
    "peer_depths": "1024,4096,16384,32768,65536",
    "longest": "81920",
    "peer_chunk": "2048",
    "shapes": "dynamic.json",
}
SMALL = {
    "kernels": {
        "products": "--models tiny --formats f16,q4_0 --rows 1,32 --depth 256 --repetitions 3",
        "attention": "--models tiny --formats f16 --rows 1 --depth 1024,2048 --repetitions 3 --filter attention",
        "unchecked": "--models tiny --formats f16,q4_0 --rows 1,32 --depth 256 --repetitions 3 --no-robust-access",
    },
    "models": ["tiny", "tiny:q4_0"],
    "model_options": "--prompt 128 --gen 8 --batch 1,4 --repetitions 3",
    "deep": "tiny",
    "depths": "128,256,512,1024,2048",
    "last_depths": ["3072", "4000"],
    "deep_gen": "8",
    "ragged": {"tiny": "64,128,256x2,1024"},
    "ragged_gen": "8",
    "prefill": ["2048", "512"],
    "long": {
        "f16": "--model synthetic:tiny --kv-type f16 --depth 256..4096 --gen 8 --repetitions 2",
        "int4": "--model synthetic:tiny:int8_g128 --kv-type int4 --depth 256..4096 --gen 8 --repetitions 2",
        "read": "--model synthetic:tiny:int8_g128 --kv-type int4 --depth 1024 --gen 4 --repetitions 1 --real-prefill",
    },
    "peer_depths": "128,512,1024",
    "longest": "1048576",
    "peer_chunk": "512",
    "shapes": "dynamic_small.json",
}


def stages(root, raglan, sizes, args):
    """Every stage; a step whose program is not at hand says what is missing."""
    of, weights = FULL if sizes == "full" else SMALL, scratch()
    deep, depths, each = of["deep"], of["depths"], 400 // len(of["models"])

    def bench(name, options, seconds):
        command = ["{raglan}", "bench", *options.split(), "--output", "json", "--max-seconds", "{seconds}"]
        return Step(name, command, seconds)

    def curve(name, model, depths, seconds):
        return bench(name, f"--model synthetic:{model} --prompt 0 --gen {of['deep_gen']} --depth {depths}", seconds)

    facts = [
        Step("devices", ["{raglan}", "devices", "--json"], 60),
        Step("adapter", ["{raglan}", "bench", "adapter", "--output", "json"], 120),
        Step("self-test", ["{raglan}", "self-test", "--json"], 400),
    ]
    kernels = [
        bench(name, f"kernels {options}", 190 if name == "products" else 50) for name, options in of["kernels"].items()
    ]
    models = [
        bench(f"model-{slug(model)}", f"--model synthetic:{model} {of['model_options']}", each)
        for model in of["models"]
    ]
    depth = [
        curve("curve", deep, depths, 180),
        curve("longer", deep, f"{of['last_depths'][0]} --repetitions 3", 90),
        curve("longest", deep, f"{of['last_depths'][1]} --repetitions 3", 90),
        curve("curve-q4", f"{deep}:q4_0", depths, 85),
    ]
    options = f"--prompt 0 --gen {of['ragged_gen']} --ragged"
    ragged = [
        bench(f"ragged-{slug(model)}", f"--model synthetic:{model} {options} {lengths}", 200)
        for model, lengths in of["ragged"].items()
    ]
    seconds = {"f16": 120, "int4": 160, "read": 90}
    long = [
        Step("kv-kernels", ["{raglan}", "self-test", "--filter", "twin/attention", "--json"], 80),
        *(bench(name, f"depth {options} --max-sequences 1", seconds[name]) for name, options in of["long"].items()),
    ]
    read = f"--model synthetic:{deep} --gen 0 --repetitions 1 --prompt"
    prefill = [
        bench(name, f"{read} {tokens}", seconds)
        for name, tokens, seconds in zip(("prefill", "prefill-shorter"), of["prefill"], (300, 440))
    ]
    return [
        Stage("self-test", facts),
        Stage("kernels", kernels),
        Stage("models", models),
        Stage("depth", depth),
        Stage("ragged", ragged),
        Stage("prefill", prefill),
        Stage("long", long),
        Stage("peer-llama", llama(root, raglan, of, args, weights), weights),
        Stage("peer-torch", torch(root, of, args)),
        Stage("tune", tune()),
        Stage("dynamic", dynamic(root, of, args)),
    ]


def tune():
    """Measurements of this adapter, weights trained on them, and how good those are. The dataset and the weights are in
    the archive; a collection that was cut off goes on from what it has."""
    dataset, weights = ("collect", "dataset.parquet"), ("train", "weights.safetensors")
    both = {"dataset.parquet": dataset, "weights.safetensors": weights}
    verb = ["{raglan}", "tune"]
    collect = [*verb, "collect", "--minutes", "{minutes}", "--out", "dataset.parquet", "--json"]
    train = [*verb, "train", "dataset.parquet", "--out", "weights.safetensors", "--json"]
    evaluate = [*verb, "evaluate", "--dataset", "dataset.parquet", "--weights", "weights.safetensors"]
    return [
        Step("collect", collect, 330, takes={"dataset.parquet": dataset}),
        Step("train", train, 80, takes={"dataset.parquet": dataset}),
        Step("evaluate", [*evaluate, "--plot-dir", ".", "--json"], 60, takes=both),
    ]


def dynamic(root, of, args):
    """Products and attention over dynamic shapes: raglan's schedules by what stage `tune` trained, and the peers'
    runtimes."""
    shapes = os.path.join(root, "tools", "peers", of["shapes"])
    options = ["--modes", "default,predict,exhaustive", "--output", "json", "--max-seconds", "{seconds}"]
    ours = ["{raglan}", "bench", "shapes", "--shapes", shapes, *options]

    def peer(name, seconds, missing=None):
        script = os.path.join(root, "tools", "peers", "dynamic_peer.py")
        command = [args.python, script, name, "--shapes", shapes, "--max-seconds", "{seconds}"]
        return Step(name, command, seconds, missing)

    no_onnx = None if has_modules(args.python, "onnxruntime", "onnx") else "that Python has no onnxruntime with onnx"
    file = "weights.safetensors"
    weights = {file: ("tune/train", file, ["--weights", file])}
    return [Step("ours", ours, 250, borrows=weights), peer("torch", 120), peer("onnxruntime", 60, no_onnx)]


def has_modules(python, *names):
    """Whether that Python could import them all."""
    script = f"import importlib.util as of; exit(any(of.find_spec(name) is None for name in {names!r}))"
    try:
        return subprocess.run([python, "-c", script], stderr=subprocess.DEVNULL, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def llama(root, raglan, of, args, weights):
    """llama.cpp's curve, ragged batch and longest context, and its greedy tokens beside raglan's. The files of
    synthetic models are kept in the folder `weights` from step to step."""
    here = sorted(glob.glob(os.path.join(root, "target", "peers", "*linux-x64-vulkan*.tgz")))
    libraries = args.llama or (here[-1] if here else None)
    missing = None if libraries else "no libraries of llama.cpp were given by --llama (tools/peers/README.md)"
    path = os.path.abspath(libraries or "none")

    def peer(name, options, seconds):
        script = os.path.join(root, "tools", "peers", "llama_cpp.py")
        what, *more = options.split()
        command = [args.python, script, what, "--libraries", path, "--max-seconds", "{seconds}", "--keep"]
        return Step(name, [*command, "--scratch", weights, "--chunk", of["peer_chunk"], *more], seconds, missing)

    model, lengths = list(of["ragged"].items())[-1]
    script = os.path.join(root, "tools", "peers", "compare_tokens.py")
    files = ["--libraries", path, "--model", os.path.abspath(args.model or "none")]
    cases = ["--cases", os.path.join(root, "tools", "peers", "cases.jsonl")]
    compare = [args.python, script, "--raglan", raglan.binary, *files, *cases]
    no_model = None if args.model else "no GGUF file with a vocabulary was given by --model"
    return [
        peer("llama-curve", f"bench --model synthetic:{of['deep']} --depth {of['peer_depths']}", 190),
        # Beside the curve: its model's file is there.
        peer("llama-longest", f"longest --model synthetic:{of['deep']} --up-to {of['longest']}", 110),
        peer("llama-ragged", f"bench --model synthetic:{model} --depth 512 --ragged {lengths}", 140),
        Step("tokens", [*compare, "--max-seconds", "{seconds}", "--out", "tokens.json"], 400, missing or no_model),
    ]


def torch(root, of, args):
    """PyTorch's products and attention, and transformers' curve."""

    def peer(name, script, options, seconds):
        path = os.path.join(root, "tools", "peers", script)
        return Step(name, [args.python, path, "--max-seconds", "{seconds}", *options.split()], seconds)

    return [
        peer("torch", "torch_peer.py", "", 180),
        peer("transformers", "transformers_peer.py", f"--depth {of['peer_depths']},69632,71680", 240),
    ]


def scratch():
    """The folder of a peer's weights: in memory where there is room for a 13B model at f16, else the system's."""
    name = f"raglan-peers-{os.getuid()}"
    memory = os.path.join("/dev/shm", name)
    left_over = sum(os.path.getsize(path) for path in glob.glob(os.path.join(memory, "*")))
    room = os.path.isdir("/dev/shm") and shutil.disk_usage("/dev/shm").free + left_over > 32 << 30
    return memory if room else os.path.join(tempfile.gettempdir(), name)


def slug(name):
    return name.replace(":", "-").replace(".", "-")
