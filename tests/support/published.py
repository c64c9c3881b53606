"""Tiny files in the formats in which tasks are published, and the sources of a configuration that name them.

Each has a fault that a real download may have: an image that is not there or is none, a broken line, a hidden answer.
"""

from __future__ import annotations

import csv
import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

from support.scored import document, jsonl, parquet
from support.tiny import png

ENCYCLOPEDIC_VQA_HEADER = [
    "question", "question_type", "answer", "dataset_image_ids", "dataset_name", "encyclopedic_vqa_split",
]  # fmt: skip
GOLD = {"infoseek": "Paris", "okvqa": "dog", "aokvqa": "dog", "viquae": "Ada"}


def write_published(folder: Path, gold: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """Writes all of them below `folder`; `gold` replaces the answer to the first question of a task of GOLD."""
    folder.mkdir(parents=True, exist_ok=True)
    answers = GOLD | (gold or {})
    sources = [
        _infoseek(folder, answers["infoseek"]),
        _infoseek_in_spanish(folder),
        _oven(folder),
        _mrag(folder),
        _okvqa(folder, answers["okvqa"]),
        *_aokvqa(folder, answers["aokvqa"]),
        _viquae(folder, answers["viquae"]),
        _cvqa(folder),
        _coco(folder),
        _encyclopedic_vqa(folder),
        _own_jsonl(folder),
    ]
    return [{k: str(v) if isinstance(v, Path) else v for k, v in source.items()} for source in sources]


def _images(folder: Path, names: list[str]) -> str:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(100 + seed))
    return str(folder)


def _infoseek(folder: Path, gold: str) -> dict[str, Any]:
    """The second image lies as in the shards of OVEN's download, the third nowhere."""
    texts = [("a1", "oven_00000001", "Where is it?"), ("a2", "oven_04000002", "How high?"), ("a3", "oven_9", "When?")]
    golds: list[Any] = [[gold, "x"], [{"wikidata": 20, "range": [18, 22]}], ["1900", "1901"]]
    splits = ["val_unseen_question", "val_unseen_entity", "val_unseen_question"]
    rows = [
        {"data_id": i, "image_id": image, "question": text, "answer": ["x"], "answer_eval": g, "data_split": split}
        for (i, image, text), g, split in zip(texts, golds, splits, strict=True)
    ]
    types = ["String", "Numerical", "Time"]
    qtypes = [{"data_id": row["data_id"], "question_type": t} for row, t in zip(rows, types, strict=True)]
    entities = [{"data_id": "a1", "entity_id": "Q1", "entity_text": "Title 3"}]
    return {
        "task": "infoseek",
        "paths": [str(jsonl(folder / "infoseek_val.jsonl", rows))],
        "question_types": jsonl(folder / "infoseek_val_qtype.jsonl", qtypes),
        "entities": jsonl(folder / "infoseek_val_withkb.jsonl", entities),
        "images": [_images(folder / "oven_images", ["oven_00000001.jpg", "04/oven_04000002.JPEG"])],
    }


def _infoseek_in_spanish(folder: Path) -> dict[str, Any]:
    row = {"data_id": "a1", "image_id": "oven_00000001", "question": "¿Dónde está?", "answer": ["x"]}
    rows = [{**row, "answer_eval": ["París"], "data_split": "val_unseen_entity"}]
    path = jsonl(folder / "infoseek_val_spanish.jsonl", rows)
    return {
        "task": "infoseek",
        "name": "infoseek-es",
        "paths": [str(path)],
        "images": [str(folder / "oven_images")],
    }


def _oven(folder: Path) -> dict[str, Any]:
    paths = []
    for part in ("entity", "query"):
        rows = [
            {
                "data_id": f"oven_{part}_{side}", "image_id": "oven_00000001", "question": "what is this?",
                "entity_id": f"Q{n}", "entity_text": f"Title {n}", "data_split": f"{part}_val_{side}",
            }
            for n, side in ((4, "seen"), (5, "unseen"))
        ]  # fmt: skip
        paths.append(str(jsonl(folder / f"oven_{part}_val.jsonl", rows)))
    titles = [{"wikidata_id": f"Q{n}", "wikipedia_title": f"Title {n}"} for n in (4, 5, 6)]
    return {
        "task": "oven",
        "paths": paths,
        "titles": jsonl(folder / "Wiki6M_ver_1_0_title_only.jsonl", titles),
        "images": [str(folder / "oven_images")],
    }


def _mrag(folder: Path) -> dict[str, Any]:
    """Of the second image only half the bytes came."""
    images = [png(120), png(121)[:150]]
    rows = [
        {
            "id": str(n), "aspect": "Perspective", "scenario": scenario, "image": {"bytes": data, "path": None},
            "gt_images": [], "question": "Which one?", "A": "cat", "B": "dog", "C": "cow", "D": "hen",
            "answer_choice": "B", "answer": "dog", "image_type": "x", "source": "x", "retrieved_images": [],
        }
        for n, (scenario, data) in enumerate(zip(("Angle", "Scope"), images, strict=True))
    ]  # fmt: skip
    return {"task": "mrag", "paths": [str(parquet(folder / "test-00000-of-00001.parquet", rows))]}


