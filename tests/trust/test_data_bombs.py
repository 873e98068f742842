"""Small files that grow without end, and templates that never return: refused with the place, the reason and the way out, in bounded time and memory."""

from __future__ import annotations

import gzip
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import models
from workbench.chaos.tiny import CHATML
from workbench.data import decoding, growth, limits, templating
from workbench.data.chat import Chat, Encoded
from workbench.data.limits import Limits
from workbench.data.readers import DataError, read
from workbench.data.rows import Conversation, Malformed, Message
from workbench.data.template import Template
from workbench.data.template_process import Rendering
from workbench.jobs.data import check_data

MB, GB = 1 << 20, 1 << 30
GOOD = {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}
TOKENIZER = models.tokenizer()
TURNS = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Growth is looked at from the first megabyte, so that the bombs can be small."""
    monkeypatch.setattr(growth, "FREE_BYTES", MB)


def of_many_lines(folder: Path) -> tuple[Path, str]:
    """A million equal rows in 40 kB."""
    path = folder / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(f"{json.dumps(GOOD)}\n".encode() * 200_000))
    return path, r"rows\.jsonl\.gz:\d+: up to here [\d,]+ compressed bytes became .*data\.max_expansion above \d+"


def of_one_line(folder: Path) -> tuple[Path, str]:
    """A line of 64 MB in 64 kB: it is not read to its end."""
    path = folder / "line.jsonl.gz"
    path.write_bytes(gzip.compress(b"[" * 64 * MB))
    return path, r"line\.jsonl\.gz:1: up to here .*data\.max_expansion above"


def of_many_rows(folder: Path) -> tuple[Path, str]:
    """Two million rows in 2 kB of run lengths and a dictionary of one entry."""
    path = folder / "rows.parquet"
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 2_000_000, pa.int8()), pa.array(["text"])).cast(pa.string())
    pq.write_table(pa.table({"prompt": column}), path, compression="zstd")
    return path, r"rows\.parquet:\d+: up to here [\d,]+ compressed bytes became"


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("bomb", [of_many_lines, of_one_line, of_many_rows], ids=lambda bomb: bomb.__name__)
def test_a_small_file_does_not_grow_without_end(tmp_path: Path, bomb: Callable[[Path], tuple[Path, str]]) -> None:
    """Leaving bad rows out leaves no bomb in."""
    path, said = bomb(tmp_path)
    assert path.stat().st_size < 256 << 10
    with pytest.raises(DataError, match=said):
        read(str(path), "prompt", on_bad_row="skip")


@pytest.mark.usefixtures("strict")
def test_whoever_trusts_a_file_says_so(tmp_path: Path) -> None:
    path, _ = of_many_lines(tmp_path)
    assert len(read(str(path), "preference", limit=50_000, limits=Limits(expansion=100_000)).rows) == 50_000


@pytest.mark.usefixtures("strict")
def test_a_large_file_of_ordinary_text_is_read(tmp_path: Path) -> None:
    """No limit is on the size: 20 MB of rows that differ, of which gzip makes a sixth."""
    path = tmp_path / "rows.jsonl.gz"
    rows = (json.dumps({"prompt": f"{i} + {j}?" * 20, "chosen": str(i + j), "rejected": str(i * j)}) for i in range(200) for j in range(400))
    path.write_bytes(gzip.compress("\n".join(rows).encode(), 1))
    assert len(read(str(path), "preference").rows) == 80_000


def test_a_parquet_file_of_large_cells_stays_in_its_process(tmp_path: Path) -> None:
    """3 GB in 100 kB, by a dictionary whose only entry is 4 MB. Reading is over with an error, and this process holds none of it."""
    path = tmp_path / "cells.parquet"
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 800, pa.int32()), pa.array(["x" * (4 * MB)]))
    pq.write_table(pa.table({"prompt": column}), path, compression="zstd")
    assert path.stat().st_size < 2 * MB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=r"cells\.parquet:.*(GiB of memory; raise data\.reader_memory_gb|data\.max_expansion)"):
        read(str(path), "prompt", on_bad_row="skip", limits=Limits(memory_bytes=512 * MB))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 * 1024  # KiB


def test_a_row_beyond_the_limit_is_malformed(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"prompt": ["x" * 2 * MB, "2 + 2?"]}), path)
    rows = read(str(path), "prompt", on_bad_row="skip", limits=Limits(row_bytes=MB))
    assert [row.where for row in rows.rows] == [f"{path}:2"]
    assert str(rows.bad[0]) == f"{path}:1: expected a row of at most 1 MiB (data.max_row_mb); found 2.0 MiB"


def test_a_reader_that_dies_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a decoder does that a file has crashed, or that its limit on processor time ended."""
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"prompt": ["2 + 2?"]}), path)
    dying = 'import os, signal, sys; sys.stdin.read(); print(\'+{"prompt": "x"}\', flush=True); os.kill(os.getpid(), signal.SIGXCPU)'
    monkeypatch.setattr(subprocess, "Popen", _instead(dying))
    with pytest.raises(DataError, match=r"rows\.parquet: decoding it stopped after 1 rows: it took more than 60 s of processor time"):
        list(decoding.parquet_rows(path, Limits()))


