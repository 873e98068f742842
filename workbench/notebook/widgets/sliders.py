"""`wb.AttributeSliders`: attributes of a served checkpoint as sliders, and its answers as they come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from workbench.notebook.widgets.studio import Answer, Studio

if TYPE_CHECKING:
    import pandas as pd


class AttributeSliders(Studio):
    """The app's Steer panel: sliders, answers token by token, several checkpoints and settings side by side, sweeps, presets.

    >>> sliders = wb.steer("steerlm")  # doctest: +SKIP
    >>> print(sliders.ask("What is a map?", {"verbosity": 0}))  # doctest: +SKIP
    >>> sliders.sweep("What is a map?", "verbosity")  # doctest: +SKIP
    """

    kind: Literal["steer", "chat"] = "steer"

    @property
    def attributes(self) -> dict[str, tuple[int, ...]]:
        """The first model's attributes with their levels; none for one that was not trained with any."""
        return self._levels(self.models[0])

    def ask(
        self, prompt: str, attributes: Mapping[str, float] | None = None, model: str | None = None, system: str = "", **sampling: object
    ) -> Answer:
        """One answer, once it is there.

        Args:
            attributes: what it is asked for; an attribute that is not named is left free.
            model: which of `models`; the first without one.
            sampling: `max_tokens`, `temperature`, `top_p`, `seed`.

        Raises:
            ValueError: no such model or attribute, or the endpoint does not answer.
        """
        (answer,) = self.asked([self.question("ask", _turns(prompt, system), model, attributes or {}, sampling)])
        return answer

    def sweep(
        self,
        prompt: str,
        attribute: str,
        attributes: Mapping[str, float] | None = None,
        model: str | None = None,
        system: str = "",
        **sampling: object,
    ) -> pd.DataFrame:
        """One answer a level of an attribute, the others as given: a row each with `requested`, `measured`, `words`, `response`.

        Raises ValueError as `ask` does.
        """
        import pandas as pd

        levels = self._levels(model or self.models[0])
        if attribute not in levels:
            raise ValueError(f"the model has no attribute {attribute!r}; it has: {', '.join(levels) or 'none'}")
        settings = [{**(attributes or {}), attribute: float(level)} for level in levels[attribute]]
        questions = [self.question(f"level-{n}", _turns(prompt, system), model, setting, sampling) for n, setting in enumerate(settings)]
        rows = [
            {
                "requested": answer.requested[attribute],
                "measured": (answer.measured or {}).get(attribute),
                "words": len(answer.text.split()),
                "response": answer.text,
            }
            for answer in self.asked(questions)
        ]
        return pd.DataFrame(rows)

    def _levels(self, model: str) -> dict[str, tuple[int, ...]]:
        targets = next((each.model.targets for each in self.served if each.model.id == model), None)
        return dict.fromkeys(targets.steering.attributes, targets.steering.levels) if targets else {}


def _turns(prompt: str, system: str) -> list[dict[str, str]]:
    return [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": prompt}]
