"""llama.cpp's public C interface through ctypes, as the npm package @node-llama-cpp/linux-x64-vulkan 3.22.1 ships its
libraries.

The structs are those of llama.cpp v0.5.0, which that package was built from; other versions have others, so `Llama`
checks the defaults that the library fills in against those documented, and refuses a library that fills in anything
else.
"""

import atexit
import collections
import ctypes as c
import glob
import os
import shutil
import tarfile
import tempfile

VERSION = "v0.5.0"
PACKAGE = "@node-llama-cpp/linux-x64-vulkan@3.22.1"
WARN = 3  # the log level of a warning; above it are errors and continued lines


# fmt: off
class ModelParams(c.Structure):
    _fields_ = [
        ("devices", c.c_void_p), ("tensor_buft_overrides", c.c_void_p),
        ("n_gpu_layers", c.c_int32), ("split_mode", c.c_int), ("load_mode", c.c_int),
        ("lazy_mode", c.c_int), ("main_gpu", c.c_int32),
        ("tensor_split", c.c_void_p), ("progress_callback", c.c_void_p), ("progress_callback_user_data", c.c_void_p),
        ("kv_overrides", c.c_void_p),
        ("vocab_only", c.c_bool), ("check_tensors", c.c_bool), ("use_extra_bufts", c.c_bool),
        ("no_host", c.c_bool), ("no_alloc", c.c_bool), ("load_mtp", c.c_bool),
    ]


class ContextParams(c.Structure):
    _fields_ = [
        ("n_ctx", c.c_uint32), ("n_batch", c.c_uint32), ("n_ubatch", c.c_uint32), ("n_seq_max", c.c_uint32),
        ("n_rs_seq", c.c_uint32),
        ("n_outputs_max", c.c_uint32), ("n_outputs_max_per_seq", c.c_uint32), ("n_threads", c.c_int32),
        ("n_threads_batch", c.c_int32),
        ("ctx_type", c.c_int), ("rope_scaling_type", c.c_int), ("pooling_type", c.c_int), ("attention_type", c.c_int),
        ("flash_attn_type", c.c_int),
        ("rope_freq_base", c.c_float), ("rope_freq_scale", c.c_float), ("yarn_ext_factor", c.c_float),
        ("yarn_attn_factor", c.c_float),
        ("yarn_beta_fast", c.c_float), ("yarn_beta_slow", c.c_float), ("yarn_orig_ctx", c.c_uint32),
        ("defrag_thold", c.c_float),
        ("cb_eval", c.c_void_p), ("cb_eval_user_data", c.c_void_p), ("type_k", c.c_int), ("type_v", c.c_int),
        ("abort_callback", c.c_void_p), ("abort_callback_data", c.c_void_p),
        ("embeddings", c.c_bool), ("offload_kqv", c.c_bool), ("no_perf", c.c_bool), ("op_offload", c.c_bool),
        ("swa_full", c.c_bool), ("kv_unified", c.c_bool),
        ("samplers", c.c_void_p), ("n_samplers", c.c_size_t), ("ctx_other", c.c_void_p),
    ]


class Batch(c.Structure):
    _fields_ = [
        ("n_tokens", c.c_int32), ("token", c.POINTER(c.c_int32)), ("embd", c.c_void_p), ("pos", c.POINTER(c.c_int32)),
        ("n_seq_id", c.POINTER(c.c_int32)), ("seq_id", c.POINTER(c.POINTER(c.c_int32))),
        ("logits", c.POINTER(c.c_int8)),
    ]


class Perf(c.Structure):
    _fields_ = [
        ("t_start_ms", c.c_double), ("t_load_ms", c.c_double), ("t_p_eval_ms", c.c_double), ("t_eval_ms", c.c_double),
        ("n_p_eval", c.c_int32), ("n_eval", c.c_int32), ("n_reused", c.c_int32),
    ]


