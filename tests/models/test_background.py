"""The recurrent network against plain loops over pixels, written from its equations."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flowsight.errors import InputError
from flowsight.systems.background import network as background
from flowsight.systems.background.network import gru, lstm


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks of pixels, the last one not full."""
    monkeypatch.setattr(lstm, "BLOCK", 4)


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def shaken(part: nn.Module) -> nn.Module:
    """Every weight, peephole and bias another number, in double precision."""
    part.double()
    for index, parameter in enumerate(part.parameters()):
        parameter.data = 0.5 * random(*parameter.shape, seed=index + 1)
    return part


def kept(*shape: int, seed: int = 9) -> Tensor:
    """A dropout mask with zeros and with 1 / (1 - 0.25)."""
    return (random(*shape, seed=seed) > -0.5).double() / 0.75


def near(got: Tensor | np.ndarray, expected: Tensor | np.ndarray) -> None:
    """Equal to 1e-10; torch.testing would load torch's compiler first, which takes seconds."""
    one, other = (v.detach().numpy() if isinstance(v, Tensor) else v for v in (got, expected))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-10)


def sigma(v: float) -> float:
    return 1 / (1 + math.exp(-v))


def small(**changes: object) -> background.BackgroundNetwork:
    widths = {"lstm_units": (3, 4), "gru_units": (2, 3), "filters": (4, 2)}
    network = background.build(**(widths | changes))
    return shaken(network).eval()


# the LSTM


def lstm_by_hand(x: np.ndarray, h: np.ndarray, c: np.ndarray, m: np.ndarray, cell: nn.Module):
    """One pixel, one number at a time: x (C, T), h and c and m (U,) -> h of each frame, last c."""
    units, outputs = len(h), []
    w, r, p, b = (parameter.detach().numpy() for parameter in cell.parameters())

    def gate(row: int, frame: int, peephole: float) -> float:
        total = b[row] + peephole
        for channel in range(len(x)):
            total += w[row, channel] * x[channel, frame]
        for unit in range(units):
            total += r[row, unit] * h[unit] * m[unit]
        return total

    for frame in range(x.shape[1]):
        new_h, new_c = np.empty(units), np.empty(units)
        for u in range(units):
            i = sigma(gate(u, frame, p[0, u] * c[u]))
            f = sigma(gate(units + u, frame, p[1, u] * c[u]))
            g = math.tanh(gate(2 * units + u, frame, 0.0))
            new_c[u] = f * c[u] + i * g
            o = sigma(gate(3 * units + u, frame, p[2, u] * new_c[u]))
            new_h[u] = o * math.tanh(new_c[u])
        h, c = new_h, new_c
        outputs.append(h)
    return np.stack(outputs, axis=1), c


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_lstm_follows_its_equations(recorded: bool, masked: bool) -> None:
    cell = shaken(lstm.PeepholeLSTM(2, 3))
    x, h, c = random(2, 5, 6), random(3, 6, seed=2), random(3, 6, seed=3)
    mask = kept(3, 6) if masked else None
    with torch.set_grad_enabled(recorded):
        out, (last_h, last_c) = cell(x, (h, c), mask)
    m = torch.ones(3, 6) if mask is None else mask
    assert not masked or 0 < (m == 0).sum() < m.numel()
    for pixel in range(6):
        expected, expected_c = lstm_by_hand(*(v[..., pixel].numpy() for v in (x, h, c, m)), cell)
        near(out[..., pixel], expected)
        near(last_c[..., pixel], expected_c)
    assert torch.equal(last_h, out[:, -1])


