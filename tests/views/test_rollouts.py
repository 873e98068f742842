"""Tokens in colour, by hand: which colour, how strong, and nothing in the text is markup."""

import html
import re

import pandas as pd
import pytest

from workbench.views import figures
from workbench.views import rollouts as views


def grounds(markup):
    return re.findall(r"background: ([^\"]*)\"", markup)


def test_the_text_is_escaped_and_whole():
    pieces = ["<script>", 'alert("1")', " \n& 'x'\n", "日本", ""]
    markup = views.coloured(pieces, [0.0, 1.0, None, -1.0, float("nan")], figures.LIGHT)
    assert "<script" not in markup
    assert html.unescape(re.sub(r"<[^>]*>", "", markup)) == "".join(pieces)
    assert html.unescape(re.findall(r'title="([^"]*)"', markup)[1]) == 'alert("1"): 1.000'
    assert re.findall(r'title="([^"]*)"', markup)[2].endswith("–")
    assert markup.count("wb-newline") == 1


def test_signed_quantities_have_two_colours():
    """Blue #3b5bdb above zero, orange #c2571a below; the strongest is 0.6 at the largest magnitude, half of it at half.

    Of the magnitudes 0.5 and 1 the 98th percentile is 0.99: 0.6 * 0.5 / 0.99 = 0.303.
    """
    blue, orange = "59, 91, 219", "194, 87, 26"
    assert grounds(views.coloured("abcd", [2.0, -2.0, 1.0, 0.0])) == [
        f"rgba({blue}, 0.600)",
        f"rgba({orange}, 0.600)",
        f"rgba({blue}, 0.300)",
        f"rgba({blue}, 0.000)",
    ]
    assert grounds(views.coloured("ab", [-1.0, -0.5])) == [f"rgba({blue}, 0.600)", f"rgba({blue}, 0.303)"]
    assert grounds(views.coloured("ab", [-1.0, -1.0], signed=True)) == [f"rgba({orange}, 0.600)"] * 2
    assert grounds(views.coloured("a", [1.0], figures.DARK)) == ["rgba(141, 162, 251, 0.600)"]


@pytest.mark.parametrize("values", [[0.0, 0.0], [None, None], [float("inf"), float("nan")]])
def test_nothing_to_tell_has_no_colour(values):
    assert grounds(views.coloured("ab", values)) == ["transparent"] * 2
    assert "wb-scaled" in views.legend(values)


def test_one_outlier_does_not_pale_the_rest():
    strengths = [float(ground.split()[-1].rstrip(")")) for ground in grounds(views.coloured("a" * 101, [1.0] * 100 + [1000.0]))]
    assert strengths == [0.6] * 101


def test_values_and_pieces_are_as_many():
    with pytest.raises(ValueError, match="zip"):
        views.coloured(["a", "b"], [1.0])


def test_quantities_that_there_are():
    rollout = {
        "logprobs": [-1.0, -2.0],
        "rollout_logprobs": [-1.5, -2.0],
        "reference_logprobs": None,
        "kl": None,
        "advantages": [0.5, 0.5],
        "values": [],
    }
    assert {quantity.name: values for quantity, values in views.quantities(rollout).items()} == {
        "logprobs": [-1.0, -2.0],
        "advantages": [0.5, 0.5],
        "mismatch": [0.5, 0.0],
    }


SUMMARY = pd.DataFrame(
    {
        "step": [1, 2],
        "rollouts": [4, 4],
        "prompts": [2, 2],
        "rewarded": [4, 4],
        "reward_mean": [-0.5, 0.25],
        "reward_std": [1.0, 0.5],
        "length_mean": [10.0, 12.0],
    }
    | {"truncated": [0.5, 0.25], "kl_mean": [0.0, float("nan")], "weights_version": [0, 1]}
)


def test_figures():
    band, line = views.reward(SUMMARY).data
    assert list(band.y) == [0.5, 0.75, -0.25, -1.5]
    assert list(line.y) == [-0.5, 0.25]
    assert list(views.lengths(SUMMARY).data[0].y) == [10, 12]
    frame = pd.DataFrame({"step": [1, 1, 2], "reward": [0.0, 1.0, 3.0], "sample": [0, 1, 0]})
    assert list(views.followed(frame).data[0].y) == [0.5, 3.0]


def test_headline():
    shown = {figure.label: (figure.value, figure.note) for figure in views.headline(SUMMARY)}
    assert shown == {
        "Step": ("2", "weights 1"),
        "Rollouts": ("4", "to 2 prompts"),
        "Reward": ("0.2500", "± 0.500"),
        "Length": ("12.00", "tokens"),
        "Truncated": ("25%", "at max_tokens"),
    }
    assert views.headline(SUMMARY[:1])[2].value == "−0.5000"
    assert views.headline(SUMMARY[:1])[-1].value == "0"


def test_the_same_prompts_at_two_steps():
    """p1 has sample 1 at both; p2 only other samples; p3 is in one step alone."""
    before = pd.DataFrame({"prompt_id": ["p1", "p1", "p2"], "sample": [0, 1, 0], "response": ["a", "b", "c"]})
    after = pd.DataFrame({"prompt_id": ["p2", "p1", "p3"], "sample": [5, 1, 0], "response": ["C", "B", "D"]})
    assert [(old["response"], new["response"]) for old, new in views.paired(before, after)] == [("c", "C"), ("b", "B")]


def test_components():
    assert views.components({"reward": 1.0, "reward/exact": 0.5, "reward/format": None}) == {"exact": 0.5}


@pytest.mark.parametrize(
    ("prompt", "gist"),
    [
        ("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWhat is\n  2 + 2?<|im_end|>\n<|im_start|>assistant\n", "What is 2 + 2?"),
        ("<|user|>\nHello</s>\n<|assistant|>\n", "Hello"),
        ("<|start_header_id|>user<|end_header_id|>\n\nOne<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nTwo<|eot_id|>", "Two"),
        ("What does a user\nwant?", "What does a user want?"),
    ],
)
def test_gist(prompt, gist):
    assert views.gist(prompt) == gist