# (library, name, result, arguments)
FUNCTIONS = [
    ("ggml", "ggml_backend_load_all_from_path", None, [c.c_char_p]),
    ("ggml", "ggml_backend_dev_count", c.c_size_t, []),
    ("ggml", "ggml_backend_dev_get", c.c_void_p, [c.c_size_t]),
    ("base", "ggml_backend_dev_name", c.c_char_p, [c.c_void_p]),
    ("base", "ggml_backend_dev_description", c.c_char_p, [c.c_void_p]),
    ("llama", "llama_log_set", None, [c.c_void_p, c.c_void_p]),
    ("llama", "llama_backend_init", None, []),
    ("llama", "llama_model_default_params", ModelParams, []),
    ("llama", "llama_context_default_params", ContextParams, []),
    ("llama", "llama_model_load_from_file", c.c_void_p, [c.c_char_p, ModelParams]),
    ("llama", "llama_model_free", None, [c.c_void_p]),
    ("llama", "llama_model_get_vocab", c.c_void_p, [c.c_void_p]),
    ("llama", "llama_vocab_n_tokens", c.c_int32, [c.c_void_p]),
    ("llama", "llama_tokenize", c.c_int32,
     [c.c_void_p, c.c_char_p, c.c_int32, c.POINTER(c.c_int32), c.c_int32, c.c_bool, c.c_bool]),
    ("llama", "llama_init_from_model", c.c_void_p, [c.c_void_p, ContextParams]),
    ("llama", "llama_free", None, [c.c_void_p]),
    ("llama", "llama_n_ctx", c.c_uint32, [c.c_void_p]),
    ("llama", "llama_get_memory", c.c_void_p, [c.c_void_p]),
    ("llama", "llama_memory_clear", None, [c.c_void_p, c.c_bool]),
    ("llama", "llama_memory_seq_rm", c.c_bool, [c.c_void_p, c.c_int32, c.c_int32, c.c_int32]),
    ("llama", "llama_batch_init", Batch, [c.c_int32, c.c_int32, c.c_int32]),
    ("llama", "llama_batch_free", None, [Batch]),
    ("llama", "llama_decode", c.c_int32, [c.c_void_p, Batch]),
    ("llama", "llama_synchronize", None, [c.c_void_p]),
    ("llama", "llama_get_logits_ith", c.POINTER(c.c_float), [c.c_void_p, c.c_int32]),
    ("llama", "llama_perf_context", Perf, [c.c_void_p]),
    ("llama", "llama_perf_context_reset", None, [c.c_void_p]),
]
# fmt: on


class Failed(Exception):
    """What llama.cpp said when something did not work."""


class Llama:
    """The libraries of a folder or of the package's .tgz, loaded; their functions are attributes."""

    def __init__(self, path):
        folder = find_libraries(path)
        pick = lambda pattern: next(iter(sorted(glob.glob(os.path.join(folder, pattern)))), None)
        names = {"base": pick("libggml-base.so*"), "ggml": pick("libggml.*so*"), "llama": pick("libllama.*so*")}
        absent = [name for name, found in names.items() if not found]
        if absent:
            raise Failed(f"{folder} has no library {', '.join(absent)}")
        libraries = {name: c.CDLL(found, mode=c.RTLD_GLOBAL) for name, found in names.items()}
        for library, name, result, arguments in FUNCTIONS:
            function = getattr(libraries[library], name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
        self.said = collections.deque(maxlen=200)
        self.keep_log = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)(self.log)
        self.llama_log_set(c.cast(self.keep_log, c.c_void_p), None)
        self.ggml_backend_load_all_from_path(folder.encode())
        self.llama_backend_init()
        model, context = self.llama_model_default_params(), self.llama_context_default_params()
        met = (
            model.n_gpu_layers,
            model.use_extra_bufts,
            context.n_ctx,
            context.n_batch,
            context.n_ubatch,
            context.flash_attn_type,
            context.type_k,
            context.type_v,
            context.offload_kqv,
            context.n_samplers,
        )
        if met != (-1, True, 512, 2048, 512, -1, 1, 1, True, 0):
            raise Failed(f"these libraries are not llama.cpp {VERSION} ({PACKAGE}): their defaults read as {met}")

    def log(self, level, text, _):
        if level >= WARN:
            self.said.append(text.decode("utf-8", "replace"))

    def words(self):
        """The last warnings and errors, word for word; forgets them."""
        words = "".join(self.said).strip()
        self.said.clear()
        return words

    def devices(self):
        """Name and description of every device, the CPU's among them."""
        of = [self.ggml_backend_dev_get(index) for index in range(self.ggml_backend_dev_count())]
        return [
            [self.ggml_backend_dev_name(device).decode(), self.ggml_backend_dev_description(device).decode()]
            for device in of
        ]


