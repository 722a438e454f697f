"""What a user may use, as the sum of what was granted.

The law: an entitlement of a user in a product line is nothing but what its grants add up to. Days
are laid end to end: each grant begins when it was made or when the one before it ends, whichever is
later, so renewing early loses nothing. A refund takes back the refunded share of its own grant, and
only what is not used yet: days that have passed and tokens that are spent stay spent, and never eat
into what another order granted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from vision.payments.money import share

DAY_MS: Final = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True)
class Grant:
    """What one paid order gave, at a time in ms; `revoked_*` is what refunds have taken back."""

    order_id: str
    granted_at: int
    access_ms: int
    tokens: int
    revoked_ms: int = 0
    revoked_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Entitlement:
    """What a user has in one product line; `ends_at` is 0 when there was never any access."""

    uid: str
    product_line: str
    ends_at: int
    tokens: int  # all that were granted and not revoked
    tokens_used: int

    @property
    def tokens_left(self) -> int:
        """What can still be used."""
        return self.tokens - self.tokens_used

    def active(self, now: int) -> bool:
        """Whether there is access at this time."""
        return now < self.ends_at


def spans(grants: Sequence[Grant]) -> Iterator[tuple[Grant, int, int]]:
    """Each grant with the beginning and the end of its access, in the order they were made."""
    end = 0
    for grant in sorted(grants, key=lambda each: (each.granted_at, each.order_id)):
        length = grant.access_ms - grant.revoked_ms
        if length > 0:
            begin = max(end, grant.granted_at)
            end = begin + length
            yield grant, begin, end
        else:
            yield grant, grant.granted_at, grant.granted_at


def add_up(entitlement: Entitlement, grants: Sequence[Grant]) -> Entitlement:
    """The entitlement that these grants, all there are of its user and line, amount to."""
    ends_at = max((end for each, begin, end in spans(grants) if end > begin), default=0)
    tokens = sum(each.tokens - each.revoked_tokens for each in grants)
    return replace(entitlement, ends_at=ends_at, tokens=tokens)


def unspent(grants: Sequence[Grant], tokens_used: int) -> Iterator[tuple[Grant, int]]:
    """Each grant with its tokens that are left, the oldest being spent first."""
    for grant in sorted(grants, key=lambda each: (each.granted_at, each.order_id)):
        held = grant.tokens - grant.revoked_tokens
        spent = min(held, tokens_used)
        tokens_used -= spent
        yield grant, held - spent


@dataclass(frozen=True, slots=True)
class Refunded:
    """What had been given back of an order's amount before a refund, and after it, in fen."""

    order_id: str
    amount: int
    before: int
    after: int

    def due(self, granted: int) -> int:
        """The share of what was granted that this refund takes back."""
        return share(granted, self.after, self.amount) - share(granted, self.before, self.amount)


def revoke(grants: Sequence[Grant], tokens_used: int, refunded: Refunded, now: int) -> Grant | None:
    """The order's grant after a refund; None when nothing was granted for it."""
    span = next((each for each in spans(grants) if each[0].order_id == refunded.order_id), None)
    if span is None:
        return None
    grant, begin, end = span
    left = next(left for each, left in unspent(grants, tokens_used) if each is grant)
    unused = max(0, end - max(begin, now))
    return replace(
        grant,
        revoked_ms=grant.revoked_ms + min(refunded.due(grant.access_ms), unused),
        revoked_tokens=grant.revoked_tokens + min(refunded.due(grant.tokens), left),
    )
