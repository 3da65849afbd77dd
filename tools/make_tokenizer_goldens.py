#!/usr/bin/env python3
"""Writes tests/golden/tokenizers.json with the public package (pip install 'tokenizers>=0.23', of
which earlier versions decode normalized added tokens without the space before them): small
tokenizers in the forms of GPT-2 and Llama, texts, and what the package makes of them.

Run by hand when the file should change; the build and the tests need no Python.
"""
import json
import sys

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CORPUS = [
    "the cat and the other cat sat on the mat, and that was that; they'll say it's theirs",
    "In the beginning there was the word 123 4567, and 2023 words   and    spaces\n\n\nmore\n",
    "caf\u00e9 na\u00efve \u65e5\u672c\u8a9e\u306e\u65e5\u672c \U0001f600\U0001f600 \u041f\u0440\u0438\u0432\u0435\u0442 \u043f\u0440\u0438\u0432\u0435\u0442",
] * 3
TEXTS = [
    "", " ", "the cat sat", " the  other   cats\n\n\n that's\r\n\tTHEY'LL ", "12345 1.5 2023",
    "caf\u00e9 cafe\u0301 \u65e5\u672c\u8a9e \u4e2d\u6587 \u041f\u0440\u0438\u0432\u0435\u0442",
    "\U0001f600\U0001f600 \U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea!?",
    "<s>the cat</s> and <|endoftext|>the mat<|endoftext|>", "\u00a0nbsp\u3000wide\u2028line\u0085x",
    "\u2581the\u2581\u2581cat", "<0x0A> <unk> a\x00b\x7f", "aaaaaaaaaaaaaaaaaaaaa that'S 'tis it'\u017f",
    "<s> <s>a <s>the mat</s><s> the mat", "\u2581<s>the\u2581mat theother the other</s>sat sat",
]


def train(tokenizer, size, **options):
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, **options)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return json.loads(tokenizer.to_str())


def byte_level(pre_tokenizer, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = pre_tokenizer
    return train(tokenizer, 320, special_tokens=["<|endoftext|>"],
                 initial_alphabet=pre_tokenizers.ByteLevel.alphabet())


def llama2(pre_tokenizer, fallback=True, fuse=True):
    """Trained with Metaspace, which keeps merges within words, as those of Llama 2 are."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=fallback, unk_token="<unk>", fuse_unk=fuse))
    tokenizer.pre_tokenizer = pre_tokenizer
    special = ["<unk>", "<s>", "</s>"]
    if fallback:
        special += [f"<0x{byte:02X}>" for byte in range(256)]
    result = train(tokenizer, len(special) + 80, limit_alphabet=40, special_tokens=special)
    result["added_tokens"] = result["added_tokens"][:3]
    return result


def llama2_decoder(tokenizer):
    tokenizer["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    return tokenizer


def llama2_normalized(crossing):
    """Words that only the normalizer marks; with a merge across them, or none."""
    result = llama2(pre_tokenizers.Metaspace(prepend_scheme="always"))
    result["normalizer"] = json.loads(normalizers.Sequence([
        normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]).__getstate__())
    result["pre_tokenizer"] = None
    model = result["model"]
    added = [("\u2581", "\u2581")] + ([("t", "\u2581")] if crossing else [])
    for left, right in added:
        model["vocab"].setdefault(left + right, len(model["vocab"]))
    model["merges"] = [list(pair) for pair in added] + model["merges"]
    return result


def with_added(tokenizer, added):
    """With these added tokens alone: content, whether it is special, whether it is normalized."""
    vocabulary = tokenizer["model"]["vocab"]
    tokens = []
    for content, special, normalized in added:
        tokens.append({"id": vocabulary.setdefault(content, len(vocabulary)), "content": content,
                       "single_word": False, "lstrip": False, "rstrip": False,
                       "normalized": normalized, "special": special})
    tokenizer["added_tokens"] = sorted(tokens, key=lambda token: token["id"])
    return tokenizer


def unsplit(tokenizer):
    tokenizer["pre_tokenizer"]["split"] = False
    return tokenizer


TOKENIZERS = {
    "gpt2": byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "gpt2_prefix_space": byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "llama3": byte_level(pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]), ignore_merges=True),
    "llama2": llama2_normalized(crossing=False),
    "llama2_merging_across_spaces": llama2_normalized(crossing=True),
    "llama2_added": with_added(llama2_normalized(crossing=False), [
        ("<unk>", True, True), ("<s>", True, True), ("</s>", True, False),
        ("the mat", False, True), (" other", True, True), ("sat", False, False)]),
    "llama2_metaspace": unsplit(llama2(pre_tokenizers.Metaspace(prepend_scheme="first"))),
    "metaspace_unknown": llama2(pre_tokenizers.Metaspace(prepend_scheme="always"), fallback=False),
    "metaspace_unfused": llama2(pre_tokenizers.Metaspace(prepend_scheme="never"), fallback=False,
                                fuse=False),
}
for name, tokenizer in TOKENIZERS.items():
    if name.startswith("llama2") or name.startswith("metaspace"):
        llama2_decoder(tokenizer)
    if name == "metaspace_unfused":  # nothing is set before the text
        tokenizer["decoder"]["decoders"].pop()
    if name == "gpt2":  # as GPT-2's own file has them
        tokenizer["model"]["merges"] = [" ".join(pair) for pair in tokenizer["model"]["merges"]]
        del tokenizer["model"]["type"]
    if name in ("gpt2", "gpt2_prefix_space", "llama3"):
        tokenizer["decoder"] = {"type": "ByteLevel", "add_prefix_space": True,
                                "trim_offsets": True, "use_regex": True}
    if name == "llama3":  # a word that no merges reach
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary["\u0120beginning"] = len(vocabulary)

golden = {"texts": TEXTS, "tokenizers": {}}
for name, file in TOKENIZERS.items():
    package = Tokenizer.from_str(json.dumps(file))
    ids = [package.encode(text, add_special_tokens=False).ids for text in TEXTS]
    golden["tokenizers"][name] = {
        "file": file,
        "ids": ids,
        "decoded": [package.decode(each, skip_special_tokens=False) for each in ids],
    }
with open(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/tokenizers.json", "w") as out:
    json.dump(golden, out, separators=(",", ":"))
    out.write("\n")