def derivatives(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """Of a sum of all outputs, each number with a weight of its own."""
    total = sum((out * random(*out.shape, seed=k)).sum() for k, out in enumerate(outputs))
    for value in inputs:
        value.grad = None
    total.backward()
    return tuple(value.grad for value in inputs)


def test_lstm_derivatives_are_those_of_recorded_steps() -> None:
    cell = shaken(lstm.PeepholeLSTM(2, 3))
    x, h0, c0 = (v.requires_grad_() for v in (random(2, 4, 6), random(3, 6), random(3, 6, seed=2)))
    mask, inputs = kept(3, 6), (x, h0, c0, *cell.parameters())
    out, (h, c) = cell(x, (h0, c0), mask)
    got = derivatives((out, h, c), inputs)
    (p_i, p_f, p_o), h, c, outputs = cell.peephole[:, :, None], h0, c0, []
    for t in range(4):
        a = cell.weight_ih @ x[:, t] + cell.weight_hh @ (h * mask) + cell.bias[:, None]
        i, f, g, o = a.chunk(4)
        before = c
        c = (f + p_f * before).sigmoid() * before + (i + p_i * before).sigmoid() * g.tanh()
        h = (o + p_o * c).sigmoid() * c.tanh()
        outputs.append(h)
    expected = derivatives((torch.stack(outputs, dim=1), h, c), inputs)
    for mine, theirs in zip(got, expected, strict=True):
        near(mine, theirs)


# the GRU


def gru_by_hand(x: np.ndarray, m: np.ndarray, cell: nn.Module) -> np.ndarray:
    """One line, one number at a time: x (C, L), m (V,) -> h of each step (V, L)."""
    w, r, b, q = (parameter.detach().numpy() for parameter in cell.parameters())
    units = len(q)
    h, outputs = np.zeros(units), []

    def product(matrix: np.ndarray, row: int, vector: np.ndarray) -> float:
        return sum(matrix[row, k] * vector[k] for k in range(len(vector)))

    for step in range(x.shape[1]):
        new = np.empty(units)
        for v in range(units):
            rows = [gate * units + v for gate in range(3)]
            from_x = [product(w, row, x[:, step]) + b[row] for row in rows]
            from_h = [product(r, row, h * m) for row in rows]
            reset, update = (sigma(from_x[k] + from_h[k]) for k in (0, 1))
            n = math.tanh(from_x[2] + reset * (from_h[2] + q[v]))
            new[v] = (1 - update) * n + update * h[v]
        h = new
        outputs.append(h)
    return np.stack(outputs, axis=1)


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_gru_sweeps_in_four_directions(recorded: bool, masked: bool) -> None:
    cell = shaken(gru.FourWayGRU(2, 3))
    x, mask = random(2, 2, 3, 4), kept(3, 2, seed=5) if masked else None
    with torch.set_grad_enabled(recorded):
        maps = gru.as_maps(*cell(x, mask)).detach().numpy()
    m = np.ones((3, 2)) if mask is None else mask.numpy()
    right, left, down, up = maps.reshape(4, 3, 2, 3, 4)
    for k in range(2):
        for row, line in enumerate(x[:, k].numpy().transpose(1, 0, 2)):
            near(right[:, k, row], gru_by_hand(line, m[:, k], cell))
            back = gru_by_hand(line[:, ::-1], m[:, k], cell)[:, ::-1]
            near(left[:, k, row], back)
        for column, line in enumerate(x[:, k].numpy().transpose(2, 0, 1)):
            own = gru_by_hand(line, m[:, k], cell)
            near(down[:, k, :, column], own)
            back = gru_by_hand(line[:, ::-1], m[:, k], cell)[:, ::-1]
            near(up[:, k, :, column], back)


def test_gru_is_torchs_on_flips_and_transposes() -> None:
    ours, theirs = shaken(gru.FourWayGRU(5, 3)), nn.GRU(5, 3).double()
    zeros = torch.zeros(6, dtype=torch.float64)
    theirs.load_state_dict(
        {
            "weight_ih_l0": ours.weight_ih,
            "weight_hh_l0": ours.weight_hh,
            "bias_ih_l0": ours.bias_ih,
            "bias_hh_l0": torch.cat([zeros, ours.bias_hn]),
        }
    )
    x = random(5, 2, 6, 7)

    def swept(maps: Tensor) -> Tensor:
        """Left to right by torch: (C, M, H, W) -> (V, M, H, W)."""
        lines = maps.permute(3, 1, 2, 0).flatten(1, 2)
        return theirs(lines)[0].unflatten(1, maps.shape[1:3]).permute(3, 1, 2, 0)

    turned = x.transpose(2, 3)
    expected = [
        swept(x),
        swept(x.flip(3)).flip(3),
        swept(turned).transpose(2, 3),
        swept(turned.flip(3)).flip(3).transpose(2, 3),
    ]
    maps = gru.as_maps(*ours(x))
    near(maps, torch.cat(expected))


def test_gru_derivatives_are_those_of_recorded_steps() -> None:
    cell, x, mask = shaken(gru.FourWayGRU(2, 3)), random(2, 2, 3, 4), kept(3, 2, seed=5)
    inputs = (x.requires_grad_(), *cell.parameters())

    def right(maps: Tensor) -> Tensor:
        h, outputs = torch.zeros(3, 2, maps.shape[2], dtype=torch.float64), []
        for column in maps.unbind(dim=3):
            a = torch.einsum("vc,cmh->vmh", cell.weight_ih, column) + cell.bias_ih[:, None, None]
            b = torch.einsum("vu,umh->vmh", cell.weight_hh, h * mask[:, :, None])
            r, z = (a[:6] + b[:6]).sigmoid().chunk(2)
            n = (a[6:] + r * (b[6:] + cell.bias_hn[:, None, None])).tanh()
            h = (1 - z) * n + z * h
            outputs.append(h)
        return torch.stack(outputs, dim=3)

    turned = x.transpose(2, 3)
    expected = [
        right(x),
        right(x.flip(3)).flip(3),
        right(turned).transpose(2, 3),
        right(turned.flip(3)).flip(3).transpose(2, 3),
    ]
    got = gru.as_maps(*cell(x, mask))
    for mine, theirs in zip(
        derivatives([got], inputs), derivatives([torch.cat(expected)], inputs), strict=True
    ):
        near(mine, theirs)


def test_mirrored_maps_give_mirrored_sweeps() -> None:
    cell, x = shaken(gru.FourWayGRU(2, 3)), random(2, 1, 4, 5)

    def swept(maps: Tensor) -> list[Tensor]:
        return list(gru.as_maps(*cell(maps)).chunk(4))

    right, left, down, up = swept(x)
    for mine, theirs in zip(swept(x.flip(3)), (left, right, down, up), strict=True):
        near(mine, theirs.flip(3))
    for mine, theirs in zip(swept(x.flip(2)), (right, left, up, down), strict=True):
        near(mine, theirs.flip(2))
    for mine, theirs in zip(swept(x.transpose(2, 3)), (down, up, right, left), strict=True):
        near(mine, theirs.transpose(2, 3))


# the network


def test_widths_are_the_papers() -> None:
    network = background.build()
    counts = [sum(p.numel() for p in layer.parameters()) for layer in network.layers]
    # LSTM 4U(C + U + 1) + 3U, GRU 3V(U + V + 1) + V, convolution (4V + 1) K
    assert counts == [3930 + 3080 + 2430, 7410 + 3080 + 2430, 16350 + 4280 + 810]
    assert sum(p.numel() for p in network.parameters()) == sum(counts) + 10 + 1
    assert network.dropout == 0.25


def test_a_layer_is_its_parts_one_after_the_other() -> None:
    (layer, _), x = small(channels=2).layers, random(2, 3, 2, 4, 5)
    got, _ = layer(x, None, None)
    h, _ = layer.lstm(x.flatten(2))
    maps = gru.as_maps(*layer.gru(h.view(3, 6, 4, 5)))
    expected = nn.functional.conv2d(
        maps.transpose(0, 1), layer.conv.weight[:, :, None, None], layer.conv.bias
    ).relu()
    near(got.flatten(1, 2).transpose(0, 1), expected)
    assert 0 < (expected > 0).double().mean() < 1


@pytest.mark.parametrize("training", [False, True])
def test_carried_state_is_the_whole_sequence(training: bool) -> None:
    """Also with dropout: the masks go along with the state."""
    network, frames = small(dropout=0.4).train(training), random(2, 1, 7, 4, 5)
    torch.manual_seed(1)
    whole, last = network(frames)
    torch.manual_seed(1)
    first, state = network(frames[:, :, :3])
    second, state = network(frames[:, :, 3:], state.detach())
    near(torch.cat([first, second], dim=1), whole)
    for mine, theirs in zip(state.layers, last.layers, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            near(one, other)
    assert (state.masks is not None) == training


def test_sequences_of_a_batch_do_not_meet() -> None:
    network, frames = small(), random(3, 1, 4, 4, 5)
    together, _ = network(frames)
    for index in range(3):
        alone, _ = network(frames[index : index + 1])
        near(together[index], alone[0])


def test_a_mirrored_video_gives_mirrored_logits() -> None:
    """With the convolution's filters for right and left exchanged, as their sweeps are."""
    network, frames = small(), random(1, 1, 4, 4, 5)
    expected, _ = network(frames)
    for layer in network.layers:
        right, left, rest = layer.conv.weight.data.split(
            [layer.gru.weight_hh.shape[1]] * 2 + [2 * layer.gru.weight_hh.shape[1]], dim=1
        )
        layer.conv.weight.data = torch.cat([left, right, rest], dim=1)
    mirrored, _ = network(frames.flip(4))
    near(mirrored.flip(3), expected)


def test_a_dropped_input_is_dropped_in_every_frame() -> None:
    """Of the second layer's inputs those with a zero in the mask change nothing, in no frame."""
    network = small(dropout=0.5).train()
    frames, bias = random(1, 1, 5, 3, 3), network.layers[0].conv.bias.data.clone()

    def run() -> background.State:
        torch.manual_seed(4)
        return network(frames)[1]

    state = run()
    assert state.masks is not None
    mask = state.masks[1].lstm_input[:, 0]
    assert set(mask.tolist()) == {0.0, 2.0}
    for channel in range(len(mask)):
        network.layers[0].conv.bias.data = bias + 10 * (torch.arange(len(mask)) == channel)
        same = torch.equal(run().layers[1][0], state.layers[1][0])
        assert same == (mask[channel] == 0)
    assert network.eval()(frames)[1].masks is None


def test_frames_are_never_dropped() -> None:
    network = small(dropout=0.9).train()
    for seed in range(20):
        torch.manual_seed(seed)
        _, state = network(random(3, 1, 1, 2, 2))
        assert state.masks is not None
        assert torch.equal(state.masks[0].lstm_input, torch.ones(1, 3).double())


def test_pairs_of_units_start_as_now_less_before() -> None:
    torch.manual_seed(0)
    network = background.build(lstm_units=(8,), gru_units=(2,), filters=(2,), pairs=True)
    cell = network.layers[0].lstm
    levels = torch.linspace(-2, 2, 9)
    still = levels.expand(1, 200, 9)
    with torch.no_grad():
        h, state = cell(still)
        static = (h[4:, -1] - h[:4, -1]).abs()
        h, _ = cell(-levels.expand(1, 1, 9), state)
        changed = (h[4:, -1] - h[:4, -1]).abs()
    assert static.max() < 0.1
    ends = [0, 1, 2, 6, 7, 8]  # grey levels near 0 change little
    assert (changed.amax(0)[ends] > 5 * static.amax(0)[ends]).all()


def test_memory_does_not_grow_with_the_video() -> None:
    network = small()

    def camera(num_frames: int) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(num_frames):
            yield torch.randn(1, 8, 9, generator=generator, dtype=torch.float64)

    def alive() -> int:
        gc.collect()
        return sum(o.numel() for o in gc.get_objects() if type(o) is Tensor)

    whole, _ = network(torch.stack(list(camera(12)), dim=1)[None])
    amounts = []
    for index, probs in enumerate(background.probabilities(network, camera(12))):
        near(probs, whole[0, index].sigmoid())
        if index in (1, 11):
            amounts.append(alive())
    assert amounts[0] == amounts[1]


def test_wrong_shapes_are_named() -> None:
    network = small()
    with pytest.raises(InputError, match=r"expected frames \(B, 1, T, H, W\), got \(1, 2, 3, 4, 4"):
        network(random(1, 2, 3, 4, 4))
    _, state = network(random(1, 1, 3, 4, 4))
    with pytest.raises(InputError, match=r"B, H, W = \(1, 4, 4\), got \(1, 4, 5\)"):
        network(random(1, 1, 3, 4, 5), state)
    with pytest.raises(InputError, match="got 2, 1 and 2"):
        background.build(lstm_units=(3, 4), gru_units=(2,), filters=(4, 2))
