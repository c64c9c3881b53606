"""Memory survives its packing, whatever its bits are."""

from __future__ import annotations

import pickle

import torch

from serve.messages import pack_memory, unpack_memory


def test_packed_memory_is_the_same_bit_for_bit() -> None:
    memory = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.bfloat16).reshape(4, 8, 2048)
    packed = pickle.loads(pickle.dumps(pack_memory(memory)))
    assert torch.equal(unpack_memory(packed).view(torch.int16), memory.view(torch.int16))


def test_unpacked_memory_may_be_written_to() -> None:
    packed = pack_memory(torch.ones(2, 8, 4, dtype=torch.bfloat16))
    packed.flags.writeable = False
    unpack_memory(packed).mul_(2)
    assert (packed == pack_memory(torch.ones(2, 8, 4, dtype=torch.bfloat16))).all()
