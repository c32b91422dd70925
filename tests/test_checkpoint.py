"""Checkpoints: bytes, broken and hostile files, wrong networks."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from flowsight.errors import InputError
from flowsight.nn import checkpoint


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def test_same_weights_same_bytes_whatever_the_path_and_layout(tmp_path: Path) -> None:
    network = small()
    checkpoint.save(network.state_dict(), tmp_path / "a" / "model.pt")
    state = checkpoint.load(tmp_path / "a" / "model.pt")
    checkpoint.save(state, tmp_path / "other.pt")
    network.to(memory_format=torch.channels_last)
    checkpoint.save(network.state_dict(), tmp_path / "third.pt")
    whole = torch.cat([state["3.weight"], torch.zeros(5, 4)])
    checkpoint.save({**state, "3.weight": whole[:2]}, tmp_path / "view.pt")
    names = ("a/model.pt", "other.pt", "third.pt", "view.pt")
    assert len({(tmp_path / name).read_bytes() for name in names}) == 1


def test_restores_every_weight(tmp_path: Path) -> None:
    first, second = small(), small()
    checkpoint.save(first.state_dict(), tmp_path / "model.pt")
    checkpoint.restore(second, tmp_path / "model.pt")
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])


class Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, (f"open({str(self.target)!r}, 'w').write('ran')",))


@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_refuses_code(tmp_path: Path, writer: str) -> None:
    path, proof = tmp_path / "model.pt", tmp_path / "proof"
    if writer == "pickle":
        path.write_bytes(pickle.dumps({"weight": Hostile(proof)}))
    else:
        torch.save({"weight": Hostile(proof)}, path)
    with pytest.raises(InputError, match=r"model\.pt"):
        checkpoint.load(path)
    assert not proof.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04broken"])
def test_refuses_broken_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="broken"):
        checkpoint.load(path)


def test_refuses_truncated_and_absent_files(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with pytest.raises(InputError, match="no such file"):
        checkpoint.load(path)
    checkpoint.save(small().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="broken"):
        checkpoint.load(path)


def test_refuses_what_is_no_state_dict(tmp_path: Path) -> None:
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    torch.save({"epoch": 3, "state": {}}, tmp_path / "nested.pt")
    for name in ("list.pt", "nested.pt"):
        with pytest.raises(InputError, match="name -> tensor"):
            checkpoint.load(tmp_path / name)


def test_names_what_does_not_fit(tmp_path: Path) -> None:
    state = small().state_dict()
    state["extra"] = torch.zeros(1)
    del state["0.bias"]
    state["3.weight"] = torch.zeros(7, 4)
    checkpoint.save(state, tmp_path / "model.pt")
    with pytest.raises(InputError) as caught:
        checkpoint.restore(small(), tmp_path / "model.pt")
    for part in ("missing (0.bias)", "unknown (extra)", "3.weight: 7x4 for 2x4", "model.pt"):
        assert part in str(caught.value)


def test_many_differences_stay_one_short_line() -> None:
    text = checkpoint.differences(small().state_dict(), {})
    assert text == "9 tensors missing (0.weight, 0.bias, 1.weight, ...)"
