"""A rollout as a rank writes it."""

import numpy as np


def record(response="It is four.", prompt="What is 2 + 2?", **changes):
    pieces = response.split(" ")
    count = len(pieces)
    return {
        "prompt_id": "sum",
        "sample": 0,
        "prompt": prompt,
        "response": response,
        "prompt_tokens": 6,
        "response_tokens": count,
        "pieces": pieces,
        "tokens": list(range(count)),
        "logprobs": np.full(count, -0.5, np.float32),
        "kl": [0.25] * count,
        "reward": 1.0,
        "finish_reason": "stop",
        "weights_version": 3,
        **changes,
    }
