"""A folder that is somebody's: a run's or a pipeline's."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from workbench.rundir import opening
from workbench.rundir.opening import ReadOnly


@dataclass(frozen=True)
class OwnedFolder:
    """A folder with its owner; its name is its id."""

    path: Path
    id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", self.path.name)

    @property
    def owner(self) -> str:
        """The name of the user whose it is."""
        return opening.user(opening.owner_of(self.path))

    @property
    def read_only(self) -> str:
        """Why this user cannot change it: it is another's, or its disk is mounted read-only; empty where they can."""
        return opening.why_read_only(self.path)

    def check_writable(self) -> None:
        """Raises ReadOnly where this user cannot change it."""
        if reason := self.read_only:
            raise ReadOnly(self.path, reason)


Folder = TypeVar("Folder", bound=OwnedFolder)


@dataclass(frozen=True)
class Handle(Generic[Folder]):
    """What is done with such a folder goes through one of these."""

    dir: Folder

    @property
    def id(self) -> str:
        return self.dir.id

    @property
    def owner(self) -> str:
        """The name of the user whose it is."""
        return self.dir.owner

    @property
    def read_only(self) -> str:
        """Why this user cannot change it; empty where they can."""
        return self.dir.read_only
