"""A scripted upstream and models that reach it, on the test's event loop."""

from __future__ import annotations

import pytest
from asking import scene_at

from tests.upstream import ScriptedUpstream


@pytest.fixture
def there(io_loop):
    async def build():
        upstream = ScriptedUpstream()
        upstream.start()
        return scene_at(upstream.base_url, upstream)

    scene = io_loop.run_sync(build)
    yield scene
    io_loop.run_sync(scene.models.close)
    io_loop.run_sync(scene.upstream.stop)