def _instead(code: str) -> Callable[..., subprocess.Popen[bytes]]:
    start = subprocess.Popen
    return lambda command, **options: start([sys.executable, "-c", code], **options)


def test_values_that_json_has_not(tmp_path: Path) -> None:
    """A column of bytes is no text, as before."""
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"prompt": [b"2 + 2?"]}), path)
    with pytest.raises(DataError, match=r"found NotJson bytes b'2 \+ 2\?'"):
        read(str(path), "prompt")


def test_many_bad_rows_are_counted_and_few_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + "x\n" * 30_000 + json.dumps({"y" * 100_000: 1}) + "\n")
    rows = read(str(path), "preference", on_bad_row="skip")
    assert (len(rows.rows), rows.num_bad, len(rows.bad)) == (1, 30_001, 1000)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"prompt": ' + '{"a":' * 100_000, "1" * 1_000_000], ids=["brackets", "objects", "digits"])
def test_deep_json_is_malformed(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text + "\n" + json.dumps(GOOD) + "\n")
    rows = read(str(path), "preference", on_bad_row="skip")
    assert (len(rows.rows), rows.bad[0].where) == (1, f"{path}:1")


RENDERING: Rendering = {"messages": TURNS, "add_generation_prompt": False, "tools": None, "variables": {}, "mark_generation": False}
TEMPLATES = {
    "loops": ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "1 s of processor time"),
    "product": ('{{ "a" * 10**10 }}', "MemoryError"),
    "doubling": ('{% set n = namespace(s="ab") %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}', "MemoryError"),
    "format": ('{{ "%10000000000d" | format(1) }}', "Error"),
    "long": ('{{ "a" * 10**7 }}', r"it writes 10,000,000 characters for [\d,]+ at most"),
    "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
    "way out of the sandbox": ("{{ ().__class__.__base__.__subclasses__() }}", "SecurityError"),
    "a name beneath": ('{{ namespace(__class__="x") }}', "SecurityError"),
    "no template": ("{% for %}", "TemplateSyntaxError"),
}


