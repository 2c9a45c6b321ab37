"""Codecs by name. A store may name built-in ones only: nothing is loaded because a store says so."""

from __future__ import annotations

from softcask.storage_schemas.codecs.base import Arrays, Codec
from softcask.storage_schemas.codecs.dense8 import Dense8
from softcask.storage_schemas.codecs.dense16 import Dense16
from softcask.storage_schemas.codecs.lowrank.codec import Lowrank
from softcask.storage_schemas.codecs.topk import TopK
from softcask.storage_schemas.errors import UnknownKind
from softcask.storage_schemas.manifest import CodecSpec

_BUILT_IN: tuple[type[Codec], ...] = (Dense16, Dense8, TopK, Lowrank)
CODECS: dict[str, type[Codec]] = {codec.name: codec for codec in _BUILT_IN}


def codec_named(name: str) -> type[Codec]:
    """The codec class called `name`.

    Raises:
        UnknownKind: No such codec; the message lists the known ones.
    """
    if name not in CODECS:
        raise UnknownKind(f"unknown codec {name!r}; known codecs: {', '.join(sorted(CODECS))}")
    return CODECS[name]


def codec_from(spec: CodecSpec, arrays: Arrays | None = None) -> Codec:
    """The codec that a manifest describes; see `Codec.from_spec`.

    Raises:
        UnknownKind: No such codec.
        StoreError: Its configuration does not fit.
    """
    return codec_named(spec.name).from_spec(spec, arrays)
