"""`run.rollouts`: every answer that a run sampled, as a table that is read when it is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from workbench.rundir import rollouts
from workbench.rundir.rollouts import HEAVY, Rollout
from workbench.rundir.store import RunDir
from workbench.views import pictures, text
from workbench.views import rollouts as views

if TYPE_CHECKING:
    import pandas as pd

    from workbench.notebook.widgets.rollouts import Rollouts

SHOWN = 5
SHOWN_CHARACTERS = 120


@dataclass(frozen=True)
class RolloutTable:
    """The rollouts of a run, lazily: nothing is read before `df`, `len`, a loop or a picture asks for it. DuckDB reads the run's Parquet files.

    >>> best = run.rollouts.where("finish_reason = 'stop'").sort("reward", descending=True)
    >>> best.df(2)[["step", "finish_reason"]].shape
    (2, 2)
    >>> run.rollouts.sql("SELECT step, count(*) AS answers FROM rollouts GROUP BY step ORDER BY step")["answers"].tolist()
    [16, 16]
    """

    dir: RunDir
    conditions: tuple[str, ...] = ()
    order: tuple[str, ...] = ()

    def where(self, condition: str) -> RolloutTable:
        """Only those that fulfil an SQL condition too: `"reward > 0.5 AND finish_reason = 'stop'"`."""
        return replace(self, conditions=(*self.conditions, condition))

    def sort(self, column: str, descending: bool = False) -> RolloutTable:
        """In the order of a column, before any order given earlier. Raises ValueError for a column that there is not."""
        if column not in self.columns:
            raise ValueError(f"rollouts have no column {column!r}; there are: {', '.join(self.columns)}")
        quoted = '"' + column.replace('"', '""') + '"'
        return replace(self, order=(f"{quoted} {'DESC' if descending else 'ASC'} NULLS LAST", *self.order))

    @property
    def columns(self) -> list[str]:
        """What a row has, without the arrays that have one value a token."""
        return rollouts.columns(self.dir)

    @property
    def steps(self) -> list[int]:
        """The steps whose rollouts can be read, ascending."""
        return rollouts.steps(self.dir)

    def df(self, limit: int | None = None, tokens: bool = False) -> pd.DataFrame:
        """The rows, by step and number where no order was given.

        Args:
            limit: the first rows only.
            tokens: also the arrays with one value a token: pieces, logprobs, advantages, …

        Raises:
            ValueError: a condition that DuckDB refuses.
        """
        columns = "*" if tokens else f"* EXCLUDE ({', '.join(HEAVY)})"
        order = ", ".join((*self.order, "step", "rollout"))
        return self.sql(f"SELECT {columns} FROM rollouts ORDER BY {order}{'' if limit is None else f' LIMIT {int(limit)}'}")

    def sql(self, text: str) -> pd.DataFrame:
        """What a SELECT gives whose table `rollouts` has these rows, with their arrays. Raises ValueError for what DuckDB refuses.

        Settings of DuckDB, and other files and frames, are a notebook's own: `duckdb.sql("SELECT … FROM frame")` after `df()`.
        """
        return rollouts.query(self.dir, text, self.conditions)

    def one(self, step: int, rollout: int) -> Rollout:
        """A rollout with its arrays. Raises ValueError where there is none."""
        row = rollouts.one(self.dir, step, rollout)
        if row is None:
            raise ValueError(f"run {self.dir.id} has no rollout {rollout} of step {step}; steps: {_span(self.steps)}")
        return row

    def summary(self) -> pd.DataFrame:
        """One row a step: rollouts, prompts, mean reward and its deviation, mean length, share of truncated answers, KL."""
        return rollouts.summary(self.dir)

    def widget(self) -> Rollouts:
        """To search, sort and read, with the tokens in colour."""
        from workbench.jobs.runs import Run
        from workbench.notebook.widgets.rollouts import Rollouts

        return Rollouts(Run(self.dir))

    def __len__(self) -> int:
        return int(self.sql("SELECT count(*) AS n FROM rollouts").to_dict("records")[0]["n"])

    def __iter__(self) -> Iterator[dict[str, object]]:
        for row in self.df().to_dict("records"):
            yield {str(name): value for name, value in row.items()}

    def __repr__(self) -> str:
        which = f" where {' and '.join(self.conditions)}" if self.conditions else ""
        return f"{len(self):,} rollouts of {self.dir.id}{which}; steps {_span(self.steps)}; columns: {', '.join(self.columns)}"

    def _repr_html_(self) -> str:
        rows = []
        for row in self.df(SHOWN).to_dict("records"):
            shown = {"step": row["step"], "prompt": views.gist(row["prompt"])[:SHOWN_CHARACTERS], "response": row["response"][:SHOWN_CHARACTERS]}
            reward = row.get("reward")
            rows.append({**shown, "reward": "" if reward is None else text.number(reward), "ended": row["finish_reason"]})
        return pictures.table(rows, repr(self))


def _span(steps: list[int]) -> str:
    return "none" if not steps else str(steps[0]) if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
