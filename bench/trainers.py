"""Who bench/compare and bench/compare_ranks compare: Concord, and PyTorch in one of its forms, each
training one work of bench/configs."""
import concurrent.futures
import glob
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
IMAGES = {"lenet", "cnn", "resnet18", "resnet50"}
# Works that only Concord computes in another way.
VARIANTS = {"resnet50_recompute": ("resnet50", ["--set", "train.recompute=selective"])}
NAMES = {
    "mlp": "MLP 784-512-512-10, batch 128",
    "lenet": "LeNet-5, 28×28, batch 128",
    "cnn": "CNN 1-32-64, 9216-128-10, batch 128",
    "resnet18": "ResNet-18, 32×32, batch 64",
    "resnet50": "ResNet-50, 224×224, batch 8",
    "resnet50_recompute": "the same, recompute = \"selective\"",
    "gpt4096": "GPT 4×256, 128 tokens, vocabulary 4096, batch 8",
    "gpt8192": "GPT 6×384, 256 tokens, vocabulary 8192, batch 8",
    "gpt50257": "GPT 6×384, 256 tokens, vocabulary 50257, batch 8",
}
# Debian's libtcmalloc-minimal4; "" where it is not installed.
TCMALLOC = next(iter(glob.glob("/usr/lib/*/libtcmalloc_minimal.so.4")), "")
BATCHES = {"gpt4096": 8, "resnet18": 64, "resnet50": 8, "gpt8192": 8, "gpt50257": 8}  # of others: 128


class Peer:
    """PyTorch, training one work in one form."""

    def __init__(self, python, work, threads, precision, form):
        environment = dict(os.environ)
        # OpenBLAS with its own threads does not hear of PyTorch's setting.
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[name] = str(threads)
        if TCMALLOC:
            environment["LD_PRELOAD"] = TCMALLOC
        environment.setdefault("CUDA_VISIBLE_DEVICES", "")
        self.form = form
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [python, str(ROOT / "bench" / "pytorch_peer.py"), work, "--threads", str(threads),
             "--precision", precision, *form],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
            env=environment)
        self.start = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            lines = self.errors.read().strip().splitlines() or ["it ended without a word"]
            raise RuntimeError(lines[-1])
        return json.loads(line)

    def train(self, seconds):
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        return self.answer()

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


def fastest_form(python, work, threads, precision, compiles, ranks=1):
    best, best_speed = None, 0

    def try_form(form):
        nonlocal best, best_speed
        try:
            peer = Peer(python, work, threads, precision, form)
            speed = peer.train(1)["samples_per_second"]
        except RuntimeError as error:
            say(f"  {python} {' '.join(form)}: {error}")
            return
        say(f"  {python} {' '.join(form)}: {speed:.4g}")
        if speed <= best_speed:
            peer.stop()
            return
        if best is not None:
            best.stop()
        best, best_speed = peer, speed

    form = ["--ranks", str(ranks)] if ranks > 1 else []
    try_form(form)
    if work in IMAGES:
        try_form([*form, "--channels-last"])
    if compiles and best is not None:
        try_form([*best.form, "--compile"])
    if best is None:
        sys.exit(f"{python} cannot train {work}: install PyTorch for it, or name other --peers")
    return best


class Concord:
    def __init__(self, command, work, settings, threads, precision):
        self.command = command
        self.configuration = [str(ROOT / "bench" / "configs" / f"{work}.toml"),
                              "--set", f"train.threads={threads}", *settings]
        if precision != "f32":
            self.configuration += ["--set", f"train.precision={precision}"]
        self.peak_bytes = 0

    def run(self, steps):
        arguments = [self.command, "bench", "step", *self.configuration, "--json",
                     "--steps", str(steps)]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            raise RuntimeError(f"{' '.join(arguments)} failed")
        self.peak_bytes = usage.ru_maxrss * 1024
        return json.loads(output)

    def train(self, seconds):
        if not hasattr(self, "steps"):
            self.steps = max(3, int(seconds / self.run(3)["step_seconds"]))
        return self.run(self.steps)

    def first_step_seconds(self, batch):
        """Of the whole command that takes one step, its checkpoint included."""
        with tempfile.TemporaryDirectory() as folder:
            start = time.monotonic()
            subprocess.run([self.command, "train", *self.configuration,
                            "--set", f"data.samples={batch}", "--set", f"output.dir={folder}/run"],
                           check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            return time.monotonic() - start


def at_once(trainers, seconds):
    """Of trainers that share nothing but the machine: the sum of their samples a second."""
    with concurrent.futures.ThreadPoolExecutor(len(trainers)) as pool:
        speeds = pool.map(lambda trainer: trainer.train(seconds), trainers)
        return sum(speed["samples_per_second"] for speed in speeds)


def say(text):
    print(text, file=sys.stderr, flush=True)


def figure(speeds):
    middle = statistics.median(speeds)
    spread = max(max(speeds) / middle - 1, 1 - min(speeds) / middle)
    digits = max(0, 3 - len(str(int(middle))))  # three in all
    return f"{middle:,.{digits}f} (±{100 * spread:.0f} %)"
