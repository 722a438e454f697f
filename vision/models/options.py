"""What a client may say about how a model is called: timeouts and retries.

The law: pure. These options are ours and never reach an upstream. They may stand in `params` or
beside it, once; what is not said is as the upstream is configured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from vision.errors import InvalidRequest
from vision.models.call import Timeouts

# Two more tries outlast a restart of an upstream or a short rate limit, and cost little when all
# fails: with the backoff of `backoff.py` they add a few seconds.
DEFAULT_RETRIES: Final = 2

# What the mission reads and the model never sees.
OPTIONS: Final = ("timeout", "retries", "onError")

_FIELDS: Final = {
    "connect": "connect",
    "firstToken": "first_token",
    "idle": "idle",
    "total": "total",
}


def split_options(
    params: Mapping[str, Any], beside: Mapping[str, Any], *, path: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options, and the parameters that are left for the model.

    Raises `InvalidRequest` for an option that stands in both places.
    """
    if not params:  # as most have none
        return {name: beside[name] for name in OPTIONS if beside.get(name) is not None}, {}
    for name in OPTIONS:
        if params.get(name) is not None and beside.get(name) is not None:
            raise InvalidRequest(
                f"{name} stands in params and beside it; give it once", path=f"{path}.{name}"
            )
    given = {name: params.get(name, beside.get(name)) for name in OPTIONS}
    options = {name: value for name, value in given.items() if value is not None}
    return options, {name: value for name, value in params.items() if name not in OPTIONS}


def with_timeout(usual: Timeouts, timeout: float | Mapping[str, float] | None) -> Timeouts:
    """The upstream's timeouts, but for those that the client named; a number is the total."""
    if timeout is None:
        return usual
    named = timeout if isinstance(timeout, Mapping) else {"total": timeout}
    return replace(usual, **{_FIELDS[name]: float(seconds) for name, seconds in named.items()})
