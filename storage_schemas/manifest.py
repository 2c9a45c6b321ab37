"""The JSON documents of a store: what each holds, and how each checks itself.

A manifest is text that a person can read. Its last field is the CRC-32C of the whole file with that field's
digits as zeros, so that any changed byte is found, whatever fields a later version adds. Manifests hold no
time, no host and no path of the machine that wrote them (those under `runs/` apart): equal inputs give equal
bytes.
"""

from __future__ import annotations

import itertools
import json
import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from softcask.storage_schemas import keys
from softcask.storage_schemas.checksum import crc32c_hex
from softcask.storage_schemas.errors import CorruptObject, FormatTooNew

FORMAT_VERSION = 1

Name = Annotated[str, Field(pattern=keys.NAME_PATTERN)]
Count = Annotated[int, Field(ge=0, lt=2**48)]
Crc = Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]

_CHECKSUM = re.compile(rb'"checksum": "crc32c:([0-9a-f]{8})"\n}\n\Z')
_ZEROS = b"00000000"
_MOST_LEVELS = 32

MOST_BYTES = 64 << 20
"""Of a document."""


def later(default: Any) -> Any:
    """A field that documents of before lack: left out where it holds its default.

    So they keep their bytes, and what is derived from them (checksums of receipts, metadata of arrays) too.
    """
    return Field(default, exclude_if=lambda value: value == default)


def _not_too_deep(value: Any, levels: int = _MOST_LEVELS) -> Any:
    if isinstance(value, dict | list | tuple):
        if not levels:
            raise ValueError(f"nested more than {_MOST_LEVELS} levels deep")
        for each in value.values() if isinstance(value, dict) else value:
            _not_too_deep(each, levels - 1)
    return value


Facts = Annotated[dict[str, Any], AfterValidator(_not_too_deep)]
"""Anything that JSON can hold."""


