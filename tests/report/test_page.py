"""The reports in a browser: they render, offline and without an error, wide and narrow, light and dark."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from support.browser import chromium
from support.tiny_report import write_evaluation

from comem_ray.report.evaluation import write_report
from comem_ray.report.training import write_report as write_training_report

COUNT = 18  # questions
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def evaluation(make_config, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("page")
    fields = {"questions": "q.parquet", "k": [1, 3, 10], "gold_positions": [1, 2, 3]}
    finished = write_evaluation(make_config(root=str(root), evaluation=fields), COUNT)
    return write_report(root / "report.html", "Evaluation of tiny", [finished, finished])


@pytest.fixture(scope="module")
def training(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    steps = [{"step": s, "loss": 9 / s, "learning_rate": 1e-5 * s, "tflops": None} for s in range(1, 60)]
    validations = [{"step": s, "validation": {"none": 1.0, "memory": s, "n": 9}} for s in (20, 40)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps + validations))
    return write_training_report(folder, "name: <b>tiny</b>")


def opened(browser: Browser, path: Path, size: dict[str, int] = WIDE, scheme: str = "light", **options) -> Page:
    """The page, after a check that it requested nothing but itself and wrote nothing to the console."""
    page = browser.new_page(viewport=size, color_scheme=scheme, **options)
    messages, requests = list[str](), list[str]()
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_load_state("load")
    assert messages == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    return page


def pixels(page: Page) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"), dtype=float)


@pytest.mark.parametrize("name", ["evaluation", "training"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_it_renders_in_light_and_dark(browser, request, name, size):
    brightness = []
    for scheme in ("light", "dark"):
        page = opened(browser, request.getfixturevalue(name), size, scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        shot = pixels(page)
        assert shot.std() > 8  # not blank
        brightness.append(np.median(shot))
        page.close()
    assert brightness[0] > 200
    assert brightness[1] < 60


def test_images_load_and_plots_are_drawn(browser, evaluation):
    page = opened(browser, evaluation)
    widths = page.eval_on_selector_all("img", "images => images.map(i => i.naturalWidth)")
    assert len(widths) > 60
    assert min(widths) > 0
    boxes = [plot.bounding_box() for plot in page.query_selector_all("svg[role=img]")]
    assert len(boxes) == 4
    assert all(box is not None and box["width"] > 250 and box["height"] > 150 for box in boxes)
    assert page.evaluate("window.broken") is None  # what a question's text would have set
    page.close()


def test_a_text_keeps_its_size_on_a_phone(browser, evaluation):
    page = opened(browser, evaluation, PHONE)
    height = page.evaluate("document.querySelector('svg .tick').getBoundingClientRect().height")
    assert height >= 10
    page.close()


def test_the_filter(browser, evaluation):
    page = opened(browser, evaluation)
    form, cards = page.locator("form.filter").first, page.locator("#evaluation-1-cards > .card:visible")
    assert cards.count() == COUNT
    form.get_by_label("answered by").select_option("memory")
    form.get_by_label("verdict").select_option("wrong")
    assert cards.count() == COUNT // 3
    assert form.locator("output").inner_text() == f"{COUNT // 3} of {COUNT} questions"
    assert page.locator("#evaluation-1-cards .arms li[data-mode=rag]:visible").count() == 0
    form.get_by_label("text").fill("Which number is this, 12?")
    assert cards.count() == 1
    assert page.locator("#evaluation-2-cards > .card:visible").count() == COUNT  # with a filter of its own
    form.get_by_role("button", name="All").click()
    expect(cards).to_have_count(COUNT)  # waited for: the page takes its turn after the form's fields have been cleared
    form.get_by_label("answered by").select_option("rag, k=10")
    assert cards.count() == COUNT
    form.get_by_label("verdict").select_option("right")
    assert cards.count() == COUNT // 2
    page.close()


def test_by_keyboard(browser, evaluation):
    page = opened(browser, evaluation)
    page.locator("#evaluation-1-cards summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#evaluation-1-cards .sources").first.is_visible()
    assert page.locator("#evaluation-1-cards .is-right").first.is_visible()
    page.close()


def test_without_a_script_everything_is_there(browser, evaluation):
    page = opened(browser, evaluation, java_script_enabled=False)
    assert page.locator("#evaluation-1-cards > .card:visible").count() == COUNT
    assert page.locator("form.filter:visible").count() == 0
    page.close()
