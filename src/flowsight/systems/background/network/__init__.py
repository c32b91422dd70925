"""Background subtraction: an LSTM over time and a GRU over space for each pixel of each frame.

Axes: B sequences, C channels, T frames, H rows, W columns; channels stand first inside.

A layer is a peephole LSTM with one state a pixel (`lstm`), a GRU that sweeps the map of its outputs
in four directions (`gru`), and a 1x1 convolution that mixes the four. Three layers are stacked,
then a dense layer gives each pixel one logit: moving or not. A frame needs only the state of the
frame before, so a video may have any length.

The paper gives the widths (LSTM 30, 30, 50; GRU 20, 20, 20; convolution 30, 30, 10) and dropout of
0.25 on inputs and recurrent states with one mask for a whole sequence. It does not say what follows
the convolution (here ReLU) and which form of GRU it has (here cuDNN's). The frames are not dropped,
only the inputs of later parts: with one grey channel a quarter of all sequences would show nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from flowsight.errors import InputError
from flowsight.systems.background.network.gru import FourWayGRU
from flowsight.systems.background.network.lstm import PeepholeLSTM, States


@dataclass(frozen=True, kw_only=True, eq=False)
class Masks:
    """Dropout of a layer: each (units, B), zero or 1 / (1 - rate), for a whole sequence."""

    lstm_input: Tensor
    lstm_state: Tensor
    gru_input: Tensor
    gru_state: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """What a sequence carries from frame to frame."""

    layers: tuple[States, ...]
    """LSTM output and cell of each layer, (units, B * H * W)."""
    masks: tuple[Masks, ...] | None
    """Drawn at the start of a sequence in training; None: no dropout."""
    shape: tuple[int, int, int]
    """B, H, W."""

    def detach(self) -> State:
        """The same values without their history: where back-propagation is cut."""
        layers = tuple((h.detach(), c.detach()) for h, c in self.layers)
        return State(layers=layers, masks=self.masks, shape=self.shape)


class RecurrentLayer(nn.Module):
    """LSTM over time, GRU over space, 1x1 convolution, ReLU.

    Args:
        channels: of the input.
        lstm_units, gru_units, filters: widths of the three parts.
        pairs: how the LSTM's weights start.
    """

    def __init__(
        self,
        channels: int,
        lstm_units: int,
        gru_units: int,
        filters: int,
        *,
        pairs: bool = False,
    ) -> None:
        super().__init__()
        self.lstm = PeepholeLSTM(channels, lstm_units, pairs=pairs)
        self.gru = FourWayGRU(lstm_units, gru_units)
        self.conv = nn.Linear(4 * gru_units, filters)  # over the channels of every pixel

    def forward(
        self, x: Tensor, state: States | None, masks: Masks | None
    ) -> tuple[Tensor, States]:
        """(channels, T, B, H, W) -> (filters, T, B, H, W), and the LSTM's last state."""
        _, steps, batch, height, width = x.shape
        if masks is None:
            recurrent = swept = None
        else:
            x = x * masks.lstm_input[:, None, :, None, None]
            recurrent = masks.lstm_state.repeat_interleave(height * width, dim=1)
            swept = masks.gru_state.repeat(1, steps)
        h, state = self.lstm(x.flatten(2), state, recurrent)
        h = h.view(-1, steps, batch, height, width)
        if masks is not None:
            h = h * masks.gru_input[:, None, :, None, None]
        across, down = self.gru(h.flatten(1, 2), swept)
        return self._mix(across, down).relu_().unflatten(1, (steps, batch)), state

    def draw_masks(self, rate: float, frames: Tensor) -> Masks:
        """Masks for a batch of sequences, of the frames' type and device."""

        def draw(weight: Tensor) -> Tensor:
            kept = torch.full((weight.shape[1], len(frames)), 1 - rate, device=frames.device)
            return torch.bernoulli(kept).to(frames) / (1 - rate)

        return Masks(
            lstm_input=draw(self.lstm.weight_ih),
            lstm_state=draw(self.lstm.weight_hh),
            gru_input=draw(self.gru.weight_ih),
            gru_state=draw(self.gru.weight_hh),
        )

    def _mix(self, across: Tensor, down: Tensor) -> Tensor:
        """1x1 convolution of the four sweeps as they lie, -> (filters, T * B, H, W)."""
        first, second = self.conv.weight.chunk(2, dim=1)
        mixed = torch.addmm(self.conv.bias[:, None], second, down.flatten(0, 1).flatten(1))
        mixed = mixed.view(-1, *down.shape[2:]).permute(0, 2, 1, 3)
        other = (first @ across.flatten(0, 1).flatten(1)).view(-1, *across.shape[2:])
        return mixed + other.permute(0, 2, 3, 1)