@pytest.mark.parametrize(("template", "said"), TEMPLATES.values(), ids=TEMPLATES)
def test_a_template_is_refused(template: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, which the next template finds well again."""
    monkeypatch.setattr(templating, "RENDER_CPU_S", 1)
    tokenizer = models.tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(ValueError, match=rf"the chat template of the tokenizer is refused: .*{said}.*put a chat_template\.jinja without that"):
        Template(tokenizer)
    assert templating.render("{{ messages | length }}", [RENDERING], {}, "someone/model") == ["2"]


def test_rows_that_make_a_template_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad row, whatever stands beside it; where there are many such rows the template is refused."""
    monkeypatch.setattr(templating, "RENDER_CPU_S", 1)
    tokenizer = models.tokenizer()
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    tokenizer.chat_template = f"{{% if 'loop' in messages[0].content %}}{loop}{{% endif %}}{CHATML}"
    talks = [Conversation((Message("user", text), Message("assistant", "Yes"))) for text in ("a", "loop", "b")]
    good, bad, other = Chat(tokenizer).encode(talks)
    assert isinstance(good, Encoded) and isinstance(other, Encoded) and isinstance(bad, Malformed)
    assert "1 s of processor time" in bad.args[1]
    monkeypatch.setattr(templating, "TIMEOUTS", 1)
    with pytest.raises(ValueError, match="the chat template of the tokenizer is refused: it was ended 1 times"):
        Chat(tokenizer).encode(talks)


LLAMA = """{{- bos_token }}{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system = "" %}{%- endif %}
{%- for m in messages %}
    {%- if loop.first and system %}{{- "<|sys|>" + system + "\n" }}{%- endif %}
    {{- '<|' + m['role'] + '|>\n' + (m.content | trim) + eos_token }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\n' }}{%- endif %}"""
OTHERS = {
    "chatml": CHATML,
    "llama": LLAMA,
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}"
    "{% endif %}\n{% endfor %}",
    "loop controls": "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m | tojson(indent=2) }}{% endfor %}",
    "tools and documents": "{% if tools is none and not documents %}{{ messages | tojson }}{% endif %}{{ dict(a=1) }}{{ namespace(b=2).b }}",
    "date": "{{ strftime_now('%Y') }}{{ messages[-1].content }}",
    "blocks": "  {% if true %}\n  x\n  {% endif %}\n{# y #}\nz\n",
}


@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize("template", OTHERS.values(), ids=OTHERS)
def test_templates_give_what_transformers_gives(template: str, prompt: bool) -> None:
    """To the character."""
    tokenizer = models.tokenizer()
    tokenizer.chat_template = template
    expected = tokenizer.apply_chat_template(TURNS, tokenize=False, add_generation_prompt=prompt)
    names = {name: str(value) for name, value in tokenizer.special_tokens_map.items()}
    assert templating.render(template, [{**RENDERING, "add_generation_prompt": prompt}], names, "") == [expected]


def test_a_check_has_limits(tmp_path: Path, tiny_model: Path) -> None:
    """Of memory and of time, and it can be stopped; whoever asks goes on."""
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n" * 10)
    assert check_data(str(path), "preference", model=str(tiny_model), stopped=lambda: False).rows == 10
    with pytest.raises(ValueError, match=r"rows\.jsonl: .*; `workbench data check --memory` gives it more"):
        check_data(str(path), "preference", model=str(tiny_model), max_memory_gb=0.06)
    with pytest.raises(ValueError, match=r"takes more than 0\.01 s; `workbench data check --timeout` gives it longer"):
        check_data(str(path), "preference", model=str(tiny_model), timeout_s=0.01)
    with pytest.raises(ValueError, match=r"rows\.jsonl: the check was stopped"):
        check_data(str(path), "preference", model=str(tiny_model), stopped=lambda: True)


def test_limits_are_lowered_and_never_raised() -> None:
    """What started this process may have set a lower one."""
    code = (
        "import resource; from workbench.data import limits; resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30));"
        "limits.of_memory(8 << 30); print(resource.getrlimit(resource.RLIMIT_DATA)[0] == 1 << 30)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"


def test_processor_time_begins_anew() -> None:
    used = resource.getrlimit(resource.RLIMIT_CPU)
    try:
        limits.processor_time(1000)
        first = resource.getrlimit(resource.RLIMIT_CPU)[0]
        limits.processor_time(2000)
        assert resource.getrlimit(resource.RLIMIT_CPU)[0] >= first + 1000
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, used)
