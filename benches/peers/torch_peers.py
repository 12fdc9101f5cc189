#!/usr/bin/env python3
"""Times PyTorch, eager and compiled, on the ops, shapes and dtypes of `cargo bench --bench ops`, into the same CSV.

    python3 torch_peers.py --csv target/bench-cuda.csv

CUDA events time a block of runs; one untimed run goes before each block; inputs and results come from so many buffers that none
is still in the cache when its turn comes again; a figure is the median of the blocks. torch.compile compiles every op anew for
each shape and dtype. The shapes that say most go first, eager, then compiled; the others follow until the time is over.

Without PyTorch or a GPU it says so in a line and succeeds.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import functools
import itertools
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

try:
    import torch
    import torch.nn.functional as F
except ImportError as error:
    sys.exit(print(f"no device: PyTorch is not here ({error})"))

# As in benches/ops/support/cuda/report.rs.
COLUMNS = [
    "op", "direction", "dtype", "rows", "len", "implementation", "seconds", "seconds_q25", "seconds_q75", "samples", "bytes",
    "gb_per_s", "copy_gb_per_s", "percent_of_copy", "enqueue_seconds", "card", "driver", "sm_mhz", "memory_mhz", "toolkit",
    "date", "note",
]  # fmt: skip

# What the time is too short for should be the least of it.
FIRST_SHAPES = [(8192, 4096), (64, 32_000), (65_536, 10)]
OTHER_SHAPES = [
    (4096, 256), (4096, 32_000), (1024, 131_072), (512, 4096), (64, 128_256), (4096, 32), (4096, 10), (1, 128_256), (1024, 4096),
]  # fmt: skip

EAGER, COMPILED = "torch eager", "torch.compile"
TAU = 0.7
BLOCKS = 11
BLOCK_SECONDS = 0.005
# So many times the cache's size is what the inputs of a case come to, where so many sets of them suffice.
CACHES = 4
SETS = 1024
# Tensors of the case's shape that a case may need at once.
TENSORS = 40

Tensor = torch.Tensor


# --- The ops


def gumbel(like: Tensor) -> Tensor:
    # As torch.nn.functional.gumbel_softmax draws it.
    return -torch.empty_like(like).exponential_().log()


def gaussian(mean: Tensor, log_var: Tensor) -> Tensor:
    return mean + (0.5 * log_var).exp() * torch.randn_like(log_var)


def gaussian_kl(mean: Tensor, log_var: Tensor) -> Tensor:
    return 0.5 * (mean.square() + log_var.exp() - log_var - 1).sum(-1)


class Op(NamedTuple):
    """An op, and the bytes that a fused kernel of it moves: of `n` elements in `r` rows, with `s` bytes each."""

    name: str
    note: str
    run: Callable[..., Tensor]
    forward: Callable[[int, int, int], int]
    backward: Callable[[int, int, int], int] | None = None
    arguments: int = 1


OPS = [
    Op("gumbel_softmax", "F.gumbel_softmax", lambda x: F.gumbel_softmax(x, tau=TAU, dim=-1),
       lambda n, r, s: 2 * n * s, lambda n, r, s: 3 * n * s),
    Op("gumbel_softmax_st", "F.gumbel_softmax(hard=True)", lambda x: F.gumbel_softmax(x, tau=TAU, hard=True, dim=-1),
       lambda n, r, s: 2 * n * s, lambda n, r, s: 3 * n * s),
    Op("tempered_softmax", "softmax(x / tau)", lambda x: torch.softmax(x / TAU, -1),
       lambda n, r, s: 2 * n * s, lambda n, r, s: 3 * n * s),
    Op("tempered_log_softmax", "log_softmax(x / tau)", lambda x: torch.log_softmax(x / TAU, -1),
       lambda n, r, s: 2 * n * s, lambda n, r, s: 3 * n * s),
    Op("gumbel_max", "argmax(x + gumbel)", lambda x: (x + gumbel(x)).argmax(-1), lambda n, r, s: n * s + 4 * r),
    Op("categorical", "multinomial(softmax(x), 1)", lambda x: torch.multinomial(torch.softmax(x, -1), 1),
       lambda n, r, s: n * s + 4 * r),
    Op("gaussian", "mean + exp(log_var / 2) * randn_like", gaussian,
       lambda n, r, s: 3 * n * s, lambda n, r, s: 3 * n * s, arguments=2),
    Op("gaussian_kl", "(mean^2 + exp(log_var) - log_var - 1).sum / 2", gaussian_kl,
       lambda n, r, s: (2 * n + r) * s, lambda n, r, s: (4 * n + r) * s, arguments=2),
    Op("uniform", "rand_like", torch.rand_like, lambda n, r, s: n * s),
    Op("normal", "randn_like", torch.randn_like, lambda n, r, s: n * s),
    Op("gumbel", "-log(exponential)", gumbel, lambda n, r, s: n * s),
    Op("improper_rows", "~isfinite(amax)", lambda x: ~torch.isfinite(x.amax(-1)), lambda n, r, s: n * s + r),
]  # fmt: skip


class Case(NamedTuple):
    op: Op
    direction: str
    shape: tuple[int, int]
    dtype: torch.dtype

    @property
    def name(self) -> str:
        return f"{self.op.name}/{self.direction}/{short(self.dtype)}/{self.shape[0]}x{self.shape[1]}"

    @property
    def bytes(self) -> int:
        rows, length = self.shape
        size = (rows * length, rows, self.dtype.itemsize)
        forward, backward = self.op.forward(*size), self.op.backward(*size) if self.op.backward else 0
        return {"forward": forward, "backward": backward, "forward+backward": forward + backward}[self.direction]


def short(dtype: torch.dtype) -> str:
    return {torch.float32: "f32", torch.bfloat16: "bf16"}[dtype]


def cases(shapes: list[tuple[int, int]], pattern: str) -> Iterator[Case]:
    for shape, dtype, op in itertools.product(shapes, (torch.float32, torch.bfloat16), OPS):
        for direction in ("forward", "backward", "forward+backward") if op.backward else ("forward",):
            case = Case(op, direction, shape, dtype)
            if pattern in case.name:
                yield case


# --- Timing


class Spread(NamedTuple):
    q25: float
    median: float
    q75: float


def in_turn(items: list[Any], run: Callable[[Any], Any]) -> Callable[[], None]:
    """Applies `run` to one item after the other; what it returns lives until the item's next turn."""
    results: list[Any] = [None] * len(items)
    turns = itertools.cycle(range(len(items)))

    def turn() -> None:
        at = next(turns)
        results[at] = None
        results[at] = run(items[at])

    return turn


