r"""Converter of LLaVA-style training JSON, the form of the authors' training code, into samples and a source of items.

A record is an object of a JSON list (or one per line):

    id, image                   the question's image, a path below the folder of images; absent for a text question
    conversations               [{"from": "human", "value": "<image>\nquestion"}, {"from": "gpt", "value": answer}]
    knowledge_image             images of the items, best first: paths below the folder of item images, or URLs
    knowledge_conversations     one pair of turns per item, in the same order; the second turn holds its text

It leaves `items.jsonl`, a source of `jobs.ingest` (format jsonl) whose rows have the ids that the samples name, shards
of TRAINING_SCHEMA, and shards of rejected records. The right answer of a sample is not in the JSON: `gold` is the
answer to learn, in its box if it has one. Source of the field names: the authors' code (arXiv 2505.17670).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from comem_ray.artifacts import fingerprint, write_atomic, write_json, write_parquet
from comem_ray.artifacts.new_folder import new_folder
from comem_ray.config.base import ImageConfig
from comem_ray.knowledge.images import ImageError, normalize_image
from comem_ray.prompts import MAX_TEXT_CHARS
from comem_ray.tasks.rules.final_answer import boxed
from comem_ray.training.data.questions import DUPLICATE, RejectedSample
from comem_ray.training.data.samples import REJECTED, REJECTED_SAMPLE_SCHEMA, TRAINING_SCHEMA

IMAGE_LIMITS = ImageConfig(max_side=1024)  # those of synthesis.image_limits
IMAGE_TOKEN = "<image>"
RECORDS_PER_PART = 256
MAX_RECORD_CHARS = 48 * 2**20
ITEMS, COUNTS = "items.jsonl", "counts.json"
_PIECE = 2**20
_BETWEEN = re.compile(r"[\s,\[\]]*")
_HUMAN, _ASSISTANT = ("human", "user"), ("gpt", "assistant")


class _Fault(ValueError):
    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class LlavaFiles:
    """The JSON, the folders that its paths start from, and the language of its questions where a record names none."""

    path: Path
    images: Path
    item_images: Path
    language: str = "en"


def convert(files: LlavaFiles, out: Path) -> dict[str, int]:
    """Writes items.jsonl and the shards into the folder `out`, and returns the counts (also in counts.json).

    `records = kept + rejected`. Raises ValueError where the JSON cannot be opened, or `out` holds something already.
    The folder is whole at the end, or not there.
    """
    if not files.path.is_file():
        raise ValueError(f"there is no file {files.path}")
    with new_folder(out.absolute()) as building:
        return _write(files, building)


def _write(files: LlavaFiles, out: Path) -> dict[str, int]:
    counts, items = Counter[str](), dict[str, None]()

    def write(temporary: Path) -> None:
        with open(temporary, "w", encoding="utf-8") as lines:
            records = _converted(files)
            number = 0
            while part := list(islice(records, RECORDS_PER_PART)):
                for _, own in part:
                    for line in own:
                        if line["item_id"] not in items:
                            items[line["item_id"]] = None
                            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
                counts.update(_write_part(out, f"part-{number:06d}", [outcome for outcome, _ in part]))
                number += 1

    write_atomic(out / ITEMS, write)
    summary = {**{name: counts[name] for name in ("records", "kept", "rejected")}, "items": len(items)}
    summary |= {name: counts[name] for name in sorted(counts) if name.startswith("rejected.")}
    write_json(out / COUNTS, summary)
    return summary


def read_records(path: Path) -> Iterator[Any]:
    """The records of a JSON list or of JSON lines, one in memory at a time.

    Raises ValueError, behind the records before it, where the text ends within the list or a record, or is not JSON.
    """
    decoder, text, at, brackets = json.JSONDecoder(), "", 0, ""
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        while piece := file.read(max(_PIECE, len(text) - at)):
            text, at = text[at:] + piece, 0
            while True:
                between = _BETWEEN.match(text, at)
                assert between is not None
                brackets, at = brackets + re.sub(r"[\s,]", "", between[0]), between.end()
                try:
                    record, stop = decoder.raw_decode(text, at)
                except (ValueError, RecursionError):
                    break
                if stop == len(text):  # a number may go on in the next piece
                    break
                yield record
                at = stop
            if len(text) - at > MAX_RECORD_CHARS:
                break
    if text[at:]:
        try:
            yield json.loads(text[at:])
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the text is not JSON, or it is cut short, from {text[at : at + 60]!r} on") from error
    if brackets not in ("", "[]"):
        raise ValueError("the list has no end: the text is cut short")


def _converted(files: LlavaFiles) -> Iterator[tuple[dict[str, Any] | RejectedSample, list[dict[str, Any]]]]:
    """The outcome of every record, with the lines of its items."""
    ids = set[str]()
    records, number = read_records(files.path), 0
    while True:
        name = None
        try:
            try:
                record = next(records)
            except StopIteration:
                return
            except ValueError as error:
                yield RejectedSample(files.path.name, number, "bad_json", f"{error}: the rest is lost"), []
                return
            name = str(record["id"]) if isinstance(record, dict) and record.get("id") is not None else None
            sample, items = _sample(record, files, number)
            if sample["sample_id"] in ids:
                raise _Fault(DUPLICATE, "a record with this id came before")
            ids.add(sample["sample_id"])
            yield sample, items
        except _Fault as fault:
            yield RejectedSample(files.path.name, number, fault.reason, fault.detail, name), []
        number += 1


def _sample(record: Any, files: LlavaFiles, number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    if not isinstance(record, dict):
        raise _Fault("bad_field", f"the record is a {type(record).__name__}, wanted an object")
    _refuse_broken_text(record)
    question, answer = _turns(record.get("conversations"))
    image = _image(record.get("image"), files)
    items = _items(record, files)
    data_id = record.get("id", number)
    language = record.get("language", files.language)
    provenance = {"source": files.path.name, "data_id": str(data_id), "converted_from": "llava"}
    sample = {
        "sample_id": fingerprint([files.path.name, str(data_id), language])[:24],
        "question": question,
        "image": image,
        "item_ids": [item["item_id"] for item in items],
        "answer": answer,
        "language": str(language),
        "rule": "exact",
        "gold": json.dumps([boxed(answer) or answer]),
        "provenance": json.dumps(provenance, sort_keys=True),
    }
    return sample, items


def _refuse_broken_text(record: dict[str, Any]) -> None:
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise _Fault("bad_utf8", "the record holds bytes that are not UTF-8") from error


def _turns(conversations: Any) -> tuple[str, str]:
    """Question and answer of a conversation of two turns."""
    turns = [_turn(turn) for turn in conversations] if isinstance(conversations, list) else []
    turns = [turn for turn in turns if turn[0] != "system"]
    if len(turns) < 2 or turns[0][0] not in _HUMAN or turns[1][0] not in _ASSISTANT:
        raise _Fault("bad_field", "conversations holds no turn of human and gpt, one after the other")
    if len(turns) > 2:
        raise _Fault("several_turns", f"{len(turns)} turns: a sample is one question and one answer")
    (_, question), (_, answer) = turns
    if question.count(IMAGE_TOKEN) > 1:
        raise _Fault("several_images", f"{question.count(IMAGE_TOKEN)} images in the question, a sample has one")
    question, answer = question.replace(IMAGE_TOKEN, "").strip(), answer.strip()
    if not question or not answer:
        raise _Fault("empty_question" if not question else "empty_answer", "the turn holds no text")
    return question, answer


def _turn(turn: Any) -> tuple[str, str]:
    if not isinstance(turn, dict):
        raise _Fault("bad_field", f"a turn is a {type(turn).__name__}, wanted an object of from and value")
    who, value = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
    if not isinstance(who, str) or not isinstance(value, str):
        raise _Fault("bad_field", "a turn lacks from or value, or they are not texts")
    return who, value


def _image(value: Any, files: LlavaFiles) -> bytes | None:
    """The question's image as a sample keeps it."""
    if isinstance(value, list) and len(value) < 2:
        value = value[0] if value else None
    if value is None:
        return None
    if isinstance(value, list):
        raise _Fault("several_images", f"{len(value)} images, a sample has one")
    path = _below(files.images, value)
    if path is None:
        raise _Fault("image_missing", f"there is no image {str(value)[:200]!r} in {files.images}")
    try:
        return normalize_image(path.read_bytes(), IMAGE_LIMITS).data
    except ImageError as error:
        raise _Fault(error.reason, error.detail) from error
    except OSError as error:
        raise _Fault("image_missing", f"{path.name} cannot be read: {error.strerror}") from error


