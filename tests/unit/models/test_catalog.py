"""A models file is complete, or refused in one line that names the file and the place."""

from __future__ import annotations

import pytest

from vision.errors import InvalidRequest, SettingError
from vision.models.call import Timeouts
from vision.models.catalog import default_catalog, load_catalog

GOOD = """
[upstreams.openai]
base_url = "https://api.openai.com/v1"
api_key_env = "MY_KEY"
max_concurrency = 7
connect_timeout = 1
first_token_timeout = 2.5

[upstreams.near]
base_url = "http://127.0.0.1:8080/v1"

[models."gpt-4.1"]
upstream = "openai"
name = "gpt-4.1-2025"
kind = "chat"
unsupported = ["logit_bias"]

[models.small]
upstream = "local"
name = "smol"
kind = "completion"
"""


@pytest.fixture
def file(tmp_path):
    return tmp_path / "models.toml"


def test_a_models_file_gives_its_upstreams_and_routes(file):
    file.write_text(GOOD)
    catalog = load_catalog(file, {"MY_KEY": "sk-1"})
    openai = catalog.upstream(catalog.route("gpt-4.1"))
    assert (openai.base_url, openai.api_key) == ("https://api.openai.com/v1", "sk-1")
    assert openai.max_concurrency == 7
    assert openai.timeouts == Timeouts(connect=1, first_token=2.5)
    assert catalog.route("gpt-4.1").name == "gpt-4.1-2025"
    assert catalog.route("gpt-4.1").unsupported == {"logit_bias"}
    assert catalog.upstreams["near"].api_key is None
    assert catalog.upstreams["near"].max_concurrency == 64


def test_the_embedded_model_may_be_named_and_refuses_suffix(file):
    file.write_text(GOOD)
    catalog = load_catalog(file, {"MY_KEY": "sk-1"})
    small = catalog.route("small")
    assert catalog.upstream(small).base_url is None
    assert small.unsupported == {"suffix"}
    assert catalog.uses_local


def test_a_key_is_in_no_repr(file):
    file.write_text(GOOD)
    assert "sk-1" not in repr(load_catalog(file, {"MY_KEY": "sk-1"}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("kind = \"chat\"", "kind = \"chatty\""), 'models."gpt-4.1".kind: "chatty" is not one of'),
        (("kind = \"chat\"", ""), 'models."gpt-4.1": "kind" is a required property'),
        (("max_concurrency = 7", "max_concurrency = 0"), "upstreams.openai.max_concurrency: 0 is"),
        (("max_concurrency = 7", "max_concurency = 7"), "upstreams.openai: Additional properties"),
        (("= 2.5", "= nan"), 'upstreams.openai.first_token_timeout: "nan" is not of type'),
        (("= 2.5", "= 2020-01-01"), "upstreams.openai.first_token_timeout: "),
        (('"http://127.0.0.1:8080/v1"', '"127.0.0.1"'), "upstreams.near.base_url: "),
        (("[upstreams.near]", "[upstreams.local]"), "upstreams: "),
        (('"logit_bias"', '"n", "size"'), 'models."gpt-4.1".unsupported[1]: '),
        (('upstream = "openai"', 'upstream = "opnai"'), 'models."gpt-4.1".upstream: no upstream'
         ' "opnai"; there are: near, openai, local (built in)'),
        (("MY_KEY", "NO_KEY"), "upstreams.openai.api_key_env: the environment variable NO_KEY is"
         " not set"),
        (("[models.small]", "[models.small"), "is not TOML: "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line_with_its_place(file, change, message):
    assert change[0] in GOOD
    file.write_text(GOOD.replace(*change))
    with pytest.raises(SettingError) as caught:
        load_catalog(file, {"MY_KEY": "sk-1"})
    said = caught.value.message
    assert said.startswith(f"{file}: {message}")
    assert "\n" not in said


def test_a_syntax_error_says_the_line(file):
    file.write_text("[models]\nx = \n")
    with pytest.raises(SettingError, match="line 2"):
        load_catalog(file, {})


@pytest.mark.parametrize(("content", "message"), [(None, "cannot be read"), (b"\xff", "not UTF-8")])
def test_a_file_that_cannot_be_read_is_named(file, content, message):
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingError, match=message):
        load_catalog(file, {})


def test_an_empty_file_lacks_models(file):
    file.write_text("")
    with pytest.raises(SettingError, match='"models" is a required property'):
        load_catalog(file, {})


@pytest.mark.parametrize("key", [None, ""])
def test_without_a_key_the_three_names_lead_to_the_embedded_model(key):
    catalog = default_catalog(key)
    kinds = {name: route.kind for name, route in catalog.routes.items()}
    assert kinds == {
        "gpt-3.5-turbo": "chat",
        "text-davinci-003": "completion",
        "text-davinci-002": "completion",
    }
    assert {route.upstream for route in catalog.routes.values()} == {"local"}
    assert catalog.upstreams["local"].base_url is None


def test_with_a_key_they_lead_to_openai_and_the_retired_ones_to_their_successor():
    catalog = default_catalog("sk-1")
    assert not catalog.uses_local
    assert catalog.upstreams["openai"].api_key == "sk-1"
    assert catalog.route("gpt-3.5-turbo").name == "gpt-3.5-turbo"
    assert catalog.route("text-davinci-002").name == "gpt-3.5-turbo-instruct"
    assert catalog.route("text-davinci-003").name == "gpt-3.5-turbo-instruct"


def test_an_unknown_model_is_refused_with_the_known_names():
    with pytest.raises(InvalidRequest) as caught:
        default_catalog(None).route("gpt-9", path="promptList[0].mid")
    assert caught.value.message == (
        'promptList[0].mid: no model "gpt-9"; there are: gpt-3.5-turbo, text-davinci-002,'
        " text-davinci-003"
    )