class Part(BaseModel):
    """Base of everything inside a manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Manifest(Part):
    """Base of the documents: to bytes and back, self-checked."""

    format_version: Literal[1] = 1
    softcask: ClassVar[str]

    def to_bytes(self) -> bytes:
        """UTF-8 JSON with a trailing checksum; equal manifests give equal bytes."""
        body = {"softcask": self.softcask, **self.model_dump(mode="json"), "checksum": "crc32c:00000000"}
        data = (json.dumps(body, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
        head, _, tail = data.rpartition(_ZEROS)
        return head + crc32c_hex(data).encode() + tail

    @classmethod
    def from_bytes(cls, data: bytes, key: str) -> Self:
        """The manifest in `data`.

        Args:
            data: A whole document.
            key: Name of the object, for messages.

        Raises:
            FormatTooNew: Written by a newer format than this softcask knows, or with fields that it does not.
            CorruptObject: Not JSON, checksum wrong, another document, or fields that do not fit.
        """
        body = _parse(data, key)
        # The checksum first: a flipped bit in the version must not send anybody to upgrade.
        match = _CHECKSUM.search(data)
        if match is not None:
            _check_sum(data, match, key)
        _check_version(body, key)
        if match is None:
            raise CorruptObject(f"{key} has no checksum at its end; it was cut short or edited")
        if body.pop("softcask", None) != cls.softcask:
            raise CorruptObject(f"{key} is not a softcask {cls.softcask} document")
        body.pop("checksum")
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            if unknown := _unknown_fields(error):
                raise FormatTooNew(
                    f"{key} is whole and holds fields that this softcask does not know: "
                    f"{', '.join(unknown)}. It was made by a newer one: upgrade softcask to read this store; "
                    "nothing was changed."
                ) from error
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise CorruptObject(
                f"{key} does not hold what a {cls.softcask} document must: {problems}"
            ) from error


def format_version_of(data: bytes, key: str) -> int:
    """Format version of any document, its checksum verified and its fields left alone.

    Raises:
        FormatTooNew: It is newer than this softcask knows.
        CorruptObject: Not JSON, its checksum is wrong, or it has no version.
    """
    body = _parse(data, key)
    if (match := _CHECKSUM.search(data)) is not None:
        _check_sum(data, match, key)
    _check_version(body, key)
    version = body.get("format_version")
    if match is None or not isinstance(version, int):
        raise CorruptObject(f"{key} has no format version or no checksum; it was cut short or edited")
    return version


def _unknown_fields(error: ValidationError) -> list[str]:
    """Fields that no model has, if that is all that is wrong."""
    found = error.errors()
    if any(problem["type"] != "extra_forbidden" for problem in found):
        return []
    return [".".join(map(str, problem["loc"])) for problem in found]


def _parse(data: bytes, key: str) -> dict[str, Any]:
    if len(data) > MOST_BYTES:
        raise CorruptObject(f"{key} has {len(data)} bytes; a manifest has at most {MOST_BYTES}")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptObject(f"{key} is not readable JSON: {error}") from error
    if not isinstance(body, dict):
        raise CorruptObject(f"{key} holds a {type(body).__name__}, expected a JSON object")
    return body


def _check_version(body: dict[str, Any], key: str) -> None:
    version = body.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise FormatTooNew(
            f"{key} has format version {version}; this softcask reads versions up to {FORMAT_VERSION}. "
            "Upgrade softcask to read this store; nothing was changed."
        )


def _check_sum(data: bytes, match: re.Match[bytes], key: str) -> None:
    blank = data[: match.start(1)] + _ZEROS + data[match.end(1) :]
    if (found := crc32c_hex(blank)) != match[1].decode():
        raise CorruptObject(
            f"{key} has CRC-32C {found}, but says {match[1].decode()}; its bytes were changed"
        )


class ObjectRecord(Part):
    """One object as committed: where, how long, and its CRC-32C."""

    key: str
    size: Count
    crc32c: Crc

    @classmethod
    def of(cls, key: str, data: bytes) -> Self:
        """The record of `data` under `key`."""
        return cls(key=key, size=len(data), crc32c=crc32c_hex(data))

    def check(self, data: bytes) -> bytes:
        """`data` itself if it is what was committed.

        Raises:
            CorruptObject: Another length or checksum; names the object.
        """
        if len(data) != self.size:
            raise CorruptObject(
                f"{self.key} has {len(data)} bytes, committed with {self.size}; it is damaged"
            )
        if (found := crc32c_hex(data)) != self.crc32c:
            raise CorruptObject(
                f"{self.key} has CRC-32C {found}, committed with {self.crc32c}; it is damaged"
            )
        return data


def _each_once(records: tuple[ObjectRecord, ...]) -> tuple[ObjectRecord, ...]:
    if len({record.key for record in records}) < len(records):
        raise ValueError("an object is recorded more than once")
    return records


Records = Annotated[tuple[ObjectRecord, ...], AfterValidator(_each_once)]
"""Of different objects."""


class CodecSpec(Part):
    """A codec as a store names it: enough to decode without a student's config.

    Attributes:
        name: Kind of codec.
        configuration: Its parameters.
        container: Where its columns lie.
        compression: Of a chunk in Zarr; Parquet's columns are always zstd.
        arrays: What the codec keeps once (a basis, say), by name: `.npy` files below the teacher's `codec/`.
    """

    name: Name
    configuration: Facts = {}
    container: Literal["zarr", "parquet"] = "zarr"
    compression: Literal["none", "blosc"] = later("none")
    arrays: dict[Name, ObjectRecord] = later({})


class Fidelity(Part):
    """How well a codec did on some rows: KL(teacher || decoded) at one temperature, in nats."""

    temperature: float
    mean: float
    max: float


class RootManifest(Manifest):
    """`softcask.json`: what this folder is."""

    softcask: ClassVar[str] = "store"
    class_names: tuple[str, ...] = Field(min_length=2, max_length=1 << 20)


class SegmentManifest(Manifest):
    """`transfer_set/SEGMENT/segment.json`: the rows of one append; written after their table.

    Attributes:
        segment: Its name.
        rows: Rows of the source, quarantined ones among them.
        quarantined: Rows that could not be read.
        labelled: Rows with a label.
        unit_rows: Rows a unit covers, the last unit apart; the shard length of every teacher's arrays.
        input_shape: Shape of one row.
        input_dtype: numpy dtype of the rows, or `text`.
        table: The rows' table as committed.
        first: Place of its first row in the source, which holds the rows of earlier segments before it.
    """

    softcask: ClassVar[str] = "segment"
    segment: Name
    rows: Count
    quarantined: Count
    labelled: Count
    unit_rows: Annotated[int, Field(ge=1, lt=2**31)]
    input_shape: tuple[int, ...]
    input_dtype: str
    table: ObjectRecord
    first: Count = later(0)

    @property
    def units(self) -> int:
        """Units that cover the segment."""
        return -(-self.rows // self.unit_rows)

    def unit_range(self, index: int) -> tuple[int, int]:
        """First row and end of one unit."""
        return index * self.unit_rows, min((index + 1) * self.unit_rows, self.rows)


class TeacherManifest(Manifest):
    """`teachers/NAME/teacher.json`: what a name is pinned to.

    Attributes:
        name: Its name in this store.
        kind: Kind of teacher.
        role: member, generalist or specialist.
        num_classes: Logits a row.
        absent_classes: Those that are -inf in every row and not stored, rising.
        batch_size: Rows a forward pass; fixed, because it changes the last bits. `auto` where it was found by
            trial: then equal bits are not promised, and each receipt has its own.
        codec: How its logits are kept.
        codec_request: What the run asked for, where the codec was chosen or fitted by that.
        expected_fidelity: How well the codec did on rows that it was not fitted on.
        stats: Whether each unit has a table of statistics.
        fingerprint: What identifies it, field by field.
        recorded: Facts that do not count: versions, digest of the factory's source.
    """

    softcask: ClassVar[str] = "teacher"
    name: Name
    kind: str
    role: Literal["member", "generalist", "specialist"]
    num_classes: Annotated[int, Field(ge=2, le=1 << 20)]
    absent_classes: tuple[Annotated[int, Field(ge=0, lt=1 << 20)], ...] = later(())
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"]
    codec: CodecSpec
    codec_request: Facts = later({})
    expected_fidelity: tuple[Fidelity, ...] = later(())
    stats: bool = later(True)
    fingerprint: Facts
    recorded: Facts

    @model_validator(mode="after")
    def _check_absent(self) -> Self:
        absent = self.absent_classes
        rising = all(before < after for before, after in itertools.pairwise(absent))
        if absent and not (rising and absent[-1] < self.num_classes and self.stored_classes >= 2):
            raise ValueError(f"absent classes must rise, be below {self.num_classes} and leave two or more")
        return self

    @property
    def stored_classes(self) -> int:
        """Logits a row that are stored: what its codec sees."""
        return self.num_classes - len(self.absent_classes)

    def pinned(self) -> dict[str, Any]:
        """What must be equal for another run to go on under this name."""
        return self.model_dump(mode="json", exclude={"recorded", "format_version"})


class UnitCommit(Manifest):
    """`teachers/NAME/commits/UNIT.json`: the receipt whose presence is the commit.

    Attributes:
        teacher: Whose unit.
        unit: Name of the unit.
        fingerprint: Digest of what the teacher's name is pinned to.
        start: First row within the segment.
        stop: End of its rows.
        rows: Rows with logits (quarantined ones have none).
        labelled: Rows with a label among them.
        correct: Labelled rows whose top-1 is the label.
        row_max_range: Least and largest of the rows' largest logits; None where no row could be read.
        fidelity: How well the codec did on a few of the rows, where that depends on them.
        batch_size: Rows a forward pass, where that was found by trial; the least, where it changed meanwhile.
        may_differ: Why another pass over these rows may give other bits; empty where none does.
        objects: Everything written for it.
    """

    softcask: ClassVar[str] = "commit"
    teacher: Name
    unit: str
    fingerprint: str
    start: Count
    stop: Count
    rows: Count
    labelled: Count
    correct: Count
    row_max_range: tuple[float, float] | None
    fidelity: tuple[Fidelity, ...] = later(())
    batch_size: Annotated[int, Field(ge=1)] | None = later(None)
    may_differ: tuple[Annotated[str, Field(max_length=1000)], ...] = later(())
    objects: tuple[ObjectRecord, ...]


class TeacherTotals(Part):
    """What a generation of the catalog holds of one teacher."""

    units: Count
    planned_units: Count
    rows: Count
    labelled: Count
    correct: Count
    bytes: Count


class Dropped(Part):
    """What a store holds no more, though its objects stand until `gc` takes them.

    Attributes:
        teachers: Names that stand for nothing now; free again once `gc` has taken what they named.
        segments: Appends of rows, likewise.
        rows: Table of the sample ids that are dropped, whatever segment brings them; for good.
    """

    teachers: tuple[Name, ...] = ()
    segments: tuple[Name, ...] = ()
    rows: ObjectRecord | None = None


class Generation(Manifest):
    """`catalog/GENERATION/generation.json`: a sealed state of the store.

    Attributes:
        generation: Its number, from 1.
        tables: Tables of commits, this generation's and those it inherits, oldest first; no unit stands in
            them twice.
        manifests: Manifests and probes as they were when it was sealed, of teachers with commits.
        teachers: Totals by name.
        dropped: What was taken out, and does not come back by sealing.
    """

    softcask: ClassVar[str] = "generation"
    generation: Annotated[int, Field(ge=1, lt=10**8)]
    tables: Records
    manifests: Records
    teachers: dict[Name, TeacherTotals]
    dropped: Dropped = later(Dropped())


class Pointer(Manifest):
    """`catalog/newest.json`: the newest generation when it was written; later ones may stand beside it."""

    softcask: ClassVar[str] = "pointer"
    generation: Annotated[int, Field(ge=1, lt=10**8)]


class SourceFacts(Manifest):
    """`runs/sources/SEGMENT.json`: by what a segment's source is known again without reading it.

    Modification times and the like, which a copy of the same data does not share: never part of identity.

    Attributes:
        segment: The segment that was made from it.
        table: The segment's rows, so that facts about others are not taken for theirs.
        source: What the source says of itself.
    """

    softcask: ClassVar[str] = "source"
    segment: Name
    table: ObjectRecord
    source: Facts
