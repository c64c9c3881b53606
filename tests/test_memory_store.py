"""The memory store gives back exactly what was written, by id, and refuses another encoder's."""

import pytest
import torch

from comem_ray.artifacts import ArtifactError, StageFolder, load_manifest
from comem_ray.knowledge.schema import content_digest
from comem_ray.memory_store import STAGE, MemoryStore, earlier_memory, memory_ids, write_memory

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
        contents = [content_digest("text", i.encode()) for i in ids]
        write_memory(tmp_path / f"part-{number}.safetensors", ids, contents, memory_of(range(start, start + size)))
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
            write_memory(tmp_path / "x.safetensors", [item_id(0), item_id(1)], [bytes(16)] * 2, wrong)
    assert not list(tmp_path.iterdir())


def paths(store) -> list:
    return [store / shard.name for shard in load_manifest(store, STAGE).shards()]


@pytest.mark.parametrize("place", [0.1, 0.5, 0.99])
def test_a_bit_that_flips_after_the_commit_is_noticed(store, place):
    """Whether or not it makes a NaN: the digest of the file is in its record."""
    path = paths(store)[2]
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=f"{path.name} is (damaged|missing or damaged)"):
        MemoryStore(store, "a" * 64).get([item_id(5)])
    assert torch.equal(MemoryStore(store, "a" * 64).get([item_id(0)]), memory_of([0])) or place < 0.2


@pytest.mark.parametrize("text", [b"", b"\xff" * 100, b"12345678"])
def test_a_damaged_header_is_one_sentence(store, text):
    path = paths(store)[0]
    path.write_bytes(text)
    with pytest.raises(ArtifactError, match="Run the stage 'encode_memory' again: it makes this file again"):
        MemoryStore(store, "a" * 64)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_memory_that_is_not_finite_is_not_served(tmp_path, value):
    """A store of version 0.2 may hold it: its bytes are those that were committed."""
    stage, ids, memory = (
        StageFolder(tmp_path, STAGE, {"encoder": "a" * 64}),
        [item_id(0), item_id(1)],
        memory_of([0, 1]),
    )
    memory[1, 3, 5] = value
    write_memory(tmp_path / "part.safetensors", ids, [bytes(16)] * 2, memory)
    stage.commit("part", "", {"part.safetensors": 2}, {"items": 2})
    stage.close(["part"])
    with pytest.raises(ArtifactError, match=f"not finite, of 1 items, the first is {item_id(1)}"):
        MemoryStore(tmp_path, "a" * 64).get([item_id(0)])


def test_an_open_store_keeps_its_own_memory_while_the_stage_runs_again(store):
    opened = MemoryStore(store, "a" * 64)
    stage = StageFolder(store, STAGE, {"encoder": "a" * 64})
    numbers = [11, 10, 9, 8, 7, 6, 5]  # the same items in another order
    write_memory(store / "part-2.safetensors", [item_id(i) for i in numbers], [bytes(16)] * 7, memory_of(numbers))
    stage.commit("part-2", "again", {"part-2.safetensors": 7}, {"items": 7})
    stage.close([f"part-{n}" for n in range(3)])
    for reader in (opened, MemoryStore(store, "a" * 64)):
        assert torch.equal(reader.get([item_id(i) for i in range(12)]), memory_of(range(12)))


def test_memory_of_an_unchanged_item_is_taken_over_by_id(store):
    path = paths(store)[2]
    same, other = content_digest("text", item_id(6).encode()), content_digest("other", item_id(7).encode())
    rows = earlier_memory(path, {item_id(6): same, item_id(7): other, item_id(99): same})
    assert rows.keys() == {item_id(6)}
    assert torch.equal(rows[item_id(6)], memory_of([6])[0])
    assert memory_ids(path).tolist() == [item_id(i).encode() for i in range(5, 12)]
    path.write_bytes(b"")
    assert len(memory_ids(path)) == 0