class BackgroundNetwork(nn.Module):
    """Layers, then a logit for each pixel; see the head of this file.

    Args:
        channels: C of the input.
        lstm_units, gru_units, filters: widths, one of each a layer.
        dropout: share of inputs and of recurrent states that are dropped in training.
        pairs: how the LSTMs' weights start (`lstm`).
    """

    def __init__(
        self,
        channels: int,
        lstm_units: Sequence[int],
        gru_units: Sequence[int],
        filters: Sequence[int],
        dropout: float,
        *,
        pairs: bool = False,
    ) -> None:
        super().__init__()
        self.channels, self.dropout = channels, dropout
        inputs = [channels, *filters[:-1]]
        widths = zip(inputs, lstm_units, gru_units, filters, strict=True)
        self.layers = nn.ModuleList(RecurrentLayer(*width, pairs=pairs) for width in widths)
        self.dense = nn.Linear(filters[-1], 1)
        self.dense.bias.data.fill_(-2.0)  # most pixels do not move

    def forward(self, frames: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Logits of frames, and the state to go on from.

        Args:
            frames: (B, C, T, H, W) float, grey levels about 0.
            state: that of the frame before the first; None: the sequence starts here.

        Returns:
            Logits (B, T, H, W), positive where something moves, and the state after the last frame.

        Raises:
            InputError: frames of another shape than the state's, or other channels.
        """
        shape = (len(frames), *frames.shape[3:])
        self._check(frames, shape, state)
        masks = state.masks if state else self._draw_masks(frames)
        x = frames.permute(1, 2, 0, 3, 4).contiguous()  # (C, T, B, H, W)
        states = []
        for index, layer in enumerate(self._layers()):
            before = state.layers[index] if state else None
            x, after = layer(x, before, masks[index] if masks else None)
            states.append(after)
        logits = (self.dense.weight @ x.flatten(1) + self.dense.bias).view(x.shape[1:])
        return logits.transpose(0, 1), State(layers=tuple(states), masks=masks, shape=shape)

    def _check(self, frames: Tensor, shape: tuple[int, ...], state: State | None) -> None:
        if frames.ndim != 5 or frames.shape[1] != self.channels or 0 in frames.shape:
            raise InputError(
                f"expected frames (B, {self.channels}, T, H, W), got {tuple(frames.shape)}"
            )
        if state is not None and state.shape != shape:
            raise InputError(
                f"expected frames of the state's B, H, W = {state.shape}, got {shape}; a sequence "
                "of another size starts with state None"
            )

    def _draw_masks(self, frames: Tensor) -> tuple[Masks, ...] | None:
        if not self.training or self.dropout == 0:
            return None

        first, *others = (layer.draw_masks(self.dropout, frames) for layer in self._layers())
        seen = torch.ones_like(first.lstm_input)  # the frames themselves are never dropped
        return (replace(first, lstm_input=seen), *others)

    def _layers(self) -> Iterator[RecurrentLayer]:
        return (layer for layer in self.layers if isinstance(layer, RecurrentLayer))


@torch.inference_mode()
def probabilities(network: BackgroundNetwork, frames: Iterable[Tensor]) -> Iterator[Tensor]:
    """How likely each pixel moves, frame by frame, of a video of any length or a camera.

    Only the state is kept, so memory does not grow with the video.

    Args:
        network: in evaluation mode.
        frames: each (C, H, W), of one size.

    Yields:
        (H, W) in [0, 1], one a frame, as soon as it is known.
    """
    state = None
    for frame in frames:
        logits, state = network(frame[None, :, None], state)
        yield logits[0, 0].sigmoid()


def build(
    *,
    channels: int = 1,
    lstm_units: Sequence[int] = (30, 30, 50),
    gru_units: Sequence[int] = (20, 20, 20),
    filters: Sequence[int] = (30, 30, 10),
    dropout: float = 0.25,
    pairs: bool = False,
) -> BackgroundNetwork:
    """The network, untrained; the defaults are the paper's.

    Raises:
        InputError: not as many widths of one kind as of another, or none.
    """
    counts = {len(lstm_units), len(gru_units), len(filters)}
    if len(counts) != 1 or counts == {0}:
        raise InputError(
            f"expected as many LSTM, GRU and convolution widths as layers, got {len(lstm_units)}, "
            f"{len(gru_units)} and {len(filters)}"
        )
    return BackgroundNetwork(channels, lstm_units, gru_units, filters, dropout, pairs=pairs)
