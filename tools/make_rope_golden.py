"""Frequencies of RoPE's scalings as transformers computes them, for `models/tests/golden/rope_scaling.json`.

    python3 tools/make_rope_golden.py > models/tests/golden/rope_scaling.json

Wants torch and transformers; they compute in f32.
"""

import json

import transformers
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

# name, head_dim, rope_theta, max_position_embeddings, the scaling, lengths of the longest sequence
CASES = [
    ("llama-2, dynamic", 128, 1e4, 4096, {"rope_type": "dynamic", "factor": 4.0}, [1, 4096, 4097, 16384, 70000, 280000]),
    ("internlm2, dynamic", 128, 1e6, 32768, {"rope_type": "dynamic", "factor": 2.0}, [32768, 65536, 1048576]),
    ("small heads, dynamic", 6, 1e4, 2048, {"rope_type": "dynamic", "factor": 8.0}, [2048, 3000]),
    ("half of a head, dynamic", 64, 1e4, 2048, {"rope_type": "dynamic", "factor": 2.0, "partial_rotary_factor": 0.5}, [8192]),
    ("llama-2, linear", 128, 1e4, 4096, {"rope_type": "linear", "factor": 2.0}, [8192]),
    ("llama-2, yarn", 128, 1e4, 16384, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}, [16384]),
    ("qwen3, yarn", 128, 1e6, 131072, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, [131072]),
]


def case(name, head_dim, theta, positions, scaling, lengths):
    config = LlamaConfig(
        hidden_size=4 * head_dim,
        num_attention_heads=4,
        head_dim=head_dim,
        max_position_embeddings=positions,
        rope_parameters={**scaling, "rope_theta": theta},
    )
    of = []
    for length in lengths:
        inv_freq, attention_factor = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config, "cpu", length)
        of.append({"longest": length, "attention_factor": attention_factor, "inv_freq": inv_freq.tolist()})
    given = {"head_dim": head_dim, "max_position_embeddings": positions, "rope_theta": theta, "rope_scaling": scaling}
    return {"name": name, **given, "of": of}


print(json.dumps({"made_by": f"tools/make_rope_golden.py, transformers {transformers.__version__}", "cases": [case(*of) for of in CASES]}))
