"""The GPU engine of TV-L1: in Triton's interpreter, compiled for a GPU, and on one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowsight.errors import InputError
from flowsight.flow import tvl1_gpu, tvl1_torch
from flowsight.flow.tvl1_numbers import PRESETS

TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not TRITON, reason="needs triton")

INTERPRETED = """
import sys
import numpy as np
from flowsight.flow import tvl1_gpu
from flowsight.flow.tvl1_launch import Launch

frames = np.load(sys.argv[1])
pair = frames["previous"], frames["following"]
launch = Launch(tile=(16, 32), median_tile=(32, 32), group=4)
flows = {
    name: tvl1_gpu.solve(*pair, numbers=numbers, device="cpu", launch=launch)
    for name, numbers in eval(sys.argv[3]).items()
}
np.savez(sys.argv[2], **flows)
"""

COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from flowsight.flow import tvl1_kernels, tvl1_median

FLOATS = "state plane previous images error".split()
INTEGERS = "slot active iteration".split()
TYPES = dict.fromkeys(FLOATS, "*fp32") | dict.fromkeys(INTEGERS, "*i32")
TYPES |= {"credit": "*fp64", "total": "*i64"}
TYPES |= dict.fromkeys("limit theta step threshold_px2".split(), "fp32")
TILE = {"BLOCK_Y": 8, "BLOCK_X": 64}

def compile_kernel(kernel, **constants):
    names = [parameter.name for parameter in kernel.params]
    types = {name: TYPES.get(name, "i32") for name in names if name not in constants}
    types |= dict.fromkeys(constants, "constexpr")
    values = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, {name: types[name] for name in names}, values)
    options = {"num_warps": 8, "enable_fp_fusion": False}
    binary = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    assert binary.asm["ptx"]

compile_kernel(tvl1_kernels.iterate, EXACT=True, **TILE)
compile_kernel(tvl1_kernels.advance, CUDA=True, BLOCK=128)
compile_kernel(tvl1_kernels.linearise, A=-0.75, ZERO_BORDER=True, **TILE)
compile_kernel(tvl1_median.median_filter, SIDE=5, **TILE)
compile_kernel(tvl1_median.take_filtered, BLOCK=1024)
"""


def pairs(num: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth frames that move by different amounts; the last pair does not move."""
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(num, 1 + height + 8, 1 + width + 8)).cumsum(1).cumsum(2)
    scaled = (128 + 50 * steps / steps.std((1, 2), keepdims=True)).clip(0, 255).astype(np.uint8)
    previous = scaled[:, 4 : 4 + height, 4 : 4 + width].copy()
    following = np.stack(
        [f[3 - i % 3 :, 5 - i % 2 :][:height, :width] for i, f in enumerate(scaled)]
    )
    following[-1] = previous[-1]
    return previous, following


def run(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    # the interpreter is chosen when kernels are defined, hence in a process of its own
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


NUMBERS: dict[str, dict[str, Any]] = {
    "opencv": {"num_scales": 2, "num_warps": 2, "inner_iterations": 3, "outer_iterations": 2},
    "cuda": {
        **PRESETS["cuda"],
        "num_scales": 1,
        "num_warps": 2,
        "inner_iterations": 6,
        "epsilon": 0.3,
    },
    "median3": {"num_scales": 1, "num_warps": 1, "inner_iterations": 2, "median_filtering": 3},
}


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Flow of two pairs by the kernels in Triton's interpreter, for each of NUMBERS."""
    folder = tmp_path_factory.mktemp("interpreted")
    frames = pairs(2, 21, 27)
    np.savez(folder / "frames.npz", previous=frames[0], following=frames[1])
    files = (folder / "frames.npz", folder / "flows.npz")
    result = run(INTERPRETED, *files, repr(NUMBERS), TRITON_INTERPRET="1")
    assert result.returncode == 0, result.stderr
    return dict(np.load(folder / "flows.npz"))


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_kernels_compute_what_the_reference_does(
    interpreted: dict[str, np.ndarray], name: str
) -> None:
    flow = interpreted[name]
    assert np.abs(flow[0]).max() > 0.1
    assert not flow[1].any()
    expected = tvl1_torch.solve(*pairs(2, 21, 27), numbers=NUMBERS[name])
    np.testing.assert_allclose(flow, expected, atol=1e-5)


@needs_triton
@pytest.mark.slow
def test_kernels_compile_for_a_gpu(tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text(COMPILED)
    result = run(
        "import sys, runpy; runpy.run_path(sys.argv[1])",
        tmp_path / "kernels.py",
        TRITON_CACHE_DIR=str(tmp_path),
    )
    assert result.returncode == 0, result.stderr


def test_imports_without_triton_and_is_not_available() -> None:
    code = "import sys; sys.modules['triton'] = None; import importlib.util as u; "
    code += "find = u.find_spec; u.find_spec = lambda n, *a: None if n == 'triton' else find(n, *a)"
    code += "; from flowsight.flow import tvl1_gpu; assert not tvl1_gpu.available()"
    result = run(code)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    assert not tvl1_gpu.available()
    frames = pairs(1, 20, 20)
    for device in ("cuda", "cpu"):
        with pytest.raises(InputError, match="expected"):
            tvl1_gpu.solve(*frames, numbers={}, device=device)


@pytest.mark.cuda
@pytest.mark.skipif(not tvl1_gpu.available(), reason="needs a GPU and triton")
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_gpu_agrees_with_the_reference(preset: str) -> None:
    frames = pairs(5, 90, 120)
    numbers = {**PRESETS[preset], "epsilon": 0, "inner_iterations": 8, "outer_iterations": 2}
    flow = tvl1_gpu.solve(*frames, numbers=numbers)
    difference = np.abs(flow - tvl1_torch.solve(*frames, numbers=numbers))
    assert difference.mean() <= 1e-4
    assert difference.max() <= 0.06


@pytest.mark.cuda
@pytest.mark.skipif(not tvl1_gpu.available(), reason="needs a GPU and triton")
def test_gpu_gives_a_frame_the_same_bits_in_any_batch() -> None:
    frames = pairs(5, 90, 120)
    flow = tvl1_gpu.solve(*frames, numbers={}, batch_size=8)
    np.testing.assert_array_equal(tvl1_gpu.solve(*frames, numbers={}, batch_size=2), flow)
    no_graphs = tvl1_gpu.Launch(graphs=False)
    again = tvl1_gpu.solve(*frames, numbers={}, launch=no_graphs)
    np.testing.assert_array_equal(again, flow)
    assert not flow[-1].any()
