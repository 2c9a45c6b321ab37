"""A teacher's codec with what it keeps once: arrays read from the store, or put there."""

from __future__ import annotations

from functools import lru_cache

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.storage_schemas import keys, npy
from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.codecs.registry import codec_from
from softcask.storage_schemas.errors import CorruptObject
from softcask.storage_schemas.manifest import CodecSpec, ObjectRecord, TeacherManifest

_MOST_ARRAY_BYTES = 4 << 30
_KEPT = 8


def load_codec(objects: StoreObjects, teacher: TeacherManifest, *, fresh: bool = False) -> Codec:
    """The codec of a stored teacher, ready to encode and decode.

    Its arrays are verified when they are read, and stay in memory: what becomes of their objects afterwards
    cannot change a number that is decoded by them, and is not seen either.

    Args:
        objects: The store.
        teacher: Whose codec.
        fresh: Read and verify its arrays now, though this process may hold them from before.

    Raises:
        UnknownKind: This softcask has no such codec.
        StoreError: Its configuration does not fit.
        CorruptObject: An array is gone or damaged; the message names it.
    """
    if not teacher.codec.arrays:
        return codec_from(teacher.codec)
    read = _with_arrays if fresh else _kept_with_arrays
    return read(objects, teacher.name, teacher.codec.model_dump_json())


def _with_arrays(objects: StoreObjects, name: str, spec_json: str) -> Codec:
    spec = CodecSpec.model_validate_json(spec_json)
    arrays = {}
    for array, record in spec.arrays.items():
        if record.size > _MOST_ARRAY_BYTES or not record.key.startswith(f"{keys.codec_folder(name)}/"):
            raise CorruptObject(
                f"teacher {name!r} of {objects.uri} names {record.key} of {record.size} bytes as its codec's "
                f"{array!r}; expected an object below {keys.codec_folder(name)}, of at most "
                f"{_MOST_ARRAY_BYTES} bytes"
            )
        arrays[array] = npy.from_bytes(objects.read_recorded(record), record.key)
    return codec_from(spec, arrays)


_kept_with_arrays = lru_cache(maxsize=_KEPT)(_with_arrays)


def publish_codec(objects: StoreObjects, teacher: str, codec: Codec) -> CodecSpec:
    """Put what a codec keeps once below its teacher, and return the spec that names it.

    Named by content: another fit does not touch these, and the same one finds them there.
    """
    records = {}
    for array, values in codec.arrays().items():
        data = npy.to_bytes(values)
        crc = ObjectRecord.of("", data).crc32c
        records[array] = record = ObjectRecord.of(keys.codec_array(teacher, array, crc), data)
        if not objects.publish(record.key, data) and objects.read(record.key) != data:
            objects.replace(record.key, data)
    return codec.to_spec().model_copy(update={"arrays": records})