def find_libraries(path):
    """The folder below `path` (or in the archive `path`) that holds libllama."""
    if os.path.isfile(path):
        folder = tempfile.mkdtemp(prefix="llama-cpp-")
        atexit.register(shutil.rmtree, folder, True)
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data") if hasattr(tarfile, "data_filter") else archive.extractall(folder)
        path = folder
    for folder, _, files in os.walk(path):
        if any(name.startswith("libllama.") for name in files):
            return folder
    raise Failed(f"no libllama below {path}: fetch {PACKAGE} and give its .tgz or folder (tools/peers/README.md)")


class Model:
    """A GGUF file on the adapter, all layers there."""

    def __init__(self, api, path):
        self.api = api
        params = api.llama_model_default_params()
        self.handle = api.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle:
            raise Failed(api.words() or f"{path} was not loaded, and nothing was said")
        self.vocab = api.llama_model_get_vocab(self.handle)
        self.vocab_size = api.llama_vocab_n_tokens(self.vocab)

    def tokenize(self, text):
        data = text.encode()
        ids = (c.c_int32 * (len(data) + 8))()
        count = self.api.llama_tokenize(self.vocab, data, len(data), ids, len(ids), True, True)
        if count < 0:
            raise Failed(f"{text!r} was not tokenised")
        return ids[:count]


class Context:
    """A KV cache of `n_ctx` tokens and a batch of `chunk`; sequences share the cache."""

    def __init__(self, model, n_ctx, chunk=2048, sequences=1):
        self.model, self.api, self.chunk = model, model.api, chunk
        params = self.api.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, chunk, min(chunk, 512)
        params.n_seq_max, params.kv_unified, params.no_perf = sequences, sequences > 1, False
        self.handle = self.api.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise Failed(self.api.words() or "no context was made, and nothing was said")
        self.batch = self.api.llama_batch_init(chunk, 0, 1)
        self.memory = self.api.llama_get_memory(self.handle)

    def decode(self, entries, every=False):
        """Runs `(token, position, sequence)` entries, a chunk at most, and waits; logits of the last or of all."""
        batch = self.batch
        for index, (token, position, sequence) in enumerate(entries):
            batch.token[index], batch.pos[index], batch.n_seq_id[index] = token, position, 1
            batch.seq_id[index][0] = sequence
            batch.logits[index] = every or index + 1 == len(entries)
        batch.n_tokens = len(entries)
        code = self.api.llama_decode(self.handle, batch)
        if code != 0:
            raise Failed(self.api.words() or f"llama_decode returned {code}, and nothing was said")
        self.api.llama_synchronize(self.handle)

    def logits(self):
        """A view of the last entry's logits."""
        return c.cast(
            self.api.llama_get_logits_ith(self.handle, -1), c.POINTER(c.c_float * self.model.vocab_size)
        ).contents

    def perf(self):
        return self.api.llama_perf_context(self.handle)

    def close(self):
        self.api.llama_batch_free(self.batch)
        self.api.llama_free(self.handle)
