"""How much comes out of a compressed file, against what was put in."""

from __future__ import annotations

from workbench.data.limits import FREE_BYTES
from workbench.settings.sources import DataError


class Growth:
    """Counts bytes that a file gave, and refuses one that expands beyond `limit` times what was read of it; without a limit it only counts."""

    def __init__(self, limit: int | None):
        self.limit, self.given = limit, 0

    def check(self, given: int, read: int, where: str) -> None:
        """So many more bytes were given, and so many read of the file in all.

        Raises:
            DataError: it expands too much; the message names the row, and the setting that allows it.
        """
        self.given += given
        if self.limit is not None and self.given > max(FREE_BYTES, self.limit * read):
            raise DataError(
                f"{where}: up to here {read:,} compressed bytes became {self.given:,} in memory, more than {self.limit} times as many: such a file fills"
                f" the memory on purpose. If you trust it, set data.max_expansion above {self.given // max(1, read)}"
            )
