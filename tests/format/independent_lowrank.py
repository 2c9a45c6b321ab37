"""One row of codec `lowrank`, decoded as docs/format.md says; nothing of softcask is used."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def lowrank(
    config: Mapping[str, Any], arrays: Mapping[str, Any], row: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Logits of a row from its codec's configuration, the files of its arrays, and its columns by name."""
    arrays = {name: np.load(io.BytesIO(data)) for name, data in arrays.items()}
    limits, C, K = arrays["limits"].tolist(), config["num_classes"], config["head_size"]
    b, step = config["head_bits"], config["step"]
    if config["coder"] == "ans":
        words = np.frombuffer(row["coefficients"][0], "<u4").tolist() if limits else []
        codes = np.array(ans_codes(words, max(limits, default=1), arrays["deviations"].astype(float) / step))
    else:
        codes = np.array(packed_codes(in_bytes(row, "coefficients"), limits))
    moved = np.where(np.abs(codes) == 1, codes * arrays["ones"], codes * step)
    logits = arrays["mean"] + arrays["basis"].astype(np.float64) @ moved
    w, p = (C // K).bit_length() - 1, max(1, (K - 1).bit_length())
    bits, sizes = np.unpackbits(in_bytes(row, "head")), (K * w, K + (C >> w) + 1, p, 8, K * b)
    low, high, top, exponent, residuals, _ = np.split(bits, np.cumsum(sizes))
    classes = ((np.flatnonzero(high) - np.arange(K)) << w) + (fields(low, w) if w else 0)
    scale = 2.0 ** ((fields(exponent, 8)[0] - 128) / 8)
    logits[classes] += scale * (fields(residuals, b) - (2 ** (b - 1) - 1))
    top = classes[fields(top, p)[0] if K > 1 else 0]
    others = np.delete(logits, top).max()
    logits -= max(logits[top], others + max(abs(others), 1) * 2.0**-22)
    logits[top] = 0
    return logits


def in_bytes(row: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    words = [row[f"{name}.{w}"] for w in range(sum(each.startswith(f"{name}.") for each in row))]
    return np.concatenate([np.empty(0, "<i8"), *words]).astype("<i8").view(np.uint8)


def fields(bits: np.ndarray, width: int) -> np.ndarray:
    return bits.reshape(-1, width).astype(int) @ (1 << np.arange(width)[::-1])


def packed_codes(packed: np.ndarray, limits: list[int]) -> list[int]:
    digits = []
    for j, values in enumerate(2 * limit + 1 for limit in limits):
        digits += [(values, j, 1)] if values <= 256 else [(-(-values // 16), j, 16), (16, j, 1)]
    codes, at, product = [-limit for limit in limits], 0, 1
    for radix, j, worth in sorted(digits, key=lambda digit: -digit[0]):
        at, product = (at + 1, 1) if product * radix > 256 else (at, product)
        codes[j] += int(packed[at]) // product % radix * worth
        product *= radix
    return codes


def ans_codes(words: list[int], most: int, deviations: np.ndarray) -> list[int]:
    def begin(code: int, deviation: float) -> int:
        if code in (-most, most + 1):
            return 0 if code < 0 else 1 << 24
        share = (1 + math.erf((code - 0.5) / (deviation * math.sqrt(2)))) / 2
        return math.floor(((1 << 24) - 1 - 2 * most) * share) + code + most

    state, codes = 0, []
    while state < 1 << 32 and words:
        state = state << 32 | words.pop()
    for deviation in deviations:
        q = state % (1 << 24)
        code = next(code for code in range(-most, most + 1) if q < begin(code + 1, deviation))
        first = begin(code, deviation)
        state = (state >> 24) * (begin(code + 1, deviation) - first) + q - first
        if state < 1 << 32 and words:
            state = state << 32 | words.pop()
        codes.append(code)
    assert not words and not state
    return codes
