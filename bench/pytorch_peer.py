#!/usr/bin/env python3
"""PyTorch's side of bench/compare: trains one work on random data and answers with its speed.

    pytorch_peer.py WORK --threads N [--precision bf16] [--channels-last] [--compile] [--ranks N]

Once the first step is done it prints one JSON line; then, for each line "SECONDS" that it reads, it
times steps for so long and prints another. With --ranks so many processes train by
DistributedDataParallel over Gloo, each on a batch of its own; their samples count together. The
models are written as PyTorch's users write them; attention, AdamW and SGD take the fused form where
this version of PyTorch has it.
"""
import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from torch import nn
from torch.nn import functional as F


class Lenet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x.flatten(1))))))


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class Block(nn.Module):
    """A residual branch of convolutions (width, kernel, stride), each with its norm."""

    def __init__(self, inputs, layers):
        super().__init__()
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        self.shortcut = nn.Identity()
        stride, outputs = max(layer[2] for layer in layers), layers[-1][0]
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                                          nn.BatchNorm2d(outputs))
        for width, kernel, step in layers:
            self.convs.append(nn.Conv2d(inputs, width, kernel, step, kernel // 2, bias=False))
            self.norms.append(nn.BatchNorm2d(width))
            inputs = width

    def forward(self, x):
        y = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            y = norm(conv(y if i == 0 else F.relu(y, inplace=True)))
        return F.relu(y + self.shortcut(x), inplace=True)


class Resnet(nn.Module):
    def __init__(self, counts, bottleneck, stem, classes):
        super().__init__()
        layers, inputs = list(stem), 64
        for stage, count in enumerate(counts):
            width = 64 << stage
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                plan = [(width, 3, stride), (width, 3, 1)]
                if bottleneck:
                    plan = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
                layers.append(Block(inputs, plan))
                inputs = plan[-1][0]
        self.body, self.fc = nn.Sequential(*layers), nn.Linear(inputs, classes)

    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)))


def resnet18():
    stem = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)
    return Resnet([2, 2, 2, 2], False, stem, 10)


def resnet50():
    stem = (nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1))
    return Resnet([3, 4, 6, 3], True, stem, 1000)


def attend(q, k, v):
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    length = q.shape[-2]
    scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
    hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
    return scores.masked_fill(hidden, float("-inf")).softmax(-1) @ v


class GptBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        n, t, c = x.shape
        q, k, v = (y.view(n, t, self.heads, -1).transpose(1, 2)
                   for y in self.qkv(self.ln_1(x)).split(c, 2))
        x = x + self.out(attend(q, k, v).transpose(1, 2).reshape(n, t, c))
        return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self, classes, width=384, heads=6, layers=6, length=256):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(classes, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(GptBlock(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        for table in (self.wte, self.wpe):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, tokens):
        x = self.wte(tokens) + self.wpe.weight
        return F.linear(self.norm(self.blocks(x)), self.wte.weight)


def images(batch, *sample):
    return lambda classes: (torch.randn(batch, *sample), torch.randint(classes, (batch,)))


def text(classes):
    tokens = torch.randint(classes, (8, 257))
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


# Model, a batch, classes, optimizer.
WORKS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(),
                                  nn.Linear(512, 10)), images(128, 784), 10, "sgd"),
    "lenet": (Lenet, images(128, 1, 28, 28), 10, "sgd"),
    "cnn": (Cnn, images(128, 1, 28, 28), 10, "sgd"),
    "resnet18": (resnet18, images(64, 3, 32, 32), 10, "sgd"),
    "resnet50": (resnet50, images(8, 3, 224, 224), 1000, "sgd"),
    "gpt8192": (lambda: Gpt(8192), text, 8192, "adamw"),
    "gpt50257": (lambda: Gpt(50257), text, 50257, "adamw"),
}


def make_optimizer(kind, model):
    make = {"sgd": lambda **k: torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, **k),
            "adamw": lambda **k: torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1,
                                                   **k)}[kind]
    with contextlib.suppress(TypeError, RuntimeError):
        return make(fused=True)
    return make(foreach=True)


def make_step(arguments):
    make_model, make_batch, classes, optimizer_name = WORKS[arguments.work]
    model = make_model()
    inputs, labels = make_batch(classes)
    if arguments.channels_last:
        model, inputs = (y.to(memory_format=torch.channels_last) for y in (model, inputs))
    optimizer = make_optimizer(optimizer_name, model)
    if arguments.ranks > 1:
        model = nn.parallel.DistributedDataParallel(model)
    if arguments.compile:
        model = torch.compile(model)
    in_bf16 = arguments.precision == "bf16"

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=in_bf16):
            logits = model(inputs)
            loss = F.cross_entropy(logits.flatten(0, -2), labels.flatten())
        loss.backward()
        optimizer.step()

    return step, inputs.shape[0] * arguments.ranks


class Ranks:
    """The other processes, started by the first, which tells them how many steps to take."""

    def __init__(self, arguments):
        self.is_alone, self.is_first = arguments.ranks == 1, arguments.rank == 0
        if self.is_alone:
            return
        if self.is_first:
            self.folder = tempfile.TemporaryDirectory()
            arguments.store = self.folder.name + "/store"
            self.others = [subprocess.Popen([sys.executable, *sys.argv, "--rank", str(rank),
                                             "--store", arguments.store])
                           for rank in range(1, arguments.ranks)]
        torch.distributed.init_process_group("gloo", init_method="file://" + arguments.store,
                                             rank=arguments.rank, world_size=arguments.ranks)

    def agree(self, steps):
        if self.is_alone:
            return steps
        agreed = torch.tensor([steps])
        torch.distributed.broadcast(agreed, 0)
        return int(agreed)


def seconds_since_start():
    with open("/proc/self/stat") as file:
        started = int(file.read().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def answer(**values):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({**values, "peak_bytes": peak}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(arguments.threads)
    ranks = Ranks(arguments)
    step, batch = make_step(arguments)

    def take(steps):
        seconds = []
        for _ in range(steps):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds)

    take(1)
    if not ranks.is_first:
        while steps := ranks.agree(0):
            take(steps)
        return
    answer(version=torch.__version__, first_step_seconds=seconds_since_start())
    step_seconds = take(ranks.agree(3))
    for line in sys.stdin:
        step_seconds = take(ranks.agree(max(3, int(float(line) / step_seconds))))
        answer(samples_per_second=batch / step_seconds)
    ranks.agree(0)


if __name__ == "__main__":
    main()
