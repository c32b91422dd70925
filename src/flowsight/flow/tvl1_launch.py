"""Memory, launches and graphs of the GPU engine of TV-L1."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowsight.flow.tvl1_numbers import Numbers


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How kernels are cut and queued; changes speed and at most last bits, not the method."""

    tile: tuple[int, int] = (8, 64)
    """Rows and columns of a program's tile, powers of two."""
    num_warps: int = 8
    """Warps of 32 threads that share a tile."""
    median_tile: tuple[int, int] = (4, 64)
    """The same for the median filter, whose 25 values live in registers."""
    group: int = 5
    """Iterations queued at once, as one graph."""
    look_behind: int = 2
    """Groups the device may be ahead of what the host knows of stopped frames."""
    graphs: bool = True
    """Queue groups as CUDA graphs; launching kernels one by one costs more than running them."""
    exact: bool = True
    """Correctly rounded divisions and roots, and no fused multiply-adds but OpenCV's."""


class Workspace:
    """Device memory for `capacity` frames of one size, used by its pyramid's levels in turn.

    See `tvl1_kernels` for what the arrays hold. `real` (N,) marks frames that are not padding;
    `total` (N,) counts each frame's pixels, once per iteration, since `start`.
    """

    def __init__(
        self,
        height: int,
        width: int,
        capacity: int,
        numbers: Numbers,
        launch: Launch,
        device: str,
    ) -> None:
        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.capacity, self.numbers, self.launch = capacity, numbers, launch
        self.device = torch.device(device)
        pixels = height * width
        self.state = zeros(2 * capacity * 6 * pixels)
        self.plane = zeros(capacity * 4 * pixels)
        self.error = zeros(capacity * _num_tiles(height, width, launch.tile))
        self.slot = zeros(capacity, dtype=torch.int32)
        self.real = zeros(capacity, dtype=torch.int32)
        self.active = zeros(capacity, dtype=torch.int32)
        self.iteration = zeros(capacity, dtype=torch.int32)
        self.total = zeros(capacity, dtype=torch.int64)
        self.credit = zeros(capacity, dtype=torch.float64)
        self.pending: deque[tuple[Any, Tensor]] = deque()
        self.on_gpu = self.device.type == "cuda"
        self.flags = [
            torch.zeros(capacity, dtype=torch.int32, pin_memory=self.on_gpu)
            for _ in range(launch.look_behind + 1)
        ]

    def start(self, num_frames: int) -> None:
        """Begin a batch of so many frames; the rest of the capacity stays idle."""
        self.real.copy_(torch.arange(self.capacity, device=self.device) < num_frames)
        self.total.zero_()

    def all_stopped(self) -> bool:
        """Whether no frame was active `look_behind` groups ago. Called once after each group."""
        if not self.on_gpu:
            return not bool(self.active.any())
        flags = self.flags.pop(0)
        flags.copy_(self.active, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self.flags.append(flags)
        self.pending.append((event, flags))
        if len(self.pending) <= self.launch.look_behind:
            return False
        event, flags = self.pending.popleft()
        event.synchronize()
        return not bool(flags.any())


class Level:
    """One pyramid level of a workspace: its views of the memory, its launches, its graph."""

    def __init__(self, work: Workspace, height: int, width: int) -> None:
        pixels, capacity = height * width, work.capacity
        self.work, self.height, self.width = work, height, width
        self.state = work.state[: 2 * capacity * 6 * pixels].view(2, capacity, 6, height, width)
        self.plane = work.plane[: capacity * 4 * pixels].view(capacity, 4, height, width)
        self.graph: torch.cuda.CUDAGraph | None = None

    def set_flow(self, flow: Tensor) -> None:
        """Start from this flow (N, 2, H, W), with a dual of 0."""
        self.state[0, :, :2] = flow
        self.state[0, :, 2:] = 0
        self.work.slot.zero_()

    def flow(self) -> Tensor:
        """(N, 2, H, W), a copy."""
        second = self.work.slot[:, None, None, None] == 1
        return torch.where(second, self.state[1, :, :2], self.state[0, :, :2])

    def begin_warp(self, previous: Tensor, images: Tensor) -> None:
        """Linearise about the present flow and make every frame active again.

        Args:
            previous: (N, H, W), contiguous.
            images: following frame and its gradient (N, 3, H, W), contiguous.
        """
        from flowsight.flow import tvl1_kernels

        work = self.work
        work.active.copy_(work.real)
        work.iteration.zero_()
        work.credit.zero_()
        work.pending.clear()
        tile = work.launch.tile
        tvl1_kernels.linearise[self._grid(tile)](
            *(self.state, self.plane, previous, images, work.slot, work.active),
            *(work.capacity, self.height, self.width),
            A=work.numbers.bicubic_a,
            ZERO_BORDER=work.numbers.semantics == "cpu",
            **self._cut(tile),
        )

    def filter_flow(self) -> None:
        """Median filter the flow of active frames."""
        from flowsight.flow import tvl1_median

        work, side = self.work, self.work.numbers.median_filtering
        if side == 1:
            return
        tile, block = work.launch.median_tile, 1024
        tvl1_median.median_filter[(*self._grid(tile), 2)](
            *(self.state, work.slot, work.active, work.capacity, self.height, self.width),
            SIDE=side,
            **self._cut(tile),
        )
        pixels = self.height * self.width
        tvl1_median.take_filtered[(-(-2 * pixels // block), work.capacity)](
            *(self.state, work.slot, work.active, work.capacity, pixels), BLOCK=block
        )

    def iterate(self, count: int) -> None:
        """Queue so many iterations of the active frames."""
        launch = self.work.launch
        if not (launch.graphs and self.work.on_gpu and count == launch.group):
            return self._launch(count)
        if self.graph is None:
            self.graph = self._capture(count)
        return self.graph.replay()

    def _capture(self, count: int) -> torch.cuda.CUDAGraph:
        # kernels are compiled at their first launch, which a graph cannot hold; with no frame
        # active it changes nothing
        active = self.work.active.clone()
        self.work.active.zero_()
        self._launch(1)
        self.work.active.copy_(active)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._launch(count)
        return graph

    def _launch(self, count: int) -> None:
        from flowsight.flow import tvl1_kernels

        work, numbers = self.work, self.work.numbers
        tile = work.launch.tile
        num_tiles = _num_tiles(self.height, self.width, tile)
        for _ in range(count):
            tvl1_kernels.iterate[self._grid(tile)](
                *(self.state, self.plane, work.slot, work.active, work.error),
                *(work.capacity, self.height, self.width),
                *(numbers.lambda_ * numbers.theta, numbers.theta, numbers.tau / numbers.theta),
                EXACT=work.launch.exact,
                **self._cut(tile),
            )
            tvl1_kernels.advance[(work.capacity,)](
                *(work.error, work.slot, work.active, work.iteration, work.credit, work.total),
                *(num_tiles, self.height * self.width),
                numbers.stop_threshold(self.height, self.width),
                CUDA=numbers.semantics == "cuda",
                BLOCK=1 << (num_tiles - 1).bit_length(),
            )

    def _grid(self, tile: tuple[int, int]) -> tuple[int, int]:
        return _num_tiles(self.height, self.width, tile), self.work.capacity

    def _cut(self, tile: tuple[int, int]) -> dict[str, Any]:
        launch = self.work.launch
        cut = {"BLOCK_Y": tile[0], "BLOCK_X": tile[1], "num_warps": launch.num_warps}
        return {**cut, "enable_fp_fusion": not launch.exact}


def _num_tiles(height: int, width: int, tile: tuple[int, int]) -> int:
    return -(-height // tile[0]) * -(-width // tile[1])
