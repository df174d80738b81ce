"""One seed becomes any number of independent, named generators; the global ones are left as they were."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, *names: str) -> int:
    """A seed in [0, 2**63) that depends on nothing but `seed` and `names`."""
    digest = hashlib.blake2b("/".join((str(seed), *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def numpy_generator(seed: int, *names: str) -> np.random.Generator:
    return np.random.default_rng(derive(seed, *names))


def torch_generator(seed: int, *names: str) -> torch.Generator:
    import torch

    return torch.Generator().manual_seed(derive(seed, *names))


@contextmanager
def fence(seed: int, *names: str) -> Iterator[None]:
    """Inside, the global generators of random, numpy and torch are seeded; afterwards they are as before."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    loaded = sys.modules.get("torch")
    torch_state = loaded.random.get_rng_state() if loaded else None
    cuda_state = loaded.cuda.get_rng_state_all() if loaded and loaded.cuda.is_available() else None
    value = derive(seed, *names)
    random.seed(value)
    np.random.seed(value % 2**32)
    if loaded:
        loaded.manual_seed(value)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        if loaded and torch_state is not None:
            loaded.random.set_rng_state(torch_state)
            if cuda_state is not None:
                loaded.cuda.set_rng_state_all(cuda_state)


@contextmanager
def exact() -> Iterator[None]:
    """Inside, a GPU convolves in whole float32 and the same way each time; on a CPU nothing changes.

    Sums over rows that share an index, and recurrent layers, may still differ on a GPU in the last digits.
    """
    import torch

    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield
