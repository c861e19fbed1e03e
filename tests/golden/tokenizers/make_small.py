"""Makes the small tokenizers of this folder and small_goldens.json with them; needs `pip install tokenizers==0.23.3`.

    python3 make_small.py goldens.json ../../../models/tiny-stories/tokenizer.json TEXT

TEXT is any English text of some 100 KB (the public-domain novels of Jane Austen were used). `spm_small` has the pipeline of Llama 2,
`split_small` that of Llama 3, each with 600 tokens; `tiny_stories` is the tokenizer of the embedded model.
"""

import json
import sys

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def spm_small(lines):
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tok.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    first = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    words = [word for line in lines for word in line.split()]
    tok.train_from_iterator(words, trainers.BpeTrainer(vocab_size=600, special_tokens=first, show_progress=False))
    data = json.loads(tok.to_str())
    data["added_tokens"] = data["added_tokens"][:3]
    tok = Tokenizer.from_str(json.dumps(data))
    tok.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return tok


def split_small(lines):
    tok = Tokenizer(models.BPE(ignore_merges=True))
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tok.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tok.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=597, initial_alphabet=alphabet, show_progress=False))
    tok.add_special_tokens(["<|begin_of_text|>", "<|eot_id|>"])
    tok.add_tokens([AddedToken("<think>", normalized=False)])
    begin = tok.token_to_id("<|begin_of_text|>")
    tok.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<|begin_of_text|> $A <|eot_id|>",
                special_tokens=[("<|begin_of_text|>", begin), ("<|eot_id|>", begin + 1)],
            ),
        ]
    )
    return tok


def main():
    goldens, tiny, text = sys.argv[1:]
    lines = open(text, encoding="utf-8").read()[:100_000].splitlines()
    made = {"spm_small": spm_small(lines), "split_small": split_small(lines)}
    for name, tok in made.items():
        tok.save(f"{name}.json", pretty=False)
    made["tiny_stories"] = Tokenizer.from_file(tiny)
    texts = json.load(open(goldens, encoding="utf-8"))["texts"] + ["a <think>b</think> <|eot_id|> c", "<0x41>A\x00\x7f\u0080"]
    families = {}
    for name, tok in made.items():
        with_special = [tok.encode(text).ids for text in texts]
        families[name] = {
            "vocab": tok.get_vocab_size(),
            "with_special": with_special,
            "without_special": [tok.encode(text, add_special_tokens=False).ids for text in texts],
            "decoded": [tok.decode(ids, skip_special_tokens=True) for ids in with_special],
            "decoded_with_special": [tok.decode(ids, skip_special_tokens=False) for ids in with_special],
        }
    out = {"tokenizers": tokenizers.__version__, "texts": texts, "families": families}
    json.dump(out, open("small_goldens.json", "w", encoding="utf-8"), ensure_ascii=False)


main()
