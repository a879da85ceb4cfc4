import json

import pytest
import torch
from torch import nn

from sbi_core.errors import DataFileError
from sbi_core.files.tensors import load_weights, read_json, read_tensors, write_tensors


def test_tensors_and_table_come_back_with_the_same_bits(tmp_path):
    tensors = {"a": torch.randn(3, 2).T, "b": torch.tensor(7), "c": torch.zeros(0, 4)}
    write_tensors(tmp_path / "t.safetensors", tensors, {"epoch": 3, "loss": 0.1 + 0.2})
    back, meta = read_tensors(tmp_path / "t.safetensors")
    assert meta == {"epoch": 3, "loss": 0.1 + 0.2}
    assert all(torch.equal(back[k], tensors[k]) for k in tensors)
    assert [p.name for p in tmp_path.iterdir()] == ["t.safetensors"]  # nothing temporary is left


def test_every_truncation_and_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "t.safetensors"
    write_tensors(path, {"a": torch.arange(5.0)})
    good = path.read_bytes()
    for k in range(0, len(good), 7):
        path.write_bytes(good[:k])
        with pytest.raises(DataFileError, match="damaged"):
            read_tensors(path)
    for k in range(len(good) - 20, len(good)):
        path.write_bytes(good[:k] + bytes([good[k] ^ 4]) + good[k + 1 :])
        with pytest.raises(DataFileError, match="damaged"):
            read_tensors(path)


def test_a_file_of_somebody_else_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "t.safetensors")
    with pytest.raises(DataFileError, match="not written by sbi-core"):
        read_tensors(tmp_path / "t.safetensors")
    with pytest.raises(DataFileError, match="does not exist"):
        read_tensors(tmp_path / "nothing.safetensors")


def test_weights_of_another_network_are_refused():
    net = nn.Linear(3, 2)
    with pytest.raises(DataFileError, match="lacks 'bias'"):
        load_weights(net, {"weight": torch.zeros(2, 3)}, "f")
    with pytest.raises(DataFileError, match="unknown tensor 'c'"):
        load_weights(net, {**net.state_dict(), "c": torch.zeros(1)}, "f")
    with pytest.raises(DataFileError, match=r"shape \(2, 4\), this network needs \(2, 3\)"):
        load_weights(net, {"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}, "f")


def test_json_must_hold_a_table(tmp_path):
    path = tmp_path / "config.json"
    with pytest.raises(DataFileError, match="cannot be read"):
        read_json(path)
    path.write_text("{")
    with pytest.raises(DataFileError, match="not valid JSON"):
        read_json(path)
    path.write_text(json.dumps([1]))
    with pytest.raises(DataFileError, match="table"):
        read_json(path)


def test_equal_content_gives_equal_bytes(tmp_path):
    tensors = {name: torch.arange(6.0) for name in ("b", "a", "c")}
    for k in range(5):
        write_tensors(tmp_path / f"{k}.safetensors", tensors, {"x": 1, "y": [2]})
    assert len({(tmp_path / f"{k}.safetensors").read_bytes() for k in range(5)}) == 1
