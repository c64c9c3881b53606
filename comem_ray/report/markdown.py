"""The figures of an evaluation as tables in Markdown: report.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from comem_ray.evaluation.figures import ArmFigures, EvaluationFigures, Recall, Share
from comem_ray.report.official import summary_figures
from comem_ray.report.paper import HEAD, beside_the_paper, conditions

SHARE = "% (95% interval)"


def markdown(figures: EvaluationFigures) -> str:
    """All tables that have rows, then one section per source of questions."""
    tables = [*_tables(figures), *(_source(name, source) for name, source in figures.sources.items())]
    return "\n\n".join([*tables, *_paper(figures)]) + "\n"


def _paper(figures: EvaluationFigures) -> Iterator[str]:
    if rows := beside_the_paper(figures):
        yield "### Beside the paper (arXiv 2505.17670, Qwen2-VL-7B)"
        yield " ".join(conditions(figures))
        yield _table(HEAD, rows)


def _tables(figures: EvaluationFigures) -> Iterator[str]:
    yield _arms(figures.arms)
    if figures.recall:
        yield _table(["right item among the first", SHARE, "n"], _recall_rows(figures.recall))
    if len(figures.recall_by_knowledge) > 1:
        rows = [
            row for size, recall in figures.recall_by_knowledge.items() for row in _recall_rows(recall, f" of {size:,}")
        ]
        yield _table(["right item among the first, by items searched", SHARE, "n"], rows)
    if rows := [[name, fault, n] for name, arm in figures.arms.items() for fault, n in arm.unanswered.items()]:
        yield _table(["arm", "not asked, counted as wrong", "questions"], rows)
    if rows := [
        [name, f"{pair.difference:+.1f}", f"{pair.mcnemar_p:.3g}", pair.n]
        for name, pair in figures.memory_against_rag.items()
    ]:
        yield _table(["memory minus rag", "points", "p (McNemar)", "n"], rows)
    if rows := [[name, e.help, e.harm, f"{e.mcnemar_p:.3g}", e.n] for name, e in figures.against_none.items()]:
        yield _table(["against none", "help", "harm", "p (McNemar)", "n"], rows)
    for group in dict.fromkeys(name for arm in figures.arms.values() for name in arm.groups):
        yield _group(group, figures.arms)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table; a cell that is None stays empty."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _arms(arms: Mapping[str, ArmFigures]) -> str:
    head = ["arm", f"right, {SHARE}", "n", "prompt tokens", "memory vectors", "first token, ms", "answer, ms"]
    rows = [
        [name, _share(a.share), a.share.n, a.prompt_tokens, a.memory_vectors, a.first_token_ms, a.answer_ms]
        for name, a in arms.items()
    ]
    return _table(head, rows)


def _recall_rows(recall: Recall, searched: str = "") -> list[list[Any]]:
    return [[f"{k}{searched}", _share(share), share.n] for k, share in recall.items()]


def _group(name: str, arms: Mapping[str, ArmFigures]) -> str:
    """One row per arm, one column per value of the group."""
    values = sorted({value for arm in arms.values() for value in arm.groups.get(name, {})})
    rows = [[arm_name, *(_score(arm.groups.get(name, {}).get(v)) for v in values)] for arm_name, arm in arms.items()]
    return _table([f"by {name}", *values], rows)


def _score(share: Share | None) -> str:
    return "" if share is None else f"{share.score:.1f} ({share.n})"


def _share(share: Share) -> str:
    return f"{share.score:.1f} ({share.low:.1f} to {share.high:.1f})"


def _source(name: str, source: Mapping[str, Any]) -> str:
    """The questions of a source, what could not be asked, and its official figures where it has them."""
    parts = [f"### {name}", _counts(source)]
    if source["official"]:
        head = ["arm", f"overall, {SHARE}", "n", "missing", "unparsable", "also"]
        parts.append(_table(head, [_summary_row(arm, summary) for arm, summary in source["official"].items()]))
    return "\n\n".join([*parts, *source["warnings"]])


def _counts(source: Mapping[str, Any]) -> str:
    images, rejected = source["missing_images"], source["rejected"]
    counts = [f"questions: {source['questions']}; not scored by the task itself: {source['left_out']}"]
    if images["count"]:
        counts.append(f"without an image, counted as wrong: {images['count']} (first {images['first'][0]['data_id']})")
    if rejected["count"]:
        counts.append(f"rejected rows: {rejected['count']} (first: {rejected['first'][0]['reason']})")
    return "; ".join(counts) + "."


def _summary_row(arm: str, summary: Mapping[str, Any]) -> list[Any]:
    figures = summary_figures(summary)
    low, high = figures.pop("overall")["interval"]
    others = ", ".join(f"{name} {value['score']:.1f}" for name, value in figures.items())
    overall = f"{summary['overall']:.1f} ({low:.1f} to {high:.1f})"
    return [arm, overall, summary["n"], summary["missing"], summary["unparsable"], others]
