"""The page in a real browser, against the real service: ask, compare, add, ask about it, search, delete; and axe.

COMEM_PAGE_URL names another service to test, with the same 40 items.
"""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Locator, Page, Route, expect
from support.browser import chromium
from support.serving import ITEMS, as_base64, row

pytestmark = pytest.mark.ray

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
PATIENCE_MS = 60_000  # of a busy machine
AXE = Path(str(distribution("axe-playwright-python").locate_file("axe_playwright_python/axe.min.js")))
VIEWS = ["start", "answer", "compare", "error", "knowledge", "add", "delete"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def url(request: pytest.FixtureRequest) -> str:
    return os.environ.get("COMEM_PAGE_URL") or request.getfixturevalue("served").url


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """The opened page. Afterwards: it has requested nothing from another host, and no script has failed."""
    with_page = OpenedPage(browser, url, WIDE, "light")
    yield with_page.page
    with_page.close()


class OpenedPage:
    """A page that keeps what it requested and what went wrong in its scripts."""

    def __init__(self, browser: Browser, url: str, size: dict[str, int], scheme: Any, path: str = "/"):
        self.url = url
        self.page = browser.new_page(viewport=size, color_scheme=scheme)
        self.page.set_default_timeout(PATIENCE_MS)
        self.errors, self.requests = list[str](), list[str]()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text) if _is_fault(message.text) else None)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(url + path)

    def close(self) -> None:
        self.page.close()
        assert self.errors == []
        assert [r for r in self.requests if not r.startswith((self.url, "data:", "blob:"))] == []


def _is_fault(message: str) -> bool:
    return "Content Security Policy" in message or "Uncaught" in message


def file_of(data: bytes) -> Any:
    return {"name": "image.png", "mimeType": "image/png", "buffer": data}


def image_file(i: int) -> Any:
    """The image of item number `i`, to which that item is the nearest."""
    return file_of(row(i)["image"])


