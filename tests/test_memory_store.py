"""The memory store gives back exactly what was written, by id, and refuses another encoder's."""

import pytest
import torch

from comem_ray.artifacts import ArtifactError, StageFolder
from comem_ray.memory_store import STAGE, MemoryStore, write_memory

Q, D = 8, 16


def item_id(i: int) -> str:
    return f"{i * 7919 % 1000:024x}"


@pytest.fixture
def store(tmp_path):
    """Three shards, one of them empty; memory number i holds values that only it has."""
    stage = StageFolder(tmp_path, STAGE, {"encoder": "a" * 64})
    start = 0
    for number, size in enumerate([5, 0, 7]):
        ids = [item_id(i) for i in range(start, start + size)]
        write_memory(tmp_path / f"part-{number}.safetensors", ids, memory_of(range(start, start + size)))
        stage.commit(f"part-{number}", "", {f"part-{number}.safetensors": size}, {"items": size})
        start += size
    stage.close([f"part-{n}" for n in range(3)])
    return tmp_path


def memory_of(numbers) -> torch.Tensor:
    rows = [torch.full((Q, D), float(i)) + torch.arange(D) / 16 for i in numbers]
    return torch.stack(rows).bfloat16() if rows else torch.empty(0, Q, D, dtype=torch.bfloat16)


def test_random_access_in_the_given_order(store):
    opened = MemoryStore(store, "a" * 64)
    assert len(opened) == 12
    for numbers in ([11, 0, 5, 4], [3], [7, 7], []):
        memory = opened.get([item_id(i) for i in numbers])
        assert torch.equal(memory, memory_of(numbers)) or not numbers
        assert len(memory) == len(numbers)
        assert memory.dtype == torch.bfloat16


def test_an_unknown_item_is_named(store):
    opened = MemoryStore(store, "a" * 64)
    unknown = [item_id(50), "", "zz", item_id(3) + "0", item_id(3)[:-1], "é" * 24]
    assert item_id(3) in opened
    for unknown_id in unknown[:-1]:
        assert unknown_id not in opened
    assert opened.missing([item_id(3), item_id(50), item_id(4)]) == [item_id(50)]
    with pytest.raises(KeyError, match=item_id(50)):
        opened.get([item_id(3), item_id(50)])


def test_the_store_of_another_encoder_is_refused(store):
    with pytest.raises(ArtifactError, match=f"made by encoder {'a' * 12}, this one is {'b' * 12}"):
        MemoryStore(store, "b" * 64)


def test_an_unfinished_store_is_refused(store):
    (store / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="no manifest"):
        MemoryStore(store, "a" * 64)


def test_writer_refuses_other_shapes(tmp_path):
    for wrong in (torch.zeros(2, Q, D), torch.zeros(3, Q, D).bfloat16(), torch.zeros(2, D).bfloat16()):
        with pytest.raises(ValueError, match=r"want \(items, Q, D\) bfloat16 of 2 items"):
            write_memory(tmp_path / "x.safetensors", [item_id(0), item_id(1)], wrong)
    assert not list(tmp_path.iterdir())
