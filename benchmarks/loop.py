"""The training loop against a hand-written PyTorch loop and against a DataLoader with a small trainer class.

    OMP_NUM_THREADS=1 python benchmarks/loop.py            # about half a minute on one thread
    OMP_NUM_THREADS=1 python benchmarks/loop.py --repeats 15

All three train the same network on batches of the same size with fused AdamW, alternating in one process on one thread.
Times are of the processor, so that busy neighbours matter less. Printed are milliseconds an update and the speed of
ours relative to each, medians over the repeats of the ratio within a repeat.
The exit code is 1 when ours is slower than 0.9 times the hand-written loop.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW
from torch.utils.data import DataLoader, TensorDataset

from transference.core.batch import Batch
from transference.core.spec import Task
from transference.nn.losses import supervised
from transference.train.loop import Stage, Step, train
from transference.train.schedule import Schedule

LEAST = 0.9
TASK = Task("classification", tuple(range(10)), 10)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))


def cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(16 * 7 * 7, 10)),
    )


def ours(net: nn.Module, x: Tensor, y: Tensor, size: int, updates: int) -> None:
    n = len(x)
    rows = Batch({"x": x}, {"x": torch.ones(n, dtype=torch.bool)}, {}, y, torch.arange(n))

    def losses(net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"task": supervised(net(batch.views["x"]), batch.target, TASK)}

    train(net, [Stage("train", (Step(losses),))], rows, Schedule(updates=updates, batch_size=size), seed=0)


def bare(net: nn.Module, x: Tensor, y: Tensor, size: int, updates: int) -> None:
    optimizer = AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2, fused=True)
    per_epoch = len(x) // size
    net.train()
    for update in range(updates):
        if update % per_epoch == 0:
            order = torch.randperm(len(x))
        start = update % per_epoch * size
        index = order[start : start + size]
        loss = F.cross_entropy(net(x[index]), y[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


class Trainer:
    """The usual small trainer class over a DataLoader."""

    def __init__(self, net: nn.Module, loader: Iterable[tuple[Tensor, Tensor]]) -> None:
        self.net = net
        self.loader = loader
        self.optimizer = AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2, fused=True)

    def step(self, x: Tensor, y: Tensor) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.net(x), y)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def fit(self, updates: int) -> None:
        self.net.train()
        done = 0
        while done < updates:
            for x, y in self.loader:
                self.step(x, y)
                done += 1
                if done == updates:
                    return


def loader(net: nn.Module, x: Tensor, y: Tensor, size: int, updates: int) -> None:
    Trainer(net, DataLoader(TensorDataset(x, y), size, shuffle=True, drop_last=True)).fit(updates)


RUNS: dict[str, Callable[[nn.Module, Tensor, Tensor, int, int], None]] = {"ours": ours, "bare": bare, "loader": loader}


def compare(build: Callable[[], nn.Module], shape: tuple[int, ...], size: int, updates: int, repeats: int) -> float:
    """Print one line and return the speed of ours relative to the bare loop."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2048, *shape, generator=generator)
    y = torch.randint(0, 10, (2048,), generator=generator)
    seconds: dict[str, list[float]] = {name: [] for name in RUNS}
    for repeat in range(-1, repeats):  # the first one warms up
        names = list(RUNS) if repeat % 2 else list(RUNS)[::-1]
        for name in names:
            torch.manual_seed(0)
            net = build()
            start = time.process_time()
            RUNS[name](net, x, y, size, updates)
            if repeat >= 0:
                seconds[name].append(time.process_time() - start)
    ratio = {
        name: statistics.median(other / own for other, own in zip(seconds[name], seconds["ours"], strict=True))
        for name in RUNS
    }
    per_update = {name: 1e3 * statistics.median(values) / updates for name, values in seconds.items()}
    columns = [f"{name} {per_update[name]:.3f} ms" for name in RUNS]
    columns += [f"speed against {name} {ratio[name]:.2f}" for name in RUNS if name != "ours"]
    sys.stdout.write(f"{build.__name__} {shape}, batch {size}: " + " | ".join(columns) + "\n")
    return ratio["bare"]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--updates", type=int, default=400)
    given = parser.parse_args()
    torch.set_num_threads(1)
    cases = ((mlp, (128,), 32), (mlp, (128,), 128), (cnn, (1, 28, 28), 64))
    slowest = min(compare(*case, given.updates, given.repeats) for case in cases)
    return int(slowest < LEAST)


if __name__ == "__main__":
    sys.exit(main())
