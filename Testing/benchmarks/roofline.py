"""How near to this machine's limits the shipped networks run: FLOPs, bytes, roofline, and their share of the task.

    python Testing/benchmarks/roofline.py [--rounds 3] [--threads 1] [--markdown FILE]

Two ceilings are measured first: the most operations a second that a 3 x 3 convolution reaches here, in float32 and in
bfloat16, and the bytes a second that a copy moves. Then every starter does its whole task on a real or simulated scan,
as every door runs it. Its forward passes are timed where they happen; in one more run the layers of the network as it
is published are counted: their operations (2 for a multiplication with its addition) and the bytes that go through
memory if no layer is fused with the next: its weights, and its output written and read once.

A network can reach ``min(peak, operations / byte * bandwidth)``, a bound that caches may raise. *Fraction* is what it
reaches of that bound. *Of the peak* is what it reaches of the convolution's ceiling alone. *Elsewhere* is the part of
the task that is no network: geometry, brain or maps, resampling, measures.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("", "Neuraxis", "HemorrhageSeg", "StrokeCTP", "SpineDiscLabel")]

from HemorrhageSegLib.networks.drunet_inference import FusedDRUNet  # noqa: E402
from NeuraxisLib.atomic import atomic_write  # noqa: E402
from NeuraxisLib.files import read_volume  # noqa: E402
from NeuraxisLib.inference import Predictor  # noqa: E402
from NeuraxisLib.models import find_model, load_model  # noqa: E402
from NeuraxisLib.process import keep_freed_memory  # noqa: E402
from NeuraxisLib.task import Progress, get_task  # noqa: E402
from Training.simulation.ctp_stroke_phantom import stroke_phantom  # noqa: E402

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
#: Channels and side of the convolutions whose best rate is the peak.
PROBES = ((64, 192), (128, 96), (256, 48))
COPIED_FLOATS = 64 * 2**20
#: Starter -> its task.
STARTERS = {
    "hemorrhage-drunet-starter": "hemorrhage",
    "hemorrhage-slexnet-starter": "hemorrhage",
    "stroke-starter": "stroke",
    "discs-hourglass-starter": "discs",
}


@dataclass(frozen=True)
class Ceilings:
    """What this machine can do: operations a second by precision, bytes a second."""

    peak: dict[str, float]
    bandwidth: float

    def bound(self, precision: str, intensity: float) -> float:
        """Operations a second that code of so many operations per byte can reach."""
        return min(self.peak[precision], intensity * self.bandwidth)


@dataclass
class Meter:
    """What the forward passes of a task took: calls, seconds, the precision they settled on; what they have to do."""

    calls: int = 0
    seconds: float = 0.0
    precision: str = "float32"
    operations: float = 0.0
    moved_bytes: float = 0.0

    def layer(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Count the bytes of one layer: its weights, and its output written and read."""
        if any(True for _ in module.children()) or not isinstance(output, torch.Tensor):
            return
        size = output.element_size()
        self.moved_bytes += 2 * output.numel() * size + sum(p.numel() * size for p in module.parameters())


@contextmanager
def metered(clock: Callable[[], float] = time.perf_counter) -> Iterator[Meter]:
    """Time every forward pass of any predictor meanwhile."""
    meter, forward = Meter(), Predictor._forward

    def timed(self: Predictor, images: Any, precision: str) -> torch.Tensor:
        start = clock()
        values = forward(self, images, precision)
        meter.seconds += clock() - start
        meter.calls, meter.precision = meter.calls + 1, precision
        return values

    Predictor._forward = timed
    try:
        yield meter
    finally:
        Predictor._forward = forward


@contextmanager
def counted() -> Iterator[Meter]:
    """Count operations and bytes meanwhile, layer by layer of the network as it is published, not as it is fused."""
    fused = FusedDRUNet.forward
    FusedDRUNet.forward = lambda self, x: self.network(x)
    try:
        with metered() as meter, FlopCounterMode(display=False) as flops:
            hook = nn.modules.module.register_module_forward_hook(meter.layer)
            try:
                yield meter
            finally:
                hook.remove()
        meter.operations = float(flops.get_total_flops())
    finally:
        FusedDRUNet.forward = fused


