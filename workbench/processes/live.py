"""The algorithm's settings during the run: some may be changed, and what was changed is part of every checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from workbench.settings import AlgorithmConfig

C = TypeVar("C", bound=AlgorithmConfig)


class LiveSettings(Generic[C]):
    """`now` is the settings as they are; `use` is called whenever they change."""

    def __init__(self, given: C, use: Callable[[C], None]):
        self.now = given
        self._given, self._use = given, use

    def set(self, **values: object) -> None:
        """Change settings from the next use on. Raises ValidationError for a value out of bounds."""
        self.now = type(self._given).model_validate({**self.now.model_dump(), **values})
        self._use(self.now)

    def change(self, values: Mapping[str, object]) -> None:
        """As `set`, for the run's owner.

        Raises:
            ValueError: a setting that cannot be changed during the run, or a value out of bounds.
        """
        wrong = [name for name in values if name not in self.now.live]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} cannot be changed during the run; these can: {', '.join(self.now.live)}")
        self.set(**values)

    @property
    def live(self) -> dict[str, object]:
        """The settings that may be changed, as they are now."""
        return {name: getattr(self.now, name) for name in self.now.live}

    def state_dict(self) -> dict[str, Sequence[object]]:
        """The settings that are no longer what was given: (given, now) of each."""
        given, now = (settings.model_dump(mode="json") for settings in (self._given, self.now))
        return {name: (given[name], now[name]) for name in now if given[name] != now[name]}

    def load_state_dict(self, state: Mapping[str, Sequence[object]]) -> None:
        """Make changes again, but those of a setting that was now given another value."""
        given = self._given.model_dump(mode="json")
        self.set(**{name: now for name, (then, now) in state.items() if given.get(name) == then})
