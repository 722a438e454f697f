"""A simulator as a process that a test starts and talks to.

The law: as in `tests.processes`: ready when the constructor returns, gone after `kill`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from tests.processes import _Process

# A notification may be waited for by the simulator meanwhile.
CONTROL_SECONDS = 20.0


class GatewayProcess(_Process):
    """`python -m tests.gateways.NAME`; `mode` is one of that simulator's modes."""

    def __init__(self, name: str, keys: Path, log: Path, mode: str = "") -> None:
        argv = ["-m", f"tests.gateways.{name}", "--port", "0", "--keys", str(keys)]
        super().__init__([*argv, "--mode", mode], log, re.compile(r"^(\d+)$", re.M))

    @property
    def base_url(self) -> str:
        """Without a slash at the end."""
        return f"http://127.0.0.1:{self._ready}"

    def tell(self, action: str, **told: Any) -> Any:
        """Call `do_ACTION` in it; the result. It blocks, so not for what comes back to us here."""
        body = json.dumps({"action": action, **told}).encode()
        request = Request(f"{self.base_url}/control", body, method="POST")
        with urlopen(request, timeout=CONTROL_SECONDS) as answer:
            return json.load(answer)["result"]
