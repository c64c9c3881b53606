"""What the authors of each benchmark publish: where, which files, and how many rows they document.

Row counts are those of the authors' pages and papers, None where they state none. Those of MRAG-Bench and of A-OKVQA's
validation set were looked up again; the others are quoted as they are commonly known, and were not compared with the
files. None of the authors publishes checksums. Opens no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from comem_ray.config.evaluation import TaskName


@dataclass(frozen=True)
class Benchmark:
    """`rows` are the documented rows by the name of the file of questions (or of annotations) that holds them.

    `files` are the further files of the benchmark with what they are for.
    """

    title: str
    home: str
    questions: str
    images: str
    rows: Mapping[str, int] = field(default_factory=dict)
    rows_of_all: int | None = None  # over all files, where the questions are cut into shards
    files: Mapping[str, str] = field(default_factory=dict)


_COCO = "images of COCO, https://cocodataset.org/#download"
_OVEN = "https://github.com/open-vision-language/oven"

PUBLISHED: dict[TaskName, Benchmark] = {
    "infoseek": Benchmark(
        title="InfoSeek",
        home="https://github.com/open-vision-language/infoseek",
        questions="infoseek_val.jsonl, and for other languages infoseek_val_spanish.jsonl and its like "
        "(https://github.com/WenyiWU0111/CoMEM)",
        images=f"OVEN's images, {_OVEN} (image_downloads)",
        rows={"infoseek_val.jsonl": 73_620, "infoseek_train.jsonl": 934_048},
        files={
            "infoseek_val_qtype.jsonl": "the type of each question, for the scores by type (question_types)",
            "infoseek_val_withkb.jsonl": "the entity of each question, for the recall of retrieval (entities)",
        },
    ),
    "oven": Benchmark(
        title="OVEN",
        home=_OVEN,
        questions="oven_entity_val.jsonl and oven_query_val.jsonl",
        images=f"{_OVEN} (image_downloads)",
        files={"Wiki6M_ver_1_0_title_only.jsonl": "titles of Wikipedia, to which a predicted name is linked (titles)"},
    ),
    "mrag": Benchmark(
        title="MRAG-Bench",
        home="https://huggingface.co/datasets/uclanlp/MRAG-Bench",
        questions="data/test-*.parquet",
        images="in the rows",
        rows_of_all=1_353,
    ),
    "okvqa": Benchmark(
        title="OK-VQA",
        home="https://okvqa.allenai.org/download.html",
        questions="OpenEnded_mscoco_val2014_questions.json",
        images=f"val2014, {_COCO}",
        rows={"OpenEnded_mscoco_val2014_questions.json": 5_046, "OpenEnded_mscoco_train2014_questions.json": 9_009},
        files={"mscoco_val2014_annotations.json": "the answers (references)"},
    ),
    "aokvqa": Benchmark(
        title="A-OKVQA, direct answer",
        home="https://github.com/allenai/aokvqa",
        questions="aokvqa_v1p0_val.json",
        images=f"val2017, {_COCO}",
        rows={"aokvqa_v1p0_val.json": 1_145, "aokvqa_v1p0_train.json": 17_056},
    ),
    "aokvqa-mc": Benchmark(
        title="A-OKVQA, multiple choice",
        home="https://github.com/allenai/aokvqa",
        questions="aokvqa_v1p0_val.json",
        images=f"val2017, {_COCO}",
        rows={"aokvqa_v1p0_val.json": 1_145, "aokvqa_v1p0_train.json": 17_056},
    ),
    "viquae": Benchmark(
        title="ViQuAE",
        home="https://huggingface.co/datasets/PaulLerner/viquae_dataset",
        questions="test.jsonl",
        images="https://huggingface.co/datasets/PaulLerner/viquae_all_images",
        rows={"test.jsonl": 1_257, "validation.jsonl": 1_250, "train.jsonl": 1_190},
    ),
    "cvqa": Benchmark(
        title="CVQA",
        home="https://huggingface.co/datasets/afaji/cvqa",
        questions="data/test-*.parquet",
        images="in the rows",
        rows_of_all=10_374,
    ),
    "coco": Benchmark(
        title="COCO 2014 captions",
        home="https://cocodataset.org/#download",
        questions="captions_val2014.json",
        images=f"val2014, {_COCO}",
        rows={"captions_val2014.json": 40_504},
    ),
    "encyclopedic_vqa": Benchmark(
        title="Encyclopedic-VQA",
        home="https://github.com/google-research/google-research/tree/master/encyclopedic_vqa",
        questions="train.csv, val.csv, test.csv",
        images="iNaturalist 2021, https://github.com/visipedia/inat_comp, and Google Landmarks v2, "
        "https://github.com/cvdfoundation/google-landmark",
        files={"train.json of iNaturalist 2021": "names of its images (references)"},
    ),
}
"""Every task but `jsonl`, the form of one's own files."""


def documented_rows(task: TaskName, names: list[str]) -> int | None:
    """The rows that the authors document for the files of these names together; None where they say nothing."""
    benchmark = PUBLISHED.get(task)
    if benchmark is None:
        return None
    counts = [benchmark.rows.get(name) for name in names]
    if counts and all(count is not None for count in counts):
        return sum(count for count in counts if count is not None)
    return benchmark.rows_of_all if len(names) > 1 else None
