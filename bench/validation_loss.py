#!/usr/bin/python3
"""Trains one language model twice, with Concord and with PyTorch, and compares validation losses.

Both start from the same weights, which Concord draws from its seed (tools/make_goldens.py draws
them again), and take the same windows of tokens in the same order: that of Concord's sampler, drawn
again here. The configuration is a gpt without dropout on data.kind = "text", trained by adamw with
a constant or cosine schedule.

    bench/validation_loss.py --threads 2
"""
import argparse
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import time
import tomllib

import torch
from torch.nn import functional as F

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import make_goldens as reference

SHUFFLE_STREAM = 0xDA7A0001  # concord/data/streams.h
MODEL_DEFAULTS = {"layers": 6, "heads": 6, "key_value_heads": 0, "positions": "learned",
                  "norm": "layer_norm", "tied_embeddings": True, "dropout": 0}


def tokens_of(concord, tokenizer, text):
    with tempfile.NamedTemporaryFile(suffix=".txt") as file:
        file.write(text)
        file.flush()
        line = subprocess.run([concord, "tokenize", "--tokenizer", tokenizer, "--input", file.name,
                               "--ids"], check=True, capture_output=True, text=True).stdout
    return torch.tensor([int(word) for word in line.split()])


def windows(tokens, length):
    """Windows and, for each token, the token after it (concord/data/token_windows.h)."""
    count = (len(tokens) - 1) // length
    end = count * length
    return tokens[:end].view(count, length), tokens[1:end + 1].view(count, length)


def split(text, fraction):
    """As concord/data/text.cc: the last part, rounded down to whole characters."""
    first = len(text) - int(len(text) * fraction)
    while text[first] & 0xC0 == 0x80:
        first += 1
    return text[:first], text[first:]


def order(size, epoch):
    """As concord/data/sampler.cc."""
    places = list(range(size))
    bits = reference.philox_bits(SHUFFLE_STREAM, epoch, size)
    for i in range(size - 1):
        other = i + (int(bits[i]) * (size - i) >> 32)
        places[i], places[other] = places[other], places[i]
    return places


def learning_rate(config, step, total):
    schedule, base = config.get("schedule", {}), config["optimizer"]["learning_rate"]
    warmup = schedule.get("warmup_steps", 0)
    if step < warmup:
        return base * (step + 1) / warmup
    if schedule.get("name", "constant") == "constant":
        return base
    assert schedule["name"] == "cosine"
    least = schedule.get("final_learning_rate_fraction", 0)
    cosine = (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2
    return base * (least + (1 - least) * cosine)


def train_pytorch(config, tokens, validation, vocabulary, steps):
    model_config = {**MODEL_DEFAULTS, **config["model"]}
    assert model_config["name"] == "gpt" and model_config["dropout"] == 0
    assert config["optimizer"]["name"] == "adamw"
    model_config["key_value_heads"] = model_config["key_value_heads"] or model_config["heads"]
    length, batch = config["data"]["length"], config["train"]["batch"]
    model = reference.Gpt({**model_config, "classes": vocabulary, "sample": [length]})
    optimizer = reference.make_optimizer(
        model, {"optimizer": "adamw", "weight_decay": 0, **config["optimizer"]})
    inputs, labels = windows(tokens, length)
    per_epoch = math.ceil(len(inputs) / batch)
    total = config["train"]["epochs"] * per_epoch

    def loss_of(x, y):
        return F.cross_entropy(model(x).flatten(0, 1), y.flatten())

    for step in range(steps):
        if step % per_epoch == 0:
            places = order(len(inputs), step // per_epoch)
        chosen = places[step % per_epoch * batch:][:batch]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step, total)
        optimizer.zero_grad()
        loss = loss_of(inputs[chosen], labels[chosen])
        loss.backward()
        optimizer.step()
        if (step + 1) % 50 == 0:
            print(f"PyTorch step {step + 1}: loss {loss.item():.4f}", file=sys.stderr)
    with torch.no_grad():
        x, y = windows(validation, length)
        sums = [loss_of(x[i:i + batch], y[i:i + batch]).item() * len(x[i:i + batch])
                for i in range(0, len(x), batch)]
    return sum(sums) / len(x)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--config", default=ROOT / "bench/configs/gpt_text.toml")
    parser.add_argument("--concord", default=ROOT / "build/release/concord")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = tomllib.loads(pathlib.Path(arguments.config).read_text())
    data, steps = config["data"], config["train"]["max_steps"]

    with tempfile.TemporaryDirectory() as folder:
        started = time.time()
        command = [arguments.concord, "train", arguments.config, "--json", "--quiet", "--set",
                   f"output.dir={folder}/run", "--set", f"train.threads={arguments.threads}"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        ours = json.loads(output.splitlines()[-1])
        ours["seconds"] = time.time() - started

    text = pathlib.Path(data["dir"], data.get("train_file", "train.txt")).read_bytes()
    parts = [tokens_of(arguments.concord, data["tokenizer"], part)
             for part in split(text, data.get("test_fraction", 0.1))]
    vocabulary = len(json.loads(pathlib.Path(data["tokenizer"]).read_text())["model"]["vocab"])
    theirs = train_pytorch(config, *parts, vocabulary, steps)
    print(json.dumps({"steps": steps, "concord_loss": ours["loss"], "pytorch_loss": theirs,
                      "relative_difference": abs(ours["loss"] - theirs) / theirs,
                      "pytorch": torch.__version__}))


if __name__ == "__main__":
    main()
