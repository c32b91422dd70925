"""Chance and arithmetic under control: seeds from tuples of integers, the same sums each time."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_everything(*entropy: int) -> None:
    """Seed Python, NumPy and torch from integers such as (seed, epoch).

    Nearby tuples give unrelated streams (NumPy's SeedSequence mixes them).

    Args:
        entropy: non-negative integers.
    """
    (state,) = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    torch.manual_seed(int(state))
    random.seed(int(state))
    np.random.seed(int(state) % 2**32)


@contextmanager
def reproducible(num_threads: int) -> Iterator[None]:
    """Deterministic kernels and a fixed number of CPU threads, as they were before afterwards.

    Sums depend on how they are cut, so results are exact to the bit for the same number of threads
    and the same kind of CPU. CUDA has layers without a deterministic kernel: there torch warns.

    Args:
        num_threads: CPU threads of an operation.
    """
    threads = torch.get_num_threads()
    before = torch.get_deterministic_debug_mode()
    # read by cuBLAS when it starts; without it torch refuses to be deterministic on CUDA
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(num_threads)
    # use_deterministic_algorithms does the same, but loads all of torch's compiler first: 4 s
    torch.set_deterministic_debug_mode("warn" if torch.cuda.is_available() else "error")
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(before)
