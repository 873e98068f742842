"""Arrays in a sealed box: what passes between a client and a server, through whatever lies between them.

Triton keeps requests and answers in shared memory that every user of the machine can read, and copies them several times. So it carries
AES-256-GCM (NIST SP 800-38D) under the server's key, which only the two ends know: others read nothing, change nothing, and answer nothing.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import secrets
from dataclasses import dataclass

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from workbench.models.endpoint import Arrays

KEY_BYTES, NONCE_BYTES, TAG_BYTES = 32, 12, 16
ALIGNED = 16


class NotSealed(ValueError):
    """The box was not closed with this key for this purpose, or was damaged."""


def new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


@dataclass(frozen=True)
class Box:
    """Sealed arrays. `data` is [bytes] of uint8; `nonce` is what an answer to it is bound to."""

    data: np.ndarray

    @property
    def nonce(self) -> bytes:
        return self.data[:NONCE_BYTES].tobytes()


def close(key: bytes, purpose: str, arrays: Arrays, question: bytes = b"") -> Box:
    """The arrays in a box for one purpose. An answer names the nonce of its `question`."""
    nonce = os.urandom(NONCE_BYTES)
    sealed = AESGCM(key).encrypt(nonce, _pack(arrays), _context(purpose, question))
    return Box(np.frombuffer(nonce + sealed, np.uint8))


def unseal(key: bytes, purpose: str, box: Box, question: bytes = b"") -> Arrays:
    """The arrays of a box.

    Raises:
        NotSealed: another key, purpose or question, or not a byte as it was.
    """
    data = np.ascontiguousarray(box.data).data
    if len(data) < NONCE_BYTES + TAG_BYTES:
        raise NotSealed(f"a box has at least {NONCE_BYTES + TAG_BYTES} bytes, got {len(data)}")
    try:
        return _unpack(AESGCM(key).decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], _context(purpose, question)))
    except InvalidTag:
        raise NotSealed("the box does not open with this key: it is of another server or request, or was damaged") from None


def _context(purpose: str, question: bytes) -> bytes:
    return f"workbench {purpose} ".encode() + question


def _pack(arrays: Arrays) -> bytes:
    """A line of JSON with names, types and shapes, then the arrays' bytes one after another, each from a multiple of ALIGNED bytes; of texts their lengths stand in place of the type."""
    head: list[object] = []
    parts: list[bytes | memoryview] = []
    for name, array in arrays.items():
        if array.dtype.kind in "SO":
            texts = [bytes(text) for text in array.flat]
            head.append([name, [len(text) for text in texts], list(array.shape)])
            content: bytes | memoryview = b"".join(texts)
        else:
            head.append([name, array.dtype.str, list(array.shape)])
            content = np.ascontiguousarray(array).data
        parts += [content, bytes(-memoryview(content).nbytes % ALIGNED)]
    line = json.dumps(head).encode()
    return b"".join([line, b" " * (-(len(line) + 1) % ALIGNED), b"\n", *parts])


def _unpack(content: bytes) -> Arrays:
    data = bytearray(content)  # its bytes can be written, as torch wants of an array
    end = data.index(b"\n")
    arrays: Arrays = {}
    at = end + 1
    for name, kind, shape in json.loads(data[:end]):
        if isinstance(kind, str):
            arrays[name] = np.frombuffer(data, np.dtype(kind), math.prod(shape), at).reshape(shape)
            size = arrays[name].nbytes
        else:
            starts = itertools.accumulate(kind, initial=at)
            texts = np.empty(len(kind), object)
            texts[:] = [bytes(data[start : start + length]) for start, length in zip(starts, kind, strict=False)]
            arrays[name] = texts.reshape(shape)
            size = sum(kind)
        at += size + -size % ALIGNED
    return arrays