def timed_block(run: Callable[[], None], runs: int) -> float:
    """The device's seconds for a run. The untimed one before gives it work while the host enqueues the others."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    run()
    start.record()
    for _ in range(runs):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e-3 / runs


def time_runs(run: Callable[[], None]) -> tuple[Spread, float]:
    """Seconds for a run on the device, and for the host to enqueue one."""
    for _ in range(3):
        run()
    enqueue = min(enqueue_seconds(run) for _ in range(3))
    torch.cuda.synchronize()
    runs = max(1, round(BLOCK_SECONDS / max(timed_block(run, 1), 1e-6)))
    q25, median, q75 = statistics.quantiles((timed_block(run, runs) for _ in range(BLOCKS)), n=4)
    return Spread(q25, median, q75), enqueue


def enqueue_seconds(run: Callable[[], None], runs: int = 4) -> float:
    start = time.perf_counter()
    for _ in range(runs):
        run()
    return (time.perf_counter() - start) / runs


def prepared(case: Case, implementation: str) -> Callable[[], None]:
    """One run of the case, with inputs and results that are not in the cache."""
    op, tracked = case.op, case.direction != "forward"
    function = compiled(op, case.shape, case.dtype) if implementation == COMPILED else op.run
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    argument = case.shape[0] * case.shape[1] * case.dtype.itemsize
    count = min(max(-(-CACHES * cache // (argument * op.arguments)), 2), SETS)
    generator = torch.Generator("cuda").manual_seed(7)
    first = [2 * torch.randn(case.shape, generator=generator, device="cuda") for _ in range(op.arguments)]
    sets = [[x.to(case.dtype, copy=True).requires_grad_(tracked) for x in first] for _ in range(count)]

    result = function(*sets[0])
    if result.is_floating_point() and not bool(torch.isfinite(result).all()):
        raise ValueError("the result is not finite")
    # What candle's backward() starts from: the gradient of a plain sum.
    ones = torch.ones_like(result)

    def backward(inputs: list[Tensor], result: Tensor, keep: bool) -> tuple[Tensor, ...]:
        return torch.autograd.grad(result, inputs, ones, retain_graph=keep)

    if case.direction == "forward":
        return in_turn(sets, lambda inputs: function(*inputs))
    if case.direction == "backward":
        results = [(inputs, function(*inputs)) for inputs in sets]
        return in_turn(results, lambda pair: backward(*pair, keep=True))
    return in_turn(sets, lambda inputs: backward(inputs, function(*inputs), keep=False))


@functools.lru_cache(maxsize=1)
def compiled(op: Op, shape: tuple[int, int], dtype: torch.dtype) -> Callable[..., Tensor]:
    # Nothing is left of those before: each is for its own shape, and none is given up on for being one of many.
    torch.compiler.reset()
    return torch.compile(op.run, dynamic=False)


# --- The card


class Card(NamedTuple):
    name: str
    driver: str
    sm_mhz: str
    memory_mhz: str
    copy: float
    date: str


def the_card() -> Card:
    """Its name, its clocks while it copies, and what a copy that no cache can hold moves, in bytes per second."""
    free, _ = torch.cuda.mem_get_info()
    size = min(1 << 30, free // 8)
    source, target = (torch.zeros(size, dtype=torch.uint8, device="cuda") for _ in range(2))
    seconds = statistics.median(timed_block(lambda: target.copy_(source), 4) for _ in range(BLOCKS))
    for _ in range(min(500, int(1 / seconds))):
        target.copy_(source)
    driver, sm_mhz, memory_mhz = smi()
    torch.cuda.synchronize()
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%MZ")
    return Card(torch.cuda.get_device_name(0), driver, sm_mhz, memory_mhz, 2 * size / seconds, date)


def smi() -> tuple[str, str, str]:
    """Driver and clocks, empty where nvidia-smi does not say."""
    query = ["--query-gpu=driver_version,clocks.sm,clocks.mem", "--format=csv,noheader,nounits"]
    uuid = getattr(torch.cuda.get_device_properties(0), "uuid", None)
    which = [f"--id=GPU-{uuid}"] if uuid else []
    try:
        text = subprocess.run(["nvidia-smi", *which, *query], capture_output=True, text=True, timeout=30, check=True).stdout
        driver, sm, memory = (field.strip() for field in text.splitlines()[0].split(","))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return "", "", ""
    return driver, sm, memory


# --- The program


class Results:
    """The CSV, to which rows are appended as they come."""

    def __init__(self, path: pathlib.Path | None, card: Card) -> None:
        self.card = card
        self.file = path.open("a", newline="") if path else None
        self.writer = csv.writer(self.file, lineterminator="\n") if self.file else None
        if self.writer and path and path.stat().st_size == 0:
            self.writer.writerow(COLUMNS)

    def add(self, case: Case, implementation: str, seconds: Spread, enqueue: float) -> None:
        rate, card = case.bytes / seconds.median, self.card
        print(
            f"{case.name:<50} {implementation:<13} {seconds.median * 1e6:>10.1f} us {rate * 1e-9:>8.1f} GB/s"
            f" {rate / card.copy * 100:>4.0f}% of the copy",
            flush=True,
        )
        if self.writer and self.file:
            self.writer.writerow([
                case.op.name, case.direction, short(case.dtype), *case.shape, implementation, f"{seconds.median:.4e}",
                f"{seconds.q25:.4e}", f"{seconds.q75:.4e}", BLOCKS, case.bytes, f"{rate * 1e-9:.1f}", f"{card.copy * 1e-9:.1f}",
                f"{rate / card.copy * 100:.1f}", f"{enqueue:.4e}", card.name, card.driver, card.sm_mhz, card.memory_mhz,
                torch.version.cuda, card.date, f"PyTorch {torch.__version__}: {case.op.note}",
            ])  # fmt: skip
            self.file.flush()


def shape(text: str) -> tuple[int, int]:
    rows, length = text.split("x")
    return int(rows), int(length)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--csv", type=pathlib.Path, help="append the rows to this file")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no case after so many seconds")
    parser.add_argument("--filter", default="", help="only cases whose name contains this")
    parser.add_argument("--shapes", type=shape, nargs="+", metavar="ROWSxLEN", help="only these shapes")
    parser.add_argument("--eager-only", action="store_true", help="no torch.compile")
    arguments = parser.parse_args()
    # The import of torch took some of the time as well.
    end = time.monotonic() + arguments.seconds

    if not torch.cuda.is_available():
        print(f"no device: PyTorch {torch.__version__} sees no GPU")
        return
    card = the_card()
    print(f"{card.name}, driver {card.driver or 'unknown'}, PyTorch {torch.__version__}, {card.copy * 1e-9:.1f} GB/s copied")
    results = Results(arguments.csv, card)
    failed = late = 0
    for shapes, implementation in itertools.product(
        [arguments.shapes] if arguments.shapes else [FIRST_SHAPES, OTHER_SHAPES],
        [EAGER] if arguments.eager_only else [EAGER, COMPILED],
    ):
        for case in cases(shapes, arguments.filter):
            # A compilation takes some seconds.
            if time.monotonic() + (10 if implementation == COMPILED else 2) > end:
                late += 1
                continue
            if TENSORS * case.shape[0] * case.shape[1] * case.dtype.itemsize > torch.cuda.mem_get_info()[0]:
                print(f"{case.name}: left out, the card's memory is too small")
                continue
            try:
                seconds, enqueue = time_runs(prepared(case, implementation))
            except Exception as error:  # a case that PyTorch cannot do is no reason to stop
                failed += 1
                print(f"{case.name} {implementation}: {type(error).__name__}: {str(error).splitlines()[:1]}", flush=True)
            else:
                results.add(case, implementation, seconds, enqueue)
            torch.cuda.empty_cache()
    if late or failed:
        print(f"{late} cases left out for want of time, {failed} failed")


if __name__ == "__main__":
    main()