def best_seconds(run: Callable[[], Any], rounds: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """The shortest of ``rounds`` times after one that warms up."""
    run()
    times = []
    for _ in range(rounds):
        start = clock()
        run()
        times.append(clock() - start)
    return min(times)


@torch.inference_mode()
def measure_ceilings(rounds: int, clock: Callable[[], float] = time.perf_counter) -> Ceilings:
    """The ceilings of this machine with the threads that PyTorch has."""
    peak = {}
    for name, kind in PRECISIONS.items():
        rates = []
        for channels, side in PROBES:
            layer = nn.Conv2d(channels, channels, 3, padding=1).to(kind, memory_format=torch.channels_last)
            x = torch.randn(1, channels, side, side).to(kind, memory_format=torch.channels_last)
            rates.append(
                2 * 9 * channels**2 * side**2 / best_seconds(lambda layer=layer, x=x: layer(x), 5 * rounds, clock)
            )
        peak[name] = max(rates)
    source, target = torch.ones(COPIED_FLOATS), torch.empty(COPIED_FLOATS)
    return Ceilings(peak, 2 * 4 * COPIED_FLOATS / best_seconds(lambda: target.copy_(source), 2 * rounds, clock))


def whole_task(starter: str) -> Callable[[], Any]:
    """The task of a starter on its scan, as every door runs it, without reading and writing files."""
    name = STARTERS[starter]
    task = get_task(name)
    inputs = {
        "hemorrhage": lambda: {"ct": read_volume(task.resources / "SampleData" / "head_ct_hemorrhage.nrrd")},
        "stroke": lambda: {"perfusion": stroke_phantom(noise_hu=5.0).frames},
        "discs": lambda: {"mr": read_volume(task.resources / "SampleData" / "lumbar_spine_mr.nrrd")},
    }[name]()
    model, options = load_model(find_model(task, starter), name), task.options_type(device="cpu")
    return lambda: task.run(inputs, model, options, Progress())


@dataclass(frozen=True)
class Reached:
    """What a starter computes and moves, how long that takes, and what the machine would allow.

    Attributes:
        starter, precision: of the network.
        passes: through the network in one task.
        operations, moved_bytes: of all passes.
        network_s, task_s: of all passes, and of the whole task.
        bound, peak: operations a second that the machine allows: by the roofline, and by its convolutions alone.
    """

    starter: str
    precision: str
    passes: int
    operations: float
    moved_bytes: float
    network_s: float
    task_s: float
    bound: float
    peak: float

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.operations / self.network_s

    @property
    def fraction(self) -> float:
        """Of the roofline."""
        return self.rate / self.bound

    @property
    def elsewhere(self) -> float:
        """Time of the task outside the network, in parts of the network's."""
        return self.task_s / self.network_s - 1

    def words(self) -> dict[str, Any]:
        """One row of the table."""
        return {
            "Model": self.starter, "Precision": self.precision, "Passes": self.passes,
            "GFLOP": f"{self.operations / 1e9:.1f}", "MB moved": f"{self.moved_bytes / 1e6:.0f}",
            "FLOP/byte": f"{self.operations / self.moved_bytes:.0f}", "GFLOP/s": f"{self.rate / 1e9:.0f}",
            "Bound GFLOP/s": f"{self.bound / 1e9:.0f}", "Fraction": f"{self.fraction:.2f}",
            "Of the peak": f"{self.rate / self.peak:.2f}", "Network [s]": f"{self.network_s:.2f}",
            "Task [s]": f"{self.task_s:.2f}", "Elsewhere": f"{1 - self.network_s / self.task_s:.0%}",
        }  # fmt: skip


def measure(starter: str, ceilings: Ceilings, rounds: int, clock: Callable[[], float] = time.perf_counter) -> Reached:
    """Run the task of a starter; ``time.process_time`` as the clock is for busy machines and one thread."""
    run = whole_task(starter)
    run()  # precision is settled, kernels are warm
    task_s, network_s, calls, precision = float("inf"), float("inf"), 0, ""
    for _ in range(rounds):
        with metered(clock) as meter:
            start = clock()
            run()
            task_s = min(task_s, clock() - start)
        network_s, calls, precision = min(network_s, meter.seconds), meter.calls, meter.precision
    with counted() as counter:
        run()
    operations, moved = counter.operations, counter.moved_bytes
    bound, peak = ceilings.bound(precision, operations / moved), ceilings.peak[precision]
    return Reached(starter, precision, calls, operations, moved, network_s, task_s, bound, peak)


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Measure the ceilings, then every starter, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--markdown", type=Path, help="file for the table")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    ceilings = measure_ceilings(options.rounds)
    head = (
        f"{options.threads} thread(s): convolutions reach {ceilings.peak['float32'] / 1e9:.0f} GFLOP/s in float32 and "
        f"{ceilings.peak['bfloat16'] / 1e9:.0f} in bfloat16, a copy {ceilings.bandwidth / 1e9:.0f} GB/s."
    )
    print(head, flush=True)
    table = as_markdown([measure(starter, ceilings, options.rounds).words() for starter in STARTERS])
    print(table)
    if options.markdown:
        with atomic_write(options.markdown) as temporary:
            temporary.write_text(f"{head}\n\n{table}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
