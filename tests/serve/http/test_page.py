"""The page's routes, over an application that has nothing else: headers, caching, and no address of another host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from serve.http.page import FOLDER, PAGES, page_routes

FILES = sorted(FOLDER.iterdir())
PATHS = [PAGES.get(file.name, f"/page/{file.name}") for file in FILES]
SWAGGER = ["/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js"]
# Named, never fetched: the name space of SVG.
NAMES = {"http://www.w3.org/2000/svg"}


@pytest.fixture(scope="module")
def http() -> Iterator[TestClient]:
    app = FastAPI(docs_url=None, redoc_url=None)
    page_routes(app)
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize("path", PATHS + SWAGGER)
def test_every_file_is_answered_with_its_type_and_the_policy(http: TestClient, path: str) -> None:
    response = http.get(path)
    assert response.status_code == 200
    assert len(response.content) > 50
    suffix = Path(path).suffix or ".html"
    types = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    assert response.headers["content-type"].partition(";")[0] == types[suffix]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-cache"


def test_the_policy_allows_this_server_alone(http: TestClient) -> None:
    policy = http.get("/").headers["content-security-policy"]
    directives = {name: set(rest) for name, *rest in (part.split() for part in policy.split(";"))}
    assert directives["default-src"] == {"'self'"}
    assert directives["img-src"] == {"'self'", "data:", "blob:"}
    assert directives["frame-ancestors"] == {"'none'"}
    assert "unsafe" not in policy


def test_a_known_file_is_not_sent_again(http: TestClient) -> None:
    tag = http.get("/page/app.js").headers["etag"]
    for known in (tag, f'"other", W/{tag}', "*"):
        again = http.get("/page/app.js", headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
    assert http.get("/page/app.js", headers={"If-None-Match": '"other"'}).status_code == 200
    assert http.get("/page/style.css").headers["etag"] != tag


def test_head(http: TestClient) -> None:
    assert http.head("/").headers["etag"] == http.get("/").headers["etag"]


@pytest.mark.parametrize(
    "path", ["/page/", "/page/index.html", "/page/../http/page.py", "/page/%2e%2e/app.py", "/docs/x"]
)
def test_nothing_else_is_there(http: TestClient, path: str) -> None:
    assert http.get(path).status_code == 404


def test_the_page_is_not_in_the_description_of_the_api(http: TestClient) -> None:
    assert http.get("/openapi.json").json()["paths"] == {}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_file_names_another_host(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\s\"'<>)]+", text)) <= NAMES
    assert not re.search(r"""(src|href)=["']//|@import|url\(""", text)


@pytest.mark.parametrize("file", [f for f in FILES if f.suffix == ".html"], ids=lambda file: file.name)
def test_what_the_policy_forbids_is_not_there(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))


@pytest.mark.parametrize("file", [f for f in FILES if f.suffix == ".html"], ids=lambda file: file.name)
def test_every_file_that_a_page_names_is_there(http: TestClient, file: Path) -> None:
    paths = re.findall(r'(?:src|href)="((?:page|docs)/[^"]+)"', file.read_text(encoding="utf-8"))
    assert paths
    assert [http.get(f"/{path}").status_code for path in paths] == [200] * len(paths)


@pytest.mark.parametrize("file", [f for f in FILES if f.suffix == ".js"], ids=lambda file: file.name)
def test_a_script_is_short_and_never_parses_html(http: TestClient, file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text)
    assert len(text.splitlines()) < 150
    imported = re.findall(r'from "\./([^"]+)"', text)
    assert [http.get(f"/page/{name}").status_code for name in imported] == [200] * len(imported)
