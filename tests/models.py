"""The tests' models are those of `workbench chaos`."""

from workbench.chaos.tiny import CHATML, SHAPE, TEXT, save, tokenizer

__all__ = ["CHATML", "SHAPE", "TEXT", "save", "tokenizer"]
