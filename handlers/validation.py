"""What clients send, checked against `schemas/`.

The law: nothing reaches a domain function that its schema does not allow, and every refusal says
which field is wrong and why, as a JSON path and a sentence of ours: a validator's own wording
quotes whole documents and changes with its version. The schemas are compiled once, at the start.

`jsonschema-rs` validates: 10,000 prompts take it 2 ms, and Python's `jsonschema` over a second, in
which the event loop would stand still (docs/decisions/0002-json-schema.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import msgspec

from vision.errors import InvalidRequest

SCHEMAS: Final = Path(__file__).parent.parent / "schemas"

_NAMES: Final = {
    "object": "an object",
    "array": "a list",
    "string": "a string",
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "null": "null",
}


class Validators:
    """The compiled schemas, by name: `generate` for `schemas/generate.schema.json`, and
    `socket#generate` for its definition of that name.
    """

    def __init__(self, folder: Path = SCHEMAS) -> None:
        documents = {
            path.name: json.loads(path.read_text("utf-8"))
            for path in sorted(folder.glob("*.schema.json"))
        }
        registry = jsonschema_rs.Registry(list(documents.items()))
        self._validators: dict[str, jsonschema_rs.Draft202012Validator] = {}
        for file_name, document in documents.items():
            name = file_name.removesuffix(".schema.json")
            self._validators[name] = jsonschema_rs.Draft202012Validator(document, registry=registry)
            for definition in document.get("$defs", {}):
                reference = {"$ref": f"{file_name}#/$defs/{definition}"}
                self._validators[f"{name}#{definition}"] = jsonschema_rs.Draft202012Validator(
                    reference, registry=registry
                )

    def check(self, name: str, document: Any) -> None:
        """Raise `InvalidRequest` for the first thing that the schema does not allow."""
        for error in self._validators[name].iter_errors(document):
            raise _invalid(error)


def parse_object(text: bytes | str) -> dict[str, Any]:
    """A JSON object, or `InvalidRequest` that says why it is none."""
    try:
        document = msgspec.json.decode(text)
    except RecursionError:
        raise InvalidRequest("the JSON is nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidRequest(f"must be an object, not {_kind(document)}", path="$")
    return document


def _invalid(error: jsonschema_rs.ValidationError) -> InvalidRequest:
    error = _innermost(error)
    path, kind = list(error.instance_path), error.kind
    match kind:
        case jsonschema_rs.ValidationErrorKind.Required():
            return InvalidRequest("is missing", path=json_path([*path, kind.property]))
        case jsonschema_rs.ValidationErrorKind.AdditionalProperties():
            return InvalidRequest("no such field", path=json_path([*path, kind.unexpected[0]]))
    return InvalidRequest(_sentence(error), path=json_path(path))


def _innermost(error: jsonschema_rs.ValidationError) -> jsonschema_rs.ValidationError:
    """Of alternatives, the error in the one that the client meant: the one of the right type."""
    kind = error.kind
    while isinstance(kind, jsonschema_rs.ValidationErrorKind.OneOfNotValid):
        place = error.instance_path
        branches = kind.context
        meant = [branch for branch in branches if not _wrong_type(branch, place)]
        error = (meant or branches)[0][0]
        kind = error.kind
    return error


def _wrong_type(branch: list[jsonschema_rs.ValidationError], place: list[str | int]) -> bool:
    wrong = jsonschema_rs.ValidationErrorKind.Type
    return any(isinstance(e.kind, wrong) and e.instance_path == place for e in branch)


def _sentence(error: jsonschema_rs.ValidationError) -> str:
    kinds, kind = jsonschema_rs.ValidationErrorKind, error.kind
    match kind:
        case kinds.Type():
            return f"must be {_any_of(kind.types)}, not {_kind(error.instance)}"
        case kinds.Enum():
            return f"must be one of {', '.join(map(json.dumps, kind.options))}"
        case (
            kinds.Minimum() | kinds.Maximum() | kinds.ExclusiveMinimum() | kinds.ExclusiveMaximum()
        ):
            bound = {"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "more than"}
            return f"must be {bound.get(kind.name, 'less than')} {kind.limit}"
        case kinds.MinItems() | kinds.MinLength():
            return "must not be empty" if kind.limit == 1 else f"must have {kind.limit} or more"
        case kinds.MaxItems():
            return f"must have at most {kind.limit} entries"
        case kinds.MaxLength():
            return f"must have at most {kind.limit} characters"
        case kinds.Constant():
            return f"must be {json.dumps(kind.expected_value)}"
        case _:
            return error.message


def _any_of(types: Sequence[str]) -> str:
    return " or ".join(_NAMES[name] for name in types if name != "null" or len(types) == 1)


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return "a string"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case _:
            return "an object"


def json_path(steps: Iterable[str | int]) -> str:
    """`promptList[3].id`; names that are not plain are quoted."""
    path = ""
    for step in steps:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step.isidentifier():
            path += f".{step}" if path else step
        else:
            path += f"[{json.dumps(step, ensure_ascii=False)}]"
    return path or "$"
