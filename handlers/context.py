"""What every handler is given."""

from __future__ import annotations

from dataclasses import dataclass

from handlers.connections import Connections
from handlers.validation import Validators
from vision.services import Services


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of one process that handlers use."""

    services: Services
    validators: Validators
    connections: Connections