def _items(record: dict[str, Any], files: LlavaFiles) -> list[dict[str, Any]]:
    """The lines of the record's items; those whose image is not there are left out, as the authors do."""
    images, turns = record.get("knowledge_image") or [], record.get("knowledge_conversations") or []
    images = [images] if isinstance(images, str) else images
    if not isinstance(images, list) or not isinstance(turns, list):
        raise _Fault("bad_field", "knowledge_image and knowledge_conversations must be lists")
    texts = [_turn(turn)[1].strip()[:MAX_TEXT_CHARS] for turn in turns[1::2]]
    items = []
    for image, text in zip(images, texts, strict=False):
        web = isinstance(image, str) and image.startswith(("http://", "https://"))
        if text and (web or _below(files.item_images, image) is not None):
            item_id = fingerprint(["llava item", image, text])[:24]
            items.append({"item_id": item_id, "image_url" if web else "image": image, "text": text})
    if not items:
        raise _Fault("no_items", f"none of {len(images)} item images is there, with a text: nothing to learn from")
    return items


def _below(folder: Path, name: Any) -> Path | None:
    """The file `name` below a folder; None where there is none, or it lies outside."""
    if not isinstance(name, str) or not name:
        return None
    try:
        path = (folder / name).resolve()
        return path if path.is_relative_to(folder.resolve()) and path.is_file() else None
    except (OSError, ValueError):
        return None


def _write_part(out: Path, part: str, outcomes: list[dict[str, Any] | RejectedSample]) -> Counter[str]:
    samples = [outcome for outcome in outcomes if isinstance(outcome, dict)]
    rejected = [outcome for outcome in outcomes if isinstance(outcome, RejectedSample)]
    write_parquet(out / f"{part}.parquet", pa.Table.from_pylist(samples, TRAINING_SCHEMA))
    table = pa.Table.from_pylist([asdict(one) for one in rejected], REJECTED_SAMPLE_SCHEMA)
    write_parquet(out / (part + REJECTED), table)
    counts = Counter(f"rejected.{one.reason}" for one in rejected)
    return counts + Counter(records=len(outcomes), kept=len(samples), rejected=len(rejected))