def _okvqa(folder: Path, gold: str) -> dict[str, Any]:
    """The images are in a zip, below a folder of its own."""
    questions = [{"image_id": 7 + n, "question": "What is it?", "question_id": 70 + n} for n in range(2)]
    answers = [{"answer": gold, "raw_answer": gold, "answer_confidence": "yes", "answer_id": n} for n in range(10)]
    kinds = {"question_type": "one", "answer_type": "other", "answers": answers}
    annotations = [{"question_id": q["question_id"], "image_id": q["image_id"], **kinds} for q in questions]
    with zipfile.ZipFile(folder / "val2014.zip", "w") as archive:
        for n in range(2):
            archive.writestr(f"val2014/COCO_val2014_{7 + n:012d}.jpg", png(130 + n))
    return {
        "task": "okvqa",
        "paths": [str(document(folder / "OpenEnded_mscoco_val2014_questions.json", {"questions": questions}))],
        "references": [str(document(folder / "mscoco_val2014_annotations.json", {"annotations": annotations}))],
        "images": [str(folder / "val2014.zip")],
    }


def _aokvqa(folder: Path, gold: str) -> list[dict[str, Any]]:
    """The images are in parquet, by their file's name; the direct answer to the second is difficult."""
    rows = [
        {
            "split": "val", "image_id": 9 + n, "question_id": f"q{n}", "question": "What is it?",
            "choices": ["cat", "dog", "cow", "hen"], "correct_choice_idx": 1, "direct_answers": [gold] * 10,
            "difficult_direct_answer": bool(n), "rationales": [],
        }
        for n in range(2)
    ]  # fmt: skip
    held = [{"image": {"bytes": png(140 + n), "path": f"val2017/{9 + n:012d}.jpg"}, "width": 60} for n in range(2)]
    images = str(parquet(folder / "coco-00000.parquet", held))
    path = str(document(folder / "aokvqa_v1p0_val.json", rows))
    return [{"task": name, "paths": [path], "images": [images]} for name in ("aokvqa", "aokvqa-mc")]


def _viquae(folder: Path, gold: str) -> dict[str, Any]:
    """Gzip; the second line breaks off."""
    output = {"answer": [gold], "original_answer": gold, "provenance": [{"title": ["Title 6"]}]}
    row = {"id": "v1", "input": "Who is this?", "image": "512px-Ada.jpg", "output": output}
    path = folder / "viquae.jsonl.gz"
    path.write_bytes(gzip.compress((json.dumps(row) + '\n{"id": "v2", "inp\n').encode()))
    return {"task": "viquae", "paths": [str(path)], "images": [_images(folder / "viquae", ["512px-Ada.jpg"])]}


def _cvqa(folder: Path) -> dict[str, Any]:
    """Two shards; the label of the last row is hidden."""
    subsets = ["('Spanish', 'Spain')", "('Urdu', 'India')", "('Urdu', 'India')"]
    rows = [
        {
            "image": {"bytes": png(150 + n), "path": None}, "ID": f"c{n}", "Subset": subset, "Question": "¿Qué es?",
            "Translated Question": "What is it?", "Options": ["gato", "perro", "vaca", "pollo"],
            "Translated Options": ["cat", "dog", "cow", "hen"], "Label": label, "Category": "Animals",
            "Image Type": "Self", "Image Source": "x", "License": "x",
        }
        for n, (subset, label) in enumerate(zip(subsets, (1, 3, -1), strict=True))
    ]  # fmt: skip
    parquet(folder / "cvqa-00000.parquet", rows[:1])
    parquet(folder / "cvqa-00001.parquet", rows[1:])
    return {"task": "cvqa", "paths": [str(folder / "cvqa-*.parquet")]}


def _coco(folder: Path) -> dict[str, Any]:
    names = [f"COCO_val2014_{n:012d}.jpg" for n in (11, 12)]
    images = [{"id": n, "file_name": name} for n, name in zip((11, 12), names, strict=True)]
    captions = [{"image_id": n, "id": 2 * n + i, "caption": f"A dog and {n} cats"} for n in (11, 12) for i in range(2)]
    path = document(folder / "captions_val2014.json", {"images": images, "annotations": captions})
    return {"task": "coco", "paths": [str(path)], "images": [_images(folder / "coco", names)]}


def _encyclopedic_vqa(folder: Path) -> dict[str, Any]:
    """The first image is one of iNaturalist's, named by its JSON; the second row has too few fields."""
    rows = [
        ["What eats it?", "multi_answer", "hawk&&fox|hawk", "7", "inaturalist", "val"],
        ["too", "few"],
        ["How old?", "templated", "5|five", "ab12", "landmarks", "val"],
    ]
    names = document(folder / "inat.json", {"images": [{"id": 7, "file_name": "train/00001_Bird/a.png"}]})
    with open(folder / "encyclopedic_vqa.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([ENCYCLOPEDIC_VQA_HEADER, *rows])
    return {
        "task": "encyclopedic_vqa",
        "paths": [str(folder / "encyclopedic_vqa.csv")],
        "references": [str(names)],
        "images": [_images(folder / "encyclopedic_vqa", ["train/00001_Bird/a.png", "landmarks/ab12.png"])],
    }


def _own_jsonl(folder: Path) -> dict[str, Any]:
    """The second names an image that is not there, the third has an unknown rule."""
    rows = [
        {"data_id": "p1", "question": "What?", "image": "p.png", "answers": ["dog"], "language": "fr"},
        {"data_id": "p2", "question": "What?", "image": "none.png", "answers": ["dog"]},
        {"data_id": "p3", "question": "What?", "image": "p.png", "answers": ["dog"], "rule": "guess"},
    ]
    _images(folder, ["p.png"])
    return {"task": "jsonl", "paths": [str(jsonl(folder / "own.jsonl", rows))], "answer_format": "plain"}