def drawn_image(width: int = 64, height: int = 64) -> bytes:
    """An image that no item has."""
    image = Image.new("RGB", (width, height), "#1040c0")
    ImageDraw.Draw(image).ellipse((width // 4, height // 4, width // 2, height // 2), fill="#ffd000")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def ask(page: Page, question: str, i: int | None = None) -> None:
    if i is not None:
        page.set_input_files("#ask-image-input", image_file(i))
        expect(page.locator("#ask-image img")).to_be_visible()
    page.get_by_label("Question").fill(question)
    page.get_by_label("Question").press("Enter")


def finished(page: Page, answers: int = 1) -> None:
    """Waits for the answers' tables of time and tokens, which come last."""
    expect(page.locator("#answers .bars")).to_have_count(2 * answers, timeout=PATIENCE_MS)


def open_knowledge(page: Page) -> Locator:
    """Opens the tab; returns the cards."""
    page.get_by_role("tab", name="Knowledge").click()
    cards = page.locator("#items .card")
    expect(cards.first).to_be_visible(timeout=PATIENCE_MS)
    return cards


def add_item(page: Page, title: str, data: bytes) -> Locator:
    """Adds an item by the dialog; returns its card, the first."""
    page.get_by_role("button", name="Add an item").click()
    dialog = page.get_by_role("dialog")
    dialog.locator("#add-image-input").set_input_files(file_of(data))
    dialog.get_by_label("Title").fill(title)
    dialog.get_by_label("Text", exact=True).fill(f"{title} is a yellow disc on a blue ground.")
    dialog.get_by_label("Language of the text").fill("en")
    dialog.get_by_role("button", name="Add", exact=True).click()
    first = page.locator("#items .card").first
    expect(first.get_by_role("heading")).to_have_text(title, timeout=PATIENCE_MS)
    return first


def delete(page: Page, card: Locator) -> None:
    title = card.get_by_role("heading").inner_text()
    card.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("#items .card", has=page.get_by_role("heading", name=title, exact=True))).to_have_count(0)


def test_the_answer_streams_in_with_its_sources_and_where_time_and_tokens_went(page: Page) -> None:
    page.evaluate(
        "new MutationObserver(() => (window.lengths ??= new Set()).add(document.querySelector('.answer-text')"
        "?.textContent.length)).observe(document.getElementById('answers'), {subtree: true, childList: true})"
    )
    ask(page, "What is shown?", 7)
    sources = page.locator(".answer-sources .card")
    expect(sources.first.get_by_role("heading")).to_have_text("Title 7", timeout=PATIENCE_MS)
    finished(page)
    assert len(page.evaluate("[...window.lengths]")) > 3  # the text grew piece by piece
    expect(sources.first.locator(".score")).to_have_text(re.compile(r"score (1\.000|0\.9\d\d)"))
    expect(sources.first.get_by_role("link")).to_have_attribute("href", row(7)["page_url"])
    expect(sources.first.locator("img")).to_have_js_property("naturalWidth", row(7)["width"])
    for name in ("retrieve", "memory", "answer", "total"):
        expect(page.get_by_role("row", name=re.compile(rf"^{name} [\d.]+ m?s$"))).to_be_visible()
    expect(page.get_by_role("row", name=re.compile(rf"^memory vectors {8 * sources.count()}$"))).to_be_visible()
    expect(page.locator("#status")).to_have_text(re.compile(rf"^Answer: .*{sources.count()} sources\.$", re.S))


def test_number_and_language_of_the_items(page: Page) -> None:
    page.get_by_role("spinbutton", name="Items").fill("2")
    page.locator("#ask-language").fill("de")
    ask(page, "What is shown?", 7)
    finished(page)
    languages = [row(i)["language"] for i in range(ITEMS)]
    titles = page.locator(".answer-sources h5").all_inner_texts()
    assert len(titles) == 2
    assert all(languages[int(title.split()[1])] == "de" for title in titles)


def test_without_an_image_the_model_alone_answers(page: Page) -> None:
    page.get_by_role("radio", name="None").check()
    ask(page, "What is the capital of Peru?")
    finished(page)
    assert page.locator(".answer-sources .card").count() == 0


def test_compare_shows_all_modes_on_one_scale(page: Page) -> None:
    page.set_input_files("#ask-image-input", image_file(3))
    page.get_by_label("Question").fill("What is shown?")
    page.get_by_role("button", name="Compare").click()
    finished(page, 3)
    names = page.locator("#answers h3").all_inner_texts()
    assert [name.split(":")[0] for name in names] == ["None", "RAG", "Memory"]
    counts = [page.locator(".answer").nth(i).locator(".card").count() for i in range(3)]
    assert counts[0] == 0
    assert counts[1] == counts[2] > 0
    for kind in ("Time", "Tokens"):
        widths = bar_widths(page, kind)
        scale = [width / number for width, number in widths if width > 3]
        assert max(scale) / min(scale) < 1.5  # widths are whole pixels, numbers are rounded


def bar_widths(page: Page, caption: str) -> list[tuple[float, float]]:
    """(pixels, value) of every bar of the tables with this caption."""
    rows = page.locator("table.bars", has_text=re.compile(f"^{caption}")).locator("tr")
    bars = list[tuple[float, float]]()
    for i in range(rows.count()):
        box = rows.nth(i).locator(".bar").bounding_box()
        number, _, unit = rows.nth(i).locator(".number").inner_text().replace(",", "").partition(" ")
        bars.append(((box or {"width": 0})["width"], float(number) * (1000 if unit == "s" else 1)))
    return bars


def test_stop_ends_an_answer_and_keeps_its_text(page: Page) -> None:
    hold(page)
    ask(page, "What is shown?", 3)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".answer .state")).to_have_text("stopped")
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    expect(page.locator(".problem")).to_have_count(0)


def hold(page: Page) -> None:
    """Lets no answer come."""
    page.route("**/v1/answer", lambda route: None)


def test_a_question_is_wanted(page: Page) -> None:
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_label("Question")).to_be_focused()
    expect(page.locator("#status")).to_have_text("Type a question first.")


def test_a_refusal_is_shown_in_the_words_of_the_api(page: Page, url: str) -> None:
    ask(page, "What is shown?")  # in mode memory, without an image
    expect(page.get_by_role("alert")).to_contain_text("image", timeout=PATIENCE_MS)
    expect(page.locator("#ask-image-input")).to_have_attribute("aria-invalid", "true")


@pytest.mark.parametrize(
    ("status", "headers", "body", "message"),
    [
        (429, {"Retry-After": "7"}, '{"error": {"type": "overloaded", "message": "too many"}}', "wait 7 s"),
        (503, {"Retry-After": "3"}, '{"error": {"type": "overloaded", "message": "too many"}}', "wait 3 s"),
        (401, {}, '{"error": {"type": "unauthorized", "message": "no key"}}', "wants an API key"),
        (502, {}, "<h1>Bad gateway</h1>", "status 502"),
        (200, {}, 'event: error\ndata: {"error": {"message": "went away"}}\n\n', "went away"),
        (200, {}, 'event: token\ndata: {"text": "A"}\n\n', "The connection ended before the answer did"),
    ],
)
def test_what_goes_wrong_is_said(page: Page, status: int, headers: dict[str, str], body: str, message: str) -> None:
    """Answers that a test cannot have the service give: overload, a missing key, a gateway, a broken connection."""
    page.route("**/v1/answer", lambda route: route.fulfill(status=status, headers=headers, body=body))
    ask(page, "What is shown?", 3)
    expect(page.get_by_role("alert")).to_contain_text(message)
    expect(page.locator(".answer")).to_have_attribute("aria-busy", "false")


