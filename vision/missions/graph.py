"""The graph of a mission: what was asked for, checked and frozen.

The law: a `Graph` exists only if it can run. Ids are unique, every dependency exists, nothing
depends on itself, neither directly nor round a cycle, and every placeholder names a dependency.
`build_graph` refuses anything else before anything runs, and says where, as a JSON path, and with
the ids. Nothing here recurses, so a chain of any length is as good as a flat list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from vision.errors import InvalidRequest
from vision.missions.template import Template, parse_template
from vision.models.options import DEFAULT_RETRIES, split_options

_encoder = msgspec.json.Encoder(order="sorted")


class OnError(msgspec.Struct, frozen=True):
    """What a node's final failure does.

    `skip`: its dependents are skipped, the rest goes on. `fail`: the mission ends. `default`: its
    dependents go on with `text` in place of its result.
    """

    action: Literal["skip", "fail", "default"] = "skip"
    text: str = ""


SKIP = OnError()


class Node(msgspec.Struct, frozen=True):
    """One prompt with its dependencies. `timeout` is as it was sent: seconds, or by kind."""

    id: str
    model: str
    template: Template
    dependencies: tuple[str, ...]
    params: Mapping[str, Any]
    timeout: float | Mapping[str, float] | None = None
    retries: int = DEFAULT_RETRIES
    on_error: OnError = SKIP


@dataclass(frozen=True, slots=True)
class Graph:
    """A validated graph. `nodes` keeps the order of `promptList`; `dependents` is its inverse."""

    nodes: Mapping[str, Node]
    dependents: Mapping[str, tuple[str, ...]]


def fingerprint(node: Node, prompt: str) -> str:
    """Equal for two calls that ask the same: model, parameters and rendered prompt (32 hex)."""
    asked = [node.model, sorted(node.params.items()) if node.params else [], prompt]
    return hashlib.sha256(_encoder.encode(asked)).hexdigest()[:32]


def build_graph(prompt_list: Sequence[Mapping[str, Any]]) -> Graph:
    """Check a `promptList` (already valid by its schema) and freeze it.

    Raises `InvalidRequest` for the first thing that is wrong, with its JSON path.
    """
    positions = _positions(prompt_list)
    nodes: dict[str, Node] = {}
    dependents: dict[str, list[str]] = {node_id: [] for node_id in positions}
    for index, prompt in enumerate(prompt_list):
        node = _node(prompt, positions, f"promptList[{index}]")
        nodes[node.id] = node
        for dependency in node.dependencies:
            dependents[dependency].append(node.id)
    _refuse_cycles(nodes, dependents, positions)
    return Graph(nodes, {node_id: tuple(ids) for node_id, ids in dependents.items()})


def _positions(prompt_list: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    positions: dict[str, int] = {}
    for index, prompt in enumerate(prompt_list):
        first = positions.setdefault(prompt["id"], index)
        if first != index:
            raise InvalidRequest(
                f'the id "{prompt["id"]}" is already that of promptList[{first}]',
                path=f"promptList[{index}].id",
            )
    return positions


def _node(prompt: Mapping[str, Any], positions: Mapping[str, int], path: str) -> Node:
    dependencies = _dependencies(prompt, positions, path)
    template = parse_template(prompt["prompt"])
    for name in template.names:
        if name not in dependencies:
            raise InvalidRequest(
                f'the placeholder {{{{{name}}}}} names no dependency; add "{name}" to '
                f"dependenceIdList, or write \\{{{{{name}}}}} for the text itself",
                path=f"{path}.prompt",
            )
    options, params = split_options(prompt.get("params") or {}, prompt, path=path)
    return Node(
        id=prompt["id"],
        model=prompt["mid"],
        template=template,
        dependencies=tuple(dependencies),
        params=params,
        timeout=options.get("timeout"),
        retries=int(options.get("retries", DEFAULT_RETRIES)),
        on_error=_on_error(options.get("onError", "skip")),
    )


def _dependencies(
    prompt: Mapping[str, Any], positions: Mapping[str, int], path: str
) -> dict[str, None]:
    """What the prompt depends on: a set that keeps its order. All at one look when all is well."""
    named = prompt.get("dependenceIdList") or ()
    once = dict.fromkeys(named)
    if len(once) < len(named) or prompt["id"] in once or not once.keys() <= positions.keys():
        index, wrong = next(_wrong_dependencies(named, prompt["id"], positions))
        raise InvalidRequest(wrong, path=f"{path}.dependenceIdList[{index}]")
    return once


def _wrong_dependencies(
    named: Sequence[str], node_id: str, positions: Mapping[str, int]
) -> Iterator[tuple[int, str]]:
    """Where they stand, and what is wrong."""
    seen: set[str] = set()
    for index, dependency in enumerate(named):
        if dependency not in positions:
            yield index, f'no prompt with id "{dependency}"'
        elif dependency == node_id:
            yield index, f'the prompt "{dependency}" depends on itself'
        elif dependency in seen:
            yield index, f'"{dependency}" is named twice'
        seen.add(dependency)


def _on_error(value: str | Mapping[str, str]) -> OnError:
    if isinstance(value, str):
        return OnError("fail") if value == "fail" else SKIP
    return OnError("default", value["default"])


def _refuse_cycles(
    nodes: Mapping[str, Node],
    dependents: Mapping[str, Sequence[str]],
    positions: Mapping[str, int],
) -> None:
    """Remove nodes without open dependencies until none is left; what stays holds a cycle."""
    if _in_order(nodes):
        return
    open_dependencies = {node.id: len(node.dependencies) for node in nodes.values()}
    ready = [node_id for node_id, count in open_dependencies.items() if count == 0]
    while ready:
        node_id = ready.pop()
        del open_dependencies[node_id]
        for dependent in dependents[node_id]:
            open_dependencies[dependent] -= 1
            if open_dependencies[dependent] == 0:
                ready.append(dependent)
    if open_dependencies:
        cycle = list(_walk_cycle(nodes, open_dependencies))
        raise InvalidRequest(
            f"the dependencies form a cycle: {' -> '.join(cycle)}",
            path=f"promptList[{positions[cycle[0]]}].dependenceIdList",
        )


def _in_order(nodes: Mapping[str, Node]) -> bool:
    """Whether each node stands behind all that it depends on, as in most lists."""
    before: set[str] = set()
    for node in nodes.values():
        if not before.issuperset(node.dependencies):
            return False
        before.add(node.id)
    return True


def _walk_cycle(nodes: Mapping[str, Node], stuck: Mapping[str, int]) -> Iterator[str]:
    """Follow dependencies among the stuck nodes until one comes again; yield the loop, closed."""
    seen: dict[str, int] = {}
    node_id = next(iter(stuck))
    while node_id not in seen:
        seen[node_id] = len(seen)
        node_id = next(name for name in nodes[node_id].dependencies if name in stuck)
    start = seen[node_id]
    yield from (name for name, place in seen.items() if place >= start)
    yield node_id
