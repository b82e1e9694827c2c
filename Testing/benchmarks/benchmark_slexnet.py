"""How fast SLEX-Net slides over a head, beside the scheme of its released code with the same weights.

    python Testing/benchmarks/benchmark_slexnet.py [--base 16] [--size 256] [--slices 24] [--rounds 5] [--threads 2]

The released scheme takes each slice with its two neighbours and runs the backbone on all three: 3 backbone and 2 SEM
passes per slice. Ours keeps the backbone's logits for the neighbours: 1 and 2. Both are timed with the same network on
the same slices; the released scheme once as its code runs it (plain PyTorch, one stack at a time) and once with all
else that ours does (BatchNorm folded, channels last), so that the last ratio is that of the scheme alone. The answers
must agree. The contenders take turns, so that a busy machine slows all alike. ``--base 64 --size 224`` is as published.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("Neuraxis", "HemorrhageSeg")]

LARGEST_DIFFERENCE = 1e-5
#: The scheme alone can save two of five passes where backbone and SEM cost the same.
RATIO_GOAL = 1.5


def contenders(base: int, size: int, slices: int, device: str) -> dict[str, tuple[Callable[[], np.ndarray], Counter]]:
    """Name -> (prediction of all slices, count of the U-Net passes of its last run)."""
    import torch

    from HemorrhageSegLib.networks.slex_inference import SlexPredictor
    from HemorrhageSegLib.networks.slexnet import SLEXNet
    from NeuraxisLib.inference import SlicePredictor
    from NeuraxisLib.preprocessing import Channel, SlicePreprocessing

    torch.manual_seed(0)
    network = SLEXNet(base=base).eval()
    slabs = np.random.default_rng(0).normal(40, 20, (slices, size, size)).astype(np.float32)
    looks = SlicePreprocessing(size, 0.05, 5.0, tuple(Channel(offset, 0.0, 80.0) for offset in (-1, 0, 1)))

    @torch.inference_mode()
    def released() -> np.ndarray:
        out = []
        for number in range(slices):
            stack = torch.from_numpy(looks.images(slabs, np.array([number]))).to(device)
            out.append(plain(stack).softmax(1)[:, 1:].cpu())
        return torch.cat(out).numpy()

    def sliding(predictor: SlicePredictor) -> Callable[[], np.ndarray]:
        return lambda: predictor.predict(lambda numbers: looks.images(slabs, numbers), slices)[:, :1]

    plain = SLEXNet(base=base).eval()
    plain.load_state_dict(network.state_dict())
    plain = plain.to(device)
    tuned, ours = (kind(network, device, "float32") for kind in (SlicePredictor, SlexPredictor))
    return {
        "released scheme, plain PyTorch": (released, counted(plain)),
        "released scheme, tuned as ours": (sliding(tuned), counted(tuned._ready["float32"])),
        "ours": (sliding(ours), counted(ours._ready["float32"])),
    }


def counted(network) -> Counter:
    """Images that go through the backbone and the SEM of a network."""
    count: Counter = Counter()
    for name, module in (("backbone", network.backbone), ("SEM", network.SMM)):
        module.register_forward_hook(lambda module, inputs, output, name=name: count.update({name: len(output)}))
    return count


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("base", 16), ("size", 256), ("slices", 24), ("rounds", 5), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    runs = contenders(options.base, options.size, options.slices, options.device)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    answers, passes = {}, {}
    for number in range(options.rounds + 1):
        for name, (run, count) in runs.items():
            count.clear()
            start = time.perf_counter()
            answers[name] = run()
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
            passes[name] = dict(count)
    print(
        f"SLEX-Net base {options.base}, {options.slices} slices of {options.size} x {options.size}, "
        f"{options.threads} threads, {options.device}, {options.rounds} rounds in turn, medians\n"
    )
    report(seconds, answers, passes)


def report(seconds: dict[str, list[float]], answers: dict[str, np.ndarray], passes: dict[str, dict[str, int]]) -> None:
    """Print one row per contender and whether the goals are reached."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{'':32} {'seconds':>8} {'ratio to ours':>14} {'backbone':>9} {'SEM':>5}")
    for name, median in medians.items():
        count = passes[name]
        ratio = median / medians["ours"]
        print(f"{name:32} {median:8.2f} {ratio:14.2f} {count['backbone']:9} {count['SEM']:5}")
    difference = max(float(np.abs(answer - answers["ours"]).max()) for answer in answers.values())
    ratio = medians["released scheme, tuned as ours"] / medians["ours"]
    print(f"-> largest difference of a probability {difference:.1e}: {goal(difference <= LARGEST_DIFFERENCE)}")
    print(f"-> the scheme alone saves a factor of {ratio:.2f} (goal: {RATIO_GOAL}): {goal(ratio >= RATIO_GOAL)}")


def goal(reached: bool) -> str:
    """In words."""
    return "reached" if reached else "NOT reached"


if __name__ == "__main__":
    main()
