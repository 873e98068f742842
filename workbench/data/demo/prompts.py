"""The demo's prompts, written for this project: short questions that a small model can attempt."""

from __future__ import annotations

_FORMS = {
    "thing": ["What is {x}?", "Explain {x} to a child.", "Why is {x} useful?", "Name one interesting fact about {x}."],
    "how": ["How do I {x}?", "What do I need to {x}?", "Give me one tip to {x}.", "What is a common mistake when people {x}?"],
    "place": ["What is {x} known for?", "When is a good time to visit {x}?", "What should I eat in {x}?", "Describe {x} to a friend."],
    "choice": ["Should I {x}?", "What speaks for and against it when I {x}?", "Give me a reason to {x}.", "I want to {x}. What do you say?"],
    "write": [
        "Write a short greeting for {x}.",
        "Suggest a title for a story about {x}.",
        "Write one sentence about {x}.",
        "Make up a slogan for {x}.",
    ],
}

_TOPICS = {
    "thing": """gravity; a rainbow; photosynthesis; a volcano; electricity; a magnet; the moon; an earthquake; bread; a compass; recycling; a bicycle;
        the internet; a library; soap; a thermometer; yeast; coral; a battery; a glacier; honey; paper; a lighthouse; glass; a bridge; salt; a map;
        vaccination; a calendar; a submarine""",
    "how": """boil an egg; clean a window; learn a new language; fall asleep faster; remember names; plant tomatoes; fix a flat tyre; save money; write a
        letter; make tea; fold a shirt; pack a suitcase; train a dog; draw a face; study for an exam; bake a cake; swim better; start running; apologise;
        give a speech; ask for a raise; keep plants alive; clean a keyboard; calm down; wake up early; tie a tie; read more books; cook rice; choose a gift;
        take a good photo""",
    "place": """Paris; Kyoto; the Sahara; Iceland; New York; Venice; the Amazon; Cairo; Lisbon; the Alps; Sydney; Istanbul; Peru; Amsterdam; Nairobi; Rome;
        Vienna; Norway; Mexico City; the Nile; Bangkok; Edinburgh; Buenos Aires; Prague""",
    "choice": """buy a bicycle; keep a diary; adopt a cat; move to a big city; learn to play the piano; drink coffee at night; work from home; take a gap
        year; wear a helmet; eat breakfast every day; buy a used car; switch off my phone in the evening; join a choir; grow my own vegetables; learn chess;
        sleep with the window open; take the stairs; read the news every morning""",
    "write": """a birthday party; a rainy day; an old dog; a new bakery; the first snow; a lost key; a long train journey; a quiet village; a brave mouse;
        a school concert; the end of summer; a night market; a garden; a storm at sea; a secret door; a football match; a grandmother; a robot""",
}


def prompts() -> list[str]:
    """All of them, in a fixed order."""
    return [form.format(x=" ".join(topic.split())) for kind, forms in _FORMS.items() for topic in _TOPICS[kind].split(";") for form in forms]
