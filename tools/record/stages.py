"""The stages: their commands, at full sizes for a GPU with tens of gigabytes, at small ones for a software adapter."""

import glob
import os
import shutil

from run import Stage, Step

# What a run of one size measures. The last depths are apart, since some of them may not fit:
# a depth that does not has a row that says for how much there is room.
FULL = {
    "models": ["llama-2-7b", "llama-2-7b:q4_0", "llama-2-13b", "llama-3.1-8b", "llama-3.1-8b:q4_0", "qwen3-8b"],
    "model_options": ["--prompt", "512,2048", "--gen", "128", "--batch", "1,8,32"],
    "kernels": {
        "products": ["--formats", "f16,q4_0", "--rows", "1,8,32,512", "--depth", "1024"],
        "attention": ["--formats", "f16", "--rows", "1,8", "--depth", "8192,32768,65536", "--filter", "attention"],
        "square": [
            "--models",
            "llama-2-7b",
            "--formats",
            "f16",
            "--rows",
            "4096",
            "--depth",
            "0",
            "--filter",
            "linear",
        ],
    },
    "deep": "llama-2-13b",
    "depths": "1024,2048,4096,8192,16384,32768,49152,65536",
    "last_depths": "66560,67584,68608,69632,70656,71680",
    "deep_gen": "32",
    "ragged": {"llama-2-13b": "512,1024x4,2048x4,4096x3,32768", "llama-3.1-8b": "512x8,2048x8,4096x8,8192x6,32768x2"},
    "ragged_gen": "64",
    "prefill": "70000",
    "peer_depths": "1024,4096,16384,32768,65536",
    "longest": "81920",
    "peer_chunk": "2048",
}
SMALL = {
    "models": ["tiny", "tiny:q4_0"],
    "model_options": ["--prompt", "128", "--gen", "8", "--batch", "1,4", "--repetitions", "3"],
    "kernels": {
        "products": [
            "--models",
            "tiny",
            "--formats",
            "f16,q4_0",
            "--rows",
            "1,32",
            "--depth",
            "256",
            "--repetitions",
            "3",
        ],
        "attention": [
            "--models",
            "tiny",
            "--formats",
            "f16",
            "--rows",
            "1",
            "--depth",
            "1024,2048",
            "--repetitions",
            "3",
            "--filter",
            "attention",
        ],
    },
    "deep": "tiny",
    "depths": "128,256,512,1024,2048",
    "last_depths": "3072,4000",
    "deep_gen": "8",
    "ragged": {"tiny": "64,128,256x2,1024"},
    "ragged_gen": "8",
    "prefill": "2048",
    "peer_depths": "128,512,1024",
    "longest": "1048576",
    "peer_chunk": "512",
}


def stages(root, raglan, sizes, args):
    """Every stage; a step whose program is not at hand says what is missing."""
    of = FULL if sizes == "full" else SMALL
    bench = lambda *options: ["{raglan}", "bench", *options, "--output", "json", "--max-seconds", "{seconds}"]
    on = lambda model: ("--model", f"synthetic:{model}")
    each = 400 // len(of["models"])
    return [
        Stage(
            "self-test",
            [
                Step("devices", ["{raglan}", "devices", "--json"], 60),
                Step("adapter", ["{raglan}", "bench", "adapter", "--output", "json"], 120),
                Step("self-test", ["{raglan}", "self-test", "--json"], 400),
            ],
        ),
        Stage(
            "kernels",
            [
                Step(name, bench("kernels", *options), 150 if name != "products" else 220)
                for name, options in of["kernels"].items()
            ],
        ),
        Stage(
            "models",
            [Step(f"model-{slug(model)}", bench(*on(model), *of["model_options"]), each) for model in of["models"]],
        ),
        Stage(
            "depth",
            [
                Step(
                    "curve",
                    bench(*on(of["deep"]), "--prompt", "0", "--gen", of["deep_gen"], "--depth", of["depths"]),
                    240,
                ),
                Step(
                    "longest",
                    bench(*on(of["deep"]), "--prompt", "0", "--gen", of["deep_gen"], "--depth", of["last_depths"]),
                    100,
                ),
                Step(
                    "curve-q4",
                    bench(*on(of["deep"] + ":q4_0"), "--prompt", "0", "--gen", of["deep_gen"], "--depth", of["depths"]),
                    100,
                ),
            ],
        ),
        Stage(
            "ragged",
            [
                Step(
                    f"ragged-{slug(model)}",
                    bench(*on(model), "--prompt", "0", "--gen", of["ragged_gen"], "--ragged", lengths),
                    200,
                )
                for model, lengths in of["ragged"].items()
            ],
        ),
        Stage(
            "prefill",
            [
                Step(
                    "prefill",
                    bench(*on(of["deep"]), "--prompt", of["prefill"], "--gen", "0", "--repetitions", "1"),
                    440,
                )
            ],
        ),
        Stage("peer-llama", llama(root, raglan, of, args)),
        Stage("peer-torch", torch(root, of, args)),
    ]


def llama(root, raglan, of, args):
    libraries = args.llama or next(
        iter(sorted(glob.glob(os.path.join(root, "target", "peers", "*linux-x64-vulkan*.tgz")))), None
    )
    missing = (
        None
        if libraries
        else "no libraries of llama.cpp were given by --llama (tools/peers/README.md says how to fetch them)"
    )
    peer = lambda what, *options: [
        args.python,
        os.path.join(root, "tools", "peers", "llama_cpp.py"),
        what,
        "--libraries",
        os.path.abspath(libraries or "none"),
        "--max-seconds",
        "{seconds}",
        "--chunk",
        of["peer_chunk"],
        *scratch(),
        *options,
    ]
    model, lengths = list(of["ragged"].items())[-1]
    steps = [
        Step(
            "llama-curve",
            peer("bench", "--model", f"synthetic:{of['deep']}", "--depth", of["peer_depths"]),
            190,
            missing,
        ),
        Step(
            "llama-ragged",
            peer("bench", "--model", f"synthetic:{model}", "--depth", "512", "--ragged", lengths),
            140,
            missing,
        ),
        Step(
            "llama-longest",
            peer("longest", "--model", f"synthetic:{of['deep']}", "--up-to", of["longest"]),
            110,
            missing,
        ),
    ]
    without = missing or (None if args.model else "no GGUF file with a vocabulary was given by --model")
    compare = [
        args.python,
        os.path.join(root, "tools", "peers", "compare_tokens.py"),
        "--raglan",
        raglan.binary,
        "--libraries",
        os.path.abspath(libraries or "none"),
        "--model",
        os.path.abspath(args.model or "none"),
        "--cases",
        os.path.join(root, "tools", "peers", "cases.jsonl"),
        "--max-seconds",
        "{seconds}",
        "--out",
        "tokens.json",
    ]
    return [*steps, Step("tokens", compare, 300, without)]


def torch(root, of, args):
    script = lambda name: [args.python, os.path.join(root, "tools", "peers", name), "--max-seconds", "{seconds}"]
    return [
        Step("torch", script("torch_peer.py"), 180),
        Step("transformers", [*script("transformers_peer.py"), "--depth", f"{of['peer_depths']},69632,71680"], 240),
    ]


def scratch():
    """Memory for a peer's weights where there is room for a 13B model at f16; else the system's folder is taken."""
    room = os.path.isdir("/dev/shm") and shutil.disk_usage("/dev/shm").free > 32 << 30
    return ["--scratch", "/dev/shm"] if room else []


def slug(name):
    return name.replace(":", "-").replace(".", "-")
