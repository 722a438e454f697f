"""The single prompt: one call of one model, outside any mission.

The law: nothing is sent before everything is checked, and the call is tried again only while it
may still succeed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from vision.errors import InvalidRequest, Overloaded
from vision.models.call import Completion, check_single_params, single_call
from vision.models.catalog import Catalog
from vision.models.options import DEFAULT_RETRIES, split_options, with_timeout
from vision.models.upstream import Models

# Calls that may wait for a place at an upstream. At a second for each call and 64 places, the last
# one waits a quarter of a minute; more would wait longer than their clients do.
MAX_WAITING: Final = 1000


class SinglePrompt:
    """Answers `single-prompt-request`."""

    def __init__(self, catalog: Catalog, models: Models) -> None:
        self._catalog = catalog
        self._models = models

    async def complete(self, model: str, params: Mapping[str, Any]) -> Completion:
        """The model's answer; `params` are valid by their schema.

        Raises `InvalidRequest` with a path in the request body, and `ModelError`.
        """
        route = self._catalog.route(model, path="model")
        options, params = split_options(params, {}, path="params")
        if "onError" in options:
            raise InvalidRequest("only the nodes of a graph have it", path="params.onError")
        check_single_params(route, params, path="params")
        if self._models.limiters[route.upstream].waiting >= MAX_WAITING:
            raise Overloaded(f"too many requests wait for {model}; try again a little later")
        timeouts = with_timeout(self._catalog.upstream(route).timeouts, options.get("timeout"))
        retries = int(options.get("retries", DEFAULT_RETRIES))
        return await self._models.complete(single_call(route, params), timeouts, retries)
