"""A format of rows: its schema and its parser, and its name among the settings."""

from __future__ import annotations

from typing import get_args

from workbench.data import formats
from workbench.settings import Data


def test_a_format_has_a_parser_a_schema_and_a_name_in_the_settings() -> None:
    assert formats.SCHEMAS.keys() == formats._PARSERS.keys()
    assert {"auto", *formats.SCHEMAS} == {*get_args(Data.model_fields["format"].annotation)}
