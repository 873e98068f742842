"""Events as a run writes them."""


def step(number, at, **metrics):
    return {"kind": "step", "time": at, "step": number, "metrics": metrics}
