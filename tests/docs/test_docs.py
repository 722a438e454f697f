"""The docs say what is: each page is held against the code it speaks of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import jsonschema
import jsonschema_rs
import pytest
from referencing import Registry, Resource

from handlers.answers import HTTP_ERRORS, INTERNAL_ERROR
from handlers.app import PageHandler, routes
from tests.contract.conftest import chat
from vision.errors import MODEL_ERROR_CODES, SettingError, StaleEpoch, VisionError
from vision.missions.events import NodeStatus
from vision.missions.mission import DEPENDENCY_FAILED, MISSION_FAILED
from vision.models.catalog import load_catalog
from vision.services import Services
from vision.settings import table

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
API = (ROOT / "docs" / "api.md").read_text()
README = (ROOT / "README.md").read_text()


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table behind a heading."""
    lines = text.split(heading, 1)[1].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|---"))
    found = []
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def test_the_readme_lists_every_setting_with_its_default_and_meaning() -> None:
    expected = ["| setting | variable | default | meaning |", "|---|---|---|---|"]
    for row in table():
        default = f"`{row.default}`" if row.default else ""
        expected.append(f"| `{row.flag}` | `{row.variable}` | {default} | {row.meaning} |")

    found = README.split("<!-- settings -->\n")[1].split("<!-- /settings -->")[0].strip()

    assert found.splitlines() == expected


def test_the_api_page_lists_every_endpoint() -> None:
    documented = {re.search(r"`(/[^`]*)`", row[0])[1] for row in rows(API, "# The API")}

    all_routes = routes(cast("Services", None))

    assert documented == {path for path, handler, *_ in all_routes if handler is not PageHandler}


def subclasses(cls: type[VisionError]) -> Iterator[type[VisionError]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from subclasses(sub)


def test_the_api_page_lists_every_error_code_that_a_client_can_get() -> None:
    internal = {SettingError.code, StaleEpoch.code}  # never leave the server
    codes = {sub.code for sub in subclasses(VisionError)} - internal
    codes |= set(MODEL_ERROR_CODES) | {code for code, _ in HTTP_ERRORS.values()} | {INTERNAL_ERROR}

    documented = {row[0].strip("`") for row in rows(API, "### Error codes")}

    assert documented == codes


@pytest.mark.parametrize("code", [DEPENDENCY_FAILED, MISSION_FAILED, "cancelled"])
def test_the_api_page_names_the_codes_that_only_nodes_have(code: str) -> None:
    assert f"`{code}`" in API


def test_the_api_page_lists_every_final_status_of_a_node() -> None:
    final = set(NodeStatus) - {NodeStatus.WAITING, NodeStatus.RUNNING}

    assert all(f"`{status}`" in API.split("## Results")[1] for status in final)


def test_the_example_of_a_models_file_loads(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "models.md").read_text()
    example = tmp_path / "models.toml"
    example.write_text(page.split("```toml\n")[1].split("```")[0])

    catalog = load_catalog(example, {"OPENAI_API_KEY": "secret"})

    assert set(catalog.routes) == {"gpt-3.5-turbo", "small"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_json_example_is_json(page: Path) -> None:
    for example in re.findall(r"```json\n(.*?)```", page.read_text(), re.DOTALL):
        json.loads(example)


# --- the schemas: two implementations of the standard, held together ----------------------------

SCHEMAS: dict[str, Any] = {
    path.name: json.loads(path.read_text()) for path in (ROOT / "schemas").glob("*.json")
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_a_valid_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])


@pytest.mark.parametrize(
    "document",
    [
        {"promptList": [chat("a", "x")]},
        {"promptList": [chat("a", "x", timeout=1, retries=2, onError={"default": ""})]},
        {"promptList": [chat("a", "x", params={"temperature": 1.0, "max_tokens": 5.0})]},
        {"promptList": [chat("a", "x", params=None)]},
        {"promptList": []},
        {"promptList": [chat("", "x")]},
        {"promptList": [chat("a", "x", timeout={"idle": 0})]},
        {"promptList": [chat("a", "x", onError="x")]},
        {"promptList": [chat("a", "x", params={"max_tokens": 1.5})]},
        {"promptList": [chat("a", "x", extra=1)]},
    ],
)
def test_both_validators_judge_alike(document: dict[str, Any]) -> None:
    schema = SCHEMAS["generate.schema.json"]
    registry = Registry().with_resources(
        (name, Resource.from_contents(contents))
        for name, contents in SCHEMAS.items()
        if "$id" in contents
    )
    fast_registry = jsonschema_rs.Registry(list(SCHEMAS.items()))

    slow = jsonschema.Draft202012Validator(schema, registry=registry).is_valid(document)
    fast = jsonschema_rs.Draft202012Validator(schema, registry=fast_registry).is_valid(document)

    assert slow == fast
