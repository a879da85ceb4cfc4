"""Memory addresses: whatever enters a matrix product starts at a multiple of 64 bytes."""

import numpy as np
import torch
from torch import nn

from sbi_core.data.alignment import align_weights, aligned
from sbi_core.data.batch import Batch
from sbi_core.files.tensors import load_weights, read_tensors, write_tensors


def misaligned(tensor):
    """The same values in a view that starts 4 or 8 bytes after an aligned address."""
    buffer = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)
    view = buffer[1:].view(tensor.shape)
    return view.copy_(tensor)


def test_a_misaligned_tensor_is_copied_and_an_aligned_one_is_not():
    for dtype in (torch.float32, torch.float64):
        tensor = torch.randn(5, 3, dtype=dtype)
        moved = misaligned(tensor)
        assert moved.data_ptr() % 64
        assert aligned(moved).data_ptr() % 64 == 0
        assert torch.equal(aligned(moved), tensor)
        assert aligned(tensor) is tensor


def test_the_result_is_contiguous():
    tensor = torch.randn(4, 6).T
    assert aligned(tensor).is_contiguous()
    assert torch.equal(aligned(tensor), tensor)


def test_weights_and_buffers_move_and_keep_their_values():
    module = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    before = {k: v.clone() for k, v in module.state_dict().items()}
    parameters = list(module.parameters())
    for tensor in (*parameters, *module.buffers()):
        tensor.data = misaligned(tensor.data)
    align_weights(module)
    assert all(t.data_ptr() % 64 == 0 for t in (*module.parameters(), *module.buffers()))
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert all(a is b for a, b in zip(parameters, module.parameters(), strict=True))


def test_arrays_enter_a_batch_at_aligned_addresses():
    raw = np.empty(8 * 61 + 64, np.uint8)
    start = -raw.ctypes.data % 64 + 8
    x = raw[start : start + 8 * 60].view(np.float64).reshape(20, 3)
    x[:] = 1.0
    assert x.ctypes.data % 64 == 8
    assert Batch.of_arrays(x=x).x.data_ptr() % 64 == 0


def test_what_is_read_from_a_file_is_aligned(tmp_path):
    """A file packs its tensors without gaps: as views of it they would not be."""
    module = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 1))
    write_tensors(tmp_path / "w.safetensors", module.state_dict())
    tensors, _ = read_tensors(tmp_path / "w.safetensors")
    assert all(t.data_ptr() % 64 == 0 for t in tensors.values())
    for parameter in module.parameters():
        parameter.data = misaligned(parameter.data)
    load_weights(module, tensors, "w")
    assert all(p.data_ptr() % 64 == 0 for p in module.parameters())
