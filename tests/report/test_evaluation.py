"""The report of an evaluation: its figures are those of report.json, its gallery is bounded, and text stays text."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.tiny import item_row
from support.tiny_report import NASTY, write_evaluation

from comem_ray.config import GalleryConfig
from comem_ray.knowledge.items import ItemStore
from comem_ray.report.evaluation import Part, write_report
from comem_ray.report.gallery import Sights, choose, gallery, gold_text, web_address
from comem_ray.report.tables import in_order
from comem_ray.tasks.images import ImageReader

COUNT = 24


class Page(HTMLParser):
    """Every element's name and attributes, the rows of every table by its caption, and all text."""

    def __init__(self, path: Path):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._text: list[str] = []
        self._caption = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self._text).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.tables[self._caption].append([])
        if tag in ("td", "th"):
            self.tables[self._caption][-1].append("")

    def handle_data(self, data):
        self._text.append(data)
        if self.lasttag == "caption" and data.strip():
            self._caption = data
            self.tables[data] = []
        elif self.lasttag in ("td", "th", "br", "small") and data.strip():
            self.tables[self._caption][-1][-1] += data

    def attributes(self, tag: str, name: str) -> list[str]:
        return [a[name] or "" for t, a in self.elements if t == tag and name in a]


@pytest.fixture(scope="module")
def part(make_config, tmp_path_factory) -> Part:
    return evaluated(make_config, tmp_path_factory.mktemp("report"))


def evaluated(make_config, root: Path) -> Part:
    evaluation = {"questions": "q.parquet", "k": [1, 3], "gold_positions": [1, 2]}
    return write_evaluation(make_config(root=str(root), evaluation=evaluation), COUNT)


@pytest.fixture(scope="module")
def page(part, tmp_path_factory) -> Page:
    return Page(write_report(tmp_path_factory.mktemp("page") / "report.html", "Evaluation of tiny", [part]))


def test_every_arm_stands_with_its_figures(part, page):
    head, *rows = page.tables["Every arm"]
    assert head[:3] == ["arm", "right, %", "95% interval"]
    assert [r[0] for r in rows] == ["none", "rag, k=1", "rag, k=3", "memory, k=1", "memory, k=3"] + [
        f"{mode}, k=2, right item at {place}" for mode in ("rag", "memory") for place in (1, 2)
    ]
    for name, right, interval, n, tokens, vectors, first, whole in rows:
        arm = part.found["arms"][name]
        assert right == f"{arm['score']:.1f}"
        assert interval == f"{arm['low']:.1f} to {arm['high']:.1f}"
        assert [float(x) for x in (n, tokens.replace(",", ""), vectors, first, whole)] == [
            arm[f] for f in ("n", "prompt_tokens", "memory_vectors", "first_token_ms", "answer_ms")
        ]
    (pair,) = [r for r in page.tables["Memory less rag"] if r[0] == "k=1"]
    # 16 of 24 against 12; both right on 8: 8 questions only memory has, 4 only rag: p = 2 * 794 / 2**12.
    assert pair == ["k=1", "+16.7", "0.388", "24"]
    assert [r[0] for r in page.tables["Recall of retrieval"]] == ["k", "@1", "@3"]
    assert page.tables["By parity: right, %, and 95% interval"][1][:4] == ["even", "12", "0.00 to 24", "100.076 to 100"]


def test_what_was_evaluated(part, page):
    said = dict(page.tables["The run"])
    assert said["run"] == "tiny"
    assert said["questions"] == "24 (20 with an image; languages: en, ja)"
    assert said["knowledge base"] == "14 items"
    assert said["memory encoder"] == "not trained: random weights of seed 0"
    assert said["language model"] == f"{Path(part.config.backbone.model).name} (float32)"
    assert said["digest of the backbone"] == "b" * 16
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", page.text)


def test_figures_of_other_makers_are_tables(part, tmp_path):
    score = {"score": 41.5, "interval": [40, 43.25]}
    official = {"infoseek": {"final": score, "by_split": {"unseen_question": score}}}
    arms = {name: {**arm, "official": {"vqa": 1.5}} for name, arm in part.found["arms"].items()}
    found = {**part.found, "arms": arms, "official": official, "store_bytes": 123_456, "nothing": {}}
    page = Page(write_report(tmp_path / "r.html", "", [Part(**{**vars(part), "found": found})]))
    assert page.tables["Official"][:3] == [
        ["figure", "score", "interval", "vqa"],
        ["infoseek · final", "41.5", "40 to 43.25", ""],
        ["infoseek · by_split · unseen_question", "41.5", "40 to 43.25", ""],
    ]
    assert ["memory, k=1", "", "", "1.5"] in page.tables["Official"]
    assert dict(page.tables["The run"])["store bytes"] == "123,456"


def test_sizes_of_the_knowledge_base_get_a_plot_and_a_column(part, tmp_path):
    arms = dict(part.found["arms"])
    for name, size in (("memory, k=1", 14), ("rag, k=1", 14), ("memory, k=3", 14), ("rag, k=3", 14)):
        arms[name] = {**arms[name], "knowledge": size}
        arms[f"{name}, knowledge=7"] = {**arms[name], "knowledge": 7, "score": 99.0}
    recall = {"14": part.found["recall"], "7": {"@1": {"score": 12.5, "low": 1.0, "high": 20.0, "n": 24}}}
    found = {**part.found, "arms": arms, "recall_by_knowledge": recall}
    page = Page(write_report(tmp_path / "r.html", "", [Part(**{**vars(part), "found": found})]))
    plots = [said for said in page.attributes("svg", "aria-label") if "size of the knowledge base" in said]
    assert len(plots) == 2
    assert "memory: 7 items: 99.0%" in plots[0]
    assert page.tables["Recall of retrieval among 7 items"][1] == ["@1", "12.5", "1.0 to 20.0", "24"]
    assert page.tables["Every arm"][0][4] == "knowledge items"
    assert "99.0" not in next(s for s in page.attributes("svg", "aria-label") if "by number of items" in s)