def test_a_service_that_is_gone_is_said(page: Page) -> None:
    page.route("**/v1/answer", lambda route: route.abort())
    ask(page, "What is shown?", 3)
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")


def test_a_large_image_is_scaled_before_it_is_sent(page: Page) -> None:
    sent = list[Any]()

    def keep(route: Route) -> None:
        sent.append(route.request.post_data_json)
        route.continue_()

    page.route("**/v1/answer", keep)
    page.set_input_files("#ask-image-input", file_of(drawn_image(3000, 1500)))
    expect(page.locator("#ask-image .hint")).to_have_text("Scaled from 3000 × 1500 to 2048 × 1024 pixels")
    ask(page, "What is shown?")
    finished(page)
    assert decoded_size(sent[0]["image"]) == (2048, 1024)


def decoded_size(uri: str) -> tuple[int, int]:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size


def test_an_image_is_pasted_dropped_and_removed(page: Page) -> None:
    for event, holder in (("paste", "clipboardData"), ("drop", "dataTransfer")):
        page.evaluate(
            """([event, holder, base64]) => {
              const bytes = Uint8Array.from(atob(base64), c => c.charCodeAt(0));
              const transfer = new DataTransfer();
              transfer.items.add(new File([bytes], "a.png", {type: "image/png"}));
              const type = event === "paste" ? ClipboardEvent : DragEvent;
              document.body.dispatchEvent(new type(event, {bubbles: true, cancelable: true, [holder]: transfer}));
            }""",
            [event, holder, as_base64(drawn_image())],
        )
        expect(page.locator("#ask-image img")).to_be_visible()
        expect(page.locator("#ask-image .hint")).to_have_text("64 × 64 pixels")
        page.get_by_role("button", name="Remove image").click()
        expect(page.locator("#ask-image img")).to_be_hidden()
        expect(page.locator("#ask-image-input")).to_be_focused()


def test_browse_search_and_page(page: Page) -> None:
    cards = open_knowledge(page)
    expect(cards).to_have_count(20)
    expect(page.locator("#knowledge-summary")).to_have_text(re.compile(r"^20 of \d+ items$"))
    while page.get_by_role("button", name="Show more items").is_visible():
        shown = cards.count()
        page.get_by_role("button", name="Show more items").click()
        expect(cards.nth(shown)).to_be_visible()
    titles = page.locator("#items h3").all_inner_texts()
    assert {f"Title {i}" for i in range(ITEMS)} <= set(titles)
    assert len(titles) == len(set(titles))
    page.get_by_label("Search by text").fill(row(11)["text"])
    page.get_by_label("Search by text").press("Enter")
    expect(page.locator("#items h3").first).to_have_text("Title 11", timeout=PATIENCE_MS)
    expect(cards.first.locator(".score")).to_be_visible()


def test_an_item_is_added_asked_about_and_deleted(page: Page) -> None:
    open_knowledge(page)
    card = add_item(page, "Yellow disc", drawn_image())
    expect(card.locator(".live")).to_be_visible()
    card.get_by_role("button", name="Ask about this").click()
    expect(page.get_by_label("Question")).to_be_focused()
    ask(page, "What is shown?")
    finished(page)
    expect(page.locator(".answer-sources h5").first).to_have_text("Yellow disc")

    delete(page, open_knowledge(page).first)
    page.get_by_role("tab", name="Ask").click()
    ask(page, "What is shown?")
    expect(page.locator(".answer-sources h5").first).to_be_visible(timeout=PATIENCE_MS)
    finished(page)
    assert "Yellow disc" not in page.locator(".answer-sources h5").all_inner_texts()


