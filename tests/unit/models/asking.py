"""Calls of models as the tests make them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass

import pytest

from tests.upstream import ScriptedUpstream
from vision.errors import ModelError
from vision.models.call import Route, Timeouts, node_call
from vision.models.catalog import Catalog, Upstream
from vision.models.upstream import Models

KEY = "sk-test-very-secret"
# Long enough that a test on a busy machine never meets one that it does not mean to.
PATIENT = Timeouts(connect=5, first_token=10, idle=10, total=20)


async def no_local_model():
    raise ModelError("no embedded model here", code="upstream_unreachable", retryable=True)


def catalog_of(base_url, **fields):
    there = Upstream("there", base_url, **{"api_key": KEY, "max_concurrency": 3, **fields})
    routes = [
        Route("chatty", "there", "chat-model", "chat"),
        Route("writer", "there", "completion-model", "completion"),
    ]
    return Catalog({"there": there}, {route.model: route for route in routes})


@dataclass(frozen=True)
class Scene:
    """A scripted upstream named "there", and models that reach it."""

    upstream: ScriptedUpstream | None
    catalog: Catalog
    models: Models

    @property
    def slots(self):
        return self.models.limiters["there"]

    def call(self, prompt, model="chatty", **params):
        return node_call(self.catalog.route(model), prompt, params)

    async def collect(self, asked, timeouts=PATIENT):
        chunks = []
        async with aclosing(self.models.stream(asked, timeouts)) as stream:
            async for arrived in stream:
                assert arrived, "a list is never empty"
                chunks += arrived
        return chunks

    async def failure_of(self, asked, timeouts=PATIENT):
        with pytest.raises(ModelError) as caught:
            await self.collect(asked, timeouts)
        return caught.value


def scene_at(base_url, upstream=None, **fields):
    catalog = catalog_of(base_url, **fields)
    return Scene(upstream, catalog, Models(catalog, no_local_model))


def text_of(chunks):
    return "".join(chunk.text for chunk in chunks)


async def until(condition):
    """For what nothing announces; the bound makes a test that waits in vain fail."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)
