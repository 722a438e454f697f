"""A flag beats the environment, the environment beats the file, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from vision.errors import SettingError
from vision.settings import Settings, load_settings, table


@pytest.fixture
def config(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "vision.conf"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def refusal(argv, environ=None) -> str:
    with pytest.raises(SettingError) as refused:
        load_settings(argv, environ or {})
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_without_anything_every_setting_has_its_default():
    assert load_settings([], {}) == Settings()
    assert Settings().port == 8888
    assert Settings().address == "127.0.0.1"
    assert Settings().auth_keys == ("chat",)
    assert Settings().data_dir == Path("data")
    assert Settings().max_body == 8 * 1024 * 1024


def test_flag_beats_environment_beats_file(config):
    file = config("port=1\nroom=1\nmax-nodes=1\n")
    found = load_settings(
        [f"--config={file}", "--port=3"], {"VISION_PORT": "2", "VISION_ROOM": "2"}
    )
    assert (found.port, found.room, found.max_nodes) == (3, 2, 1)


def test_config_file_may_be_named_in_the_environment(config):
    file = config("# the port\n\n  port = 4000  \n")
    assert load_settings([], {"VISION_CONFIG": file}).port == 4000


def test_value_of_a_line_is_taken_as_it_is(config):
    file = config("redis-url=redis://:a=b@host/0\nauth-keys=[a],--port=1\n")
    found = load_settings([f"--config={file}"], {})
    assert found.redis_url == "redis://:a=b@host/0"
    assert found.auth_keys == ("[a]", "--port=1")


def test_every_row_of_the_table_can_be_set_in_all_three_ways(config):
    for row in table()[1:]:
        default = load_settings([], {})
        file = config(f"{row.flag.removeprefix('--')}={row.default}\n")
        assert load_settings([f"{row.flag}={row.default}"], {}) == default
        assert load_settings([], {row.variable: row.default}) == default
        assert load_settings([f"--config={file}"], {}) == default


def test_help_lists_every_setting_with_its_default_and_meaning(capsys):
    with pytest.raises(SystemExit) as ended:
        load_settings(["--help"], {})
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for row in table():
        assert f"{row.flag} VALUE {row.meaning}" in shown
        assert f"(default: {row.default or 'empty'}; {row.variable})" in shown


def test_wrong_value_is_named_with_the_flag_it_came_from():
    assert refusal(["--port=abc"]) == 'port: "abc" is not a whole number (flag --port)'


def test_wrong_value_is_named_with_the_variable_it_came_from():
    assert refusal([], {"VISION_ROOM": "0"}) == (
        'room: "0" is too small: it must be at least 1 (environment variable VISION_ROOM)'
    )


def test_wrong_value_is_named_with_the_file_it_came_from(config):
    file = config("log-format=xml\n")
    assert refusal([f"--config={file}"]) == (
        f'log-format: "xml" is not one of: text, json (file {file})'
    )


def test_unknown_flag_is_refused_with_the_nearest_name():
    assert refusal(["--prot=1"]) == "--prot: there is no such setting (flag); did you mean --port?"


def test_shortened_flag_is_unknown():
    assert refusal(["--dat=x"]).startswith("--dat: there is no such setting (flag)")


def test_unknown_variable_is_refused_with_the_nearest_name():
    assert refusal([], {"VISION_PROT": "1", "OTHER": "x"}) == (
        "VISION_PROT: there is no such setting (environment); did you mean VISION_PORT?"
    )


def test_unknown_line_is_refused_with_file_and_line(config):
    file = config("port=1\n\nprot=2\n")
    assert refusal([f"--config={file}"]) == (
        f"prot: there is no such setting (file {file}, line 3); did you mean port?"
    )


def test_line_without_a_value_is_refused(config):
    file = config("port\n")
    assert refusal([f"--config={file}"]) == f"port: not a line name=value (file {file}, line 1)"


def test_flag_without_a_value_is_refused():
    assert refusal(["--port"]) == "argument --port: expected one argument"


@pytest.mark.parametrize("path", ["/nowhere/vision.conf", "/"])
def test_config_file_that_cannot_be_opened_is_refused(path):
    assert refusal([f"--config={path}"]).startswith(f"Unable to open config file: {path}. ")


def test_config_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "vision.conf").write_bytes(b"\xff\xfe")
    message = refusal([f"--config={tmp_path}/vision.conf"])
    assert message.startswith(f"config: {tmp_path}/vision.conf cannot be read: ")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_default_key_may_be_used_on_loopback(address):
    assert load_settings([f"--address={address}"], {}).address == address


@pytest.mark.parametrize("address", ["", "0", "0.0.0.0", "::", "192.0.2.1", "::ffff:192.0.2.1"])
@pytest.mark.parametrize("keys", ["chat", "chat,another"])
def test_default_key_is_refused_on_any_other_address(address, keys):
    message = refusal([f"--address={address}", f"--auth-keys={keys}"])
    assert message.startswith('auth-keys: everybody knows the default key "chat"')
    assert f'"{address}"' in message


def test_another_key_may_be_used_on_every_address():
    assert load_settings(["--address=0.0.0.0", "--auth-keys=s3cret"], {}).auth_keys == ("s3cret",)


def test_address_that_nobody_knows_is_refused():
    message = refusal(["--address=no.such.name.invalid"])
    assert message.startswith('address: "no.such.name.invalid" cannot be resolved: ')


def test_secrets_are_in_no_repr_and_in_no_refusal():
    environ = {
        "VISION_AUTH_KEYS": "hush-a,hush-b",
        "VISION_REDIS_URL": "redis://:hush@host",
        "OPENAI_API_KEY": "hush-c",
    }
    assert "hush" not in repr(load_settings([], environ))
    assert "hush" not in refusal(["--auth-keys=ok,hush hush"])
    assert "hush" not in refusal(["--redis-url=http://hush@host"])


def test_openai_key_is_read_from_its_usual_variable():
    assert load_settings([], {"OPENAI_API_KEY": "sk-1"}).openai_api_key == "sk-1"
    assert load_settings([], {"OPENAI_API_KEY": ""}).openai_api_key is None