def test_what_is_wrong_with_a_new_item_is_said_at_its_field(page: Page) -> None:
    open_knowledge(page)
    page.get_by_role("button", name="Add an item").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Title").fill("No image")
    dialog.get_by_label("Text", exact=True).fill("An item without an image.")
    dialog.get_by_label("Language of the text").fill("en")
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(dialog.locator("#add-image-input-error")).not_to_be_empty(timeout=PATIENCE_MS)
    expect(dialog.locator("#add-image-input")).to_have_attribute("aria-invalid", "true")
    dialog.locator("#add-image-input").set_input_files(file_of(drawn_image()))
    expect(dialog.locator("#add-image-input-error")).to_be_empty()
    dialog.get_by_label("Language of the text").fill("no such language")
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(dialog.locator("#item-language-error")).not_to_be_empty(timeout=PATIENCE_MS)
    expect(dialog.get_by_label("Language of the text")).to_be_focused()


def test_all_of_it_by_keyboard(page: Page) -> None:
    page.get_by_role("tab", name="Ask").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Knowledge")).to_be_focused()
    expect(page.locator("#items .card")).to_have_count(20, timeout=PATIENCE_MS)
    page.keyboard.press("Home")
    expect(page.locator("#ask")).to_be_visible()
    stops = list[str]()
    for _ in range(7):
        page.keyboard.press("Tab")
        stops.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        width = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert width != "0px" or page.locator(":has(> :focus-visible)").count()
    assert stops[0].startswith("API")
    assert stops[1:3] == ["ask-image-input", "question"]
    page.get_by_role("tab", name="Ask").focus()
    page.keyboard.press("End")
    button = page.locator("#items .card").first.get_by_role("button", name="Delete")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(button).to_be_focused()
    expect(page.locator("#items .card")).to_have_count(20)


def test_the_open_tab_is_in_the_address(page: Page, url: str) -> None:
    open_knowledge(page)
    assert page.url == f"{url}/#knowledge"
    page.reload()
    expect(page.locator("#items .card").first).to_be_visible(timeout=PATIENCE_MS)
    page.get_by_role("tab", name="Ask").click()
    assert page.url == f"{url}/"


def test_text_of_an_item_is_never_markup(page: Page) -> None:
    """What a hostile item's text and link would do, given by the route: the tests' own items are friendly."""
    text = '<img src=x onerror="window.broken = 1"><b>bold</b>'
    fields = {"item_id": "0" * 24, "title": text, "text": text, "language": "en", "page_url": "javascript:alert(1)"}
    body = {"items": [{**fields, "live": False, "score": None}], "next_cursor": None, "total": 1}
    page.route("**/v1/items?*", lambda route: route.fulfill(json=body))
    cards = open_knowledge(page)
    expect(cards.get_by_role("heading")).to_have_text(text)
    assert cards.locator("b").count() == 0
    assert cards.get_by_role("link").count() == 0
    assert page.evaluate("window.broken") is None


def show(page: Page, view: str) -> None:
    """Brings the page into one of VIEWS."""
    if view == "answer":
        ask(page, "What is shown?", 7)
        finished(page)
    if view == "compare":
        page.set_input_files("#ask-image-input", image_file(7))
        page.get_by_label("Question").fill("What is shown?")
        page.get_by_role("button", name="Compare").click()
        finished(page, 3)
    if view == "error":
        ask(page, "What is shown?")
        expect(page.get_by_role("alert")).to_be_visible(timeout=PATIENCE_MS)
    if view in ("knowledge", "add", "delete"):
        cards = open_knowledge(page)
    if view == "add":
        page.get_by_role("button", name="Add an item").click()
        page.get_by_role("button", name="Add", exact=True).click()
        expect(page.locator("#add-dialog [aria-invalid]").first).to_be_attached(timeout=PATIENCE_MS)
    if view == "delete":
        cards.first.get_by_role("button", name="Delete").click()


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_screen(
    browser: Browser, url: str, scheme: str, size: dict[str, int]
) -> None:
    violations = list[str]()
    for view in VIEWS:
        opened = OpenedPage(browser, url, size, scheme)
        show(opened.page, view)
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= size["width"], view
        violations += [f"{view}: {violation}" for violation in axe(opened.page)]
        opened.close()
    assert violations == []


def axe(page: Page) -> list[str]:
    """What axe calls serious or critical."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    results = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{v['id']} ({v['impact']}): {node['target']} {node['failureSummary']}"
        for v in results["violations"]
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_reference_renders_without_the_internet(browser: Browser, url: str, scheme: str) -> None:
    opened = OpenedPage(browser, url, WIDE, scheme, "/docs")
    expect(opened.page.locator(".opblock").first).to_be_visible(timeout=PATIENCE_MS)
    paths = opened.page.locator(".opblock-summary-path").all_inner_texts()
    assert "/v1/answer" in [path.replace("\u200b", "") for path in paths]
    opened.close()
