"""The shapes of graphs that schedulers are compared on.

The law: a shape is data, the same for every scheduler: nodes in an order in which each one stands
behind all that it depends on. Only the standard library is used here, since peers read it under
interpreters of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

TEXT = " tok"  # what every node produces: the token that `load.py` counts


@dataclass(frozen=True, slots=True)
class Shape:
    """A graph: for each node, in order, the nodes that it waits for."""

    name: str
    dependencies: Mapping[str, tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.dependencies)

    @property
    def critical_path(self) -> int:
        """How many nodes the longest path has: no scheduler is done before they were."""
        depth: dict[str, int] = {}
        for node, before in self.dependencies.items():
            depth[node] = 1 + max((depth[name] for name in before), default=0)
        return max(depth.values())

    @property
    def ends(self) -> Iterator[str]:
        """The nodes that nothing waits for."""
        needed = {name for before in self.dependencies.values() for name in before}
        return (node for node in self.dependencies if node not in needed)

    def prompts(self, model: str, text: str) -> list[dict[str, object]]:
        """The shape as a `promptList`, every node with the same prompt."""
        return [
            {"id": node, "mid": model, "prompt": text, "dependenceIdList": list(before)}
            for node, before in self.dependencies.items()
        ]


def layered(layers: int, width: int) -> Shape:
    """Each node waits for all nodes of the layer before."""
    dependencies: dict[str, tuple[str, ...]] = {}
    before: tuple[str, ...] = ()
    for layer in range(layers):
        names = tuple(f"{layer}.{place}" for place in range(width))
        dependencies |= dict.fromkeys(names, before)
        before = names
    return Shape(f"layered {layers} x {width}", dependencies)


def wide(count: int) -> Shape:
    """Nodes that wait for nothing."""
    return Shape(f"wide {count}", {str(number): () for number in range(count)})


def chain(count: int) -> Shape:
    """Each node waits for the one before."""
    dependencies = {str(number): (str(number - 1),) for number in range(1, count)}
    return Shape(f"chain {count}", {"0": (), **dependencies})


def fan_out(count: int) -> Shape:
    """One node, and so many that wait for it."""
    return Shape(
        f"fan-out {count}", {"root": (), **{str(number): ("root",) for number in range(count)}}
    )


def diamond() -> Shape:
    """One node, two that wait for it, one that waits for both."""
    both = {"left": ("top",), "right": ("top",)}
    return Shape("diamond", {"top": (), **both, "bottom": ("left", "right")})


# Large ones for the cost of a node.
LAYERED, WIDE, CHAIN = layered(20, 10), wide(1000), chain(500)

# Small ones for the time of a request, as applications have them.
SHORT_CHAIN, FAN_OUT, DIAMOND = chain(10), fan_out(20), diamond()

SHAPES = {shape.name: shape for shape in (LAYERED, WIDE, CHAIN, SHORT_CHAIN, FAN_OUT, DIAMOND)}