def test_text_of_questions_and_models_is_text(page):
    assert NASTY in page.text
    assert f"not {NASTY}" in page.text
    assert [a for t, a in page.elements if "onerror" in a] == []
    assert len([t for t, _ in page.elements if t == "script"]) == 1


def test_nothing_is_asked_of_the_network(page):
    links = [
        v for tag in ("img", "script", "link", "a") for name in ("src", "href") for v in page.attributes(tag, name)
    ]
    kinds = {link.split(":")[0] if ":" in link else link[:1] for link in links}
    assert kinds == {"data", "https", "#"}
    assert {link for link in links if link.startswith("https")} <= {item_row(i)["page_url"] for i in range(14)}
    assert all(a.get("alt") for t, a in page.elements if t == "img")
    (policy,) = [a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a]
    assert policy.startswith("default-src 'none'")
    anchors = [a["id"] for _, a in page.elements if "id" in a]
    assert len(anchors) == len(set(anchors))
    assert {link[1:] for link in links if link.startswith("#")} <= set(anchors)


def test_wrong_ones_come_first_and_what_is_left_out_is_said(part):
    cards, said = shown(part, questions=9)
    numbers = [int(c.data_id[1:]) for c in cards]
    assert [n % 3 == 0 for n in numbers] == [True] * 6 + [False] * 3
    assert "wrong on 8 of 24 questions" in said
    assert "Shown are 6 of these first, then 3 of the others; 15 are left out" in said
    assert len(shown(part, questions=99)[0]) == COUNT
    small, said = shown(part, questions=99, max_mb=0.1)
    assert 0 < sum(c.characters for c in small) <= 100_000
    assert f"{COUNT - len(small)} are left out" in said
    assert shown(part, questions=0)[0] == []


def shown(part: Part, **settings):
    store, arms = ItemStore(part.config.folder("items")), list(in_order(part.found["arms"]))
    found = gallery(
        part.questions, part.predictions, arms, Sights(store, ImageReader()), GalleryConfig(**settings), "p"
    )
    return found["cards"], found["said"]


def test_a_card_has_every_answer_and_says_which_item_is_right(part):
    cards = {c.data_id: c for c in shown(part)[0]}
    card = cards["q2"]  # rag and memory right, the right item at rank 3
    assert [(a.text, a.verdict) for a in card.answers] == [("I do not know, none", "wrong"), ("number 2", "right")]
    assert sum(len(a.arms) for a in card.answers) == len(part.found["arms"])
    assert [(s.rank, s.right) for s in card.sources] == [(1, False), (2, False), (3, True)]
    assert card.sources[2].title == "Title 2"
    assert card.sources[2].url == item_row(2)["page_url"]
    assert "the right item at rank 3" in card.sources_said
    lost = cards["q3"]  # not retrieved: shown beside the others
    assert [(s.rank, s.right) for s in lost.sources] == [(1, False), (2, False), (3, False), (0, True)]
    assert cards["q4"].image is None


def test_a_question_that_could_not_be_asked_says_why(part):
    rows = [{**r, "prediction": "", "score": 0.0, "fault": "image_missing"} for r in part.predictions]
    (card, *_), _ = shown(Part(**{**vars(part), "predictions": rows}))
    assert [(a.text, a.verdict) for a in card.answers] == [("(not asked: image_missing)", "wrong")]


def test_a_gold_answer_in_words():
    number = [{"wikidata": 5, "range": [4.5, 5.5]}]
    assert [gold_text(g) for g in (["a", "b", "a"], number, "x|y")] == ["a | b", "4.5 to 5.5", "x|y"]
    assert gold_text({"A": "red", "B": ["blue", "sky"]}) == "A: red, B: blue | sky"


def test_the_choice_is_from_all_of_the_file():
    scores = {f"q{i}": 0.0 for i in range(1000)}
    numbers = [int(i[1:]) for i in choose(scores, 40)]
    assert len(set(numbers)) == 40
    assert min(numbers) < 200
    assert max(numbers) > 800
    assert len({n % 4 for n in numbers}) == 4  # a file may repeat its kinds of question in turn


def test_a_rerun_writes_the_same_bytes(part, make_config, tmp_path):
    again = evaluated(make_config, tmp_path / "again")
    first, second = (write_report(tmp_path / f"{n}.html", "x", [p]) for n, p in enumerate((part, again)))
    assert first.read_bytes() == second.read_bytes()


def test_several_parts_share_the_gallery(part, tmp_path):
    path = write_report(tmp_path / "r.html", "Both", [part, part])
    page = Page(path)
    assert page.text.count("Mode memory was wrong on 8") == 2
    anchors = [a["id"] for _, a in page.elements if "id" in a]
    assert len(anchors) == len(set(anchors))


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "//example.org", "", None])
def test_what_is_no_web_address_is_no_link(url):
    assert web_address(url) is None
    assert web_address("https://example.org/a?b=c") == "https://example.org/a?b=c"
