"""How many bytes each owner has, counted while they come, so that nobody gets over the limit.

Counts live in memory, in one event loop: between a look and what follows from it nobody else
counts. That is exact because one server has the home for itself; what was kept before is read
from the database when an owner is first met.

This file does not know files or disks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ouzel.core.errors import TooLarge


class Account:
    """Bytes of one owner: kept and arriving.

    Args:
        quota: most bytes.
        used: bytes that are kept already.
    """

    def __init__(self, quota: int, used: int) -> None:
        self.used = used
        self._quota = quota

    def take(self, size: int, param: str) -> None:
        """Count bytes that come. Raises TooLarge, and counts none, if they are too many."""
        if self.used + size > self._quota:
            raise TooLarge(
                f"This would be more than the {shown(self._quota)} that all your files together "
                "may have; delete some first.",
                param=param,
                code="quota_exceeded",
            )
        self.used += size

    def give(self, size: int) -> None:
        """Count bytes that are gone, or did not stay."""
        self.used -= size


class Accounts:
    """The accounts of all owners.

    Args:
        quota: most bytes of one owner.
        read: how many bytes are kept for an owner, as the database has it.
    """

    def __init__(self, quota: int, read: Callable[[str], Awaitable[int]]) -> None:
        self._quota = quota
        self._read = read
        self._accounts: dict[str, Account] = {}
        self._opening = asyncio.Lock()

    async def of(self, owner: str) -> Account:
        """The owner's account. To be asked for before anything of the owner's changes."""
        if owner not in self._accounts:
            async with self._opening:
                if owner not in self._accounts:
                    used = await self._read(owner)
                    self._accounts[owner] = Account(self._quota, used)
        return self._accounts[owner]


def shown(size: int) -> str:
    """Bytes for people: `512 MB`."""
    for unit, worth in (("GB", 2**30), ("MB", 2**20), ("KB", 2**10)):
        if size >= worth:
            return f"{size / worth:.4g} {unit}"
    return f"{size} bytes"
