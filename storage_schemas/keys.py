"""Where each object of a store lies, relative to its root. The only place that spells a path.

Every part of a key comes from a checked name, so that no key made here can leave the store.
"""

from __future__ import annotations

import re

from softcask.storage_schemas.errors import StoreError

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
ROOT = "softcask.json"
CATALOG_POINTER = "catalog/newest.json"
RUNS = "runs"
VIEWS = "views"
CLAIMS = "runs/claims"

_NAME = re.compile(NAME_PATTERN)
_BAD_LETTER = re.compile(r"[\\:\x00-\x1f\ud800-\udfff]")
_UNIT = re.compile(r"(?P<segment>s[0-9]{4})-(?P<view>v[0-9]{4})-(?P<index>[0-9]{8})")


def checked_name(name: str) -> str:
    """`name` itself if it may be part of a key.

    Raises:
        StoreError: It is empty, longer than 64, or holds anything but letters, digits, '.', '_' and '-'.
    """
    if not is_name(name):
        raise StoreError(f"{name!r} cannot name a part of a store; a name matches {NAME_PATTERN}")
    return name


def is_name(name: str) -> bool:
    """Whether it may be part of a key."""
    return _NAME.fullmatch(name) is not None


def segment_name(number: int) -> str:
    """The n-th append of rows: `s0000`, `s0001`, ..."""
    return f"s{number:04d}"


def segment_number(segment: str) -> int:
    """Which append of rows it is: the n of `segment_name`.

    Raises:
        StoreError: It is not a segment's name.
    """
    if not (match := re.fullmatch(r"s([0-9]{4,8})", segment)):
        raise StoreError(f"{segment!r} is not the name of a segment (expected s0000, s0001, ...)")
    return int(match[1])


def view_name(number: int) -> str:
    """The n-th augmentation of every row; `v0000` is the row itself."""
    return f"v{number:04d}"


def view_manifest(number: int) -> str:
    """What the n-th view is."""
    return f"{VIEWS}/{view_name(number)}.json"


def view_number(key: str) -> int | None:
    """Which view the document at `key` is of; None where it is none of a view's."""
    match = re.fullmatch(rf"{VIEWS}/v([0-9]{{4}})\.json", key)
    return int(match[1]) if match else None


def view_of(key: str) -> int:
    """Which view an object is of: its document, or one below `logits/` or `stats/`; 0 if of none."""
    parts = key.split("/")
    digits = parts[4].removeprefix("v") if len(parts) > 4 else ""
    below = int(digits) if len(digits) == 4 and digits.isascii() and digits.isdigit() else 0
    return view_number(key) or below


def unit_name(segment: str, view: int, index: int) -> str:
    """A unit within its teacher: segment, view, and its place in the segment."""
    return f"{checked_name(segment)}-{view_name(view)}-{index:08d}"


def parse_unit(unit: str) -> tuple[str, int, int]:
    """(segment, view, index) of a unit's name.

    Raises:
        StoreError: It is not a unit's name.
    """
    if not (match := _UNIT.fullmatch(unit)):
        raise StoreError(f"{unit!r} is not the name of a unit (expected SEGMENT-VIEW-INDEX)")
    return match["segment"], int(match["view"][1:]), int(match["index"])


def is_unit(name: str) -> bool:
    """Whether it is a unit's name."""
    return _UNIT.fullmatch(name) is not None


def segment_manifest(segment: str) -> str:
    """Manifest of one append of rows."""
    return f"transfer_set/{checked_name(segment)}/segment.json"


def segment_rows(segment: str) -> str:
    """Table of one append of rows: ids, content hashes, labels, quarantine."""
    return f"transfer_set/{checked_name(segment)}/rows.parquet"


def teacher(name: str) -> str:
    """Folder of one teacher."""
    return f"teachers/{checked_name(name)}"


def teacher_manifest(name: str) -> str:
    """Manifest of one teacher."""
    return f"{teacher(name)}/teacher.json"


def probe(name: str) -> str:
    """Logits of a teacher's probe rows."""
    return f"{teacher(name)}/probe.parquet"


def logits_group(name: str, segment: str, view: int) -> str:
    """Zarr group of a teacher's logits over one segment and view."""
    return f"{teacher(name)}/logits/{checked_name(segment)}/{view_name(view)}"


def logits_part(name: str, segment: str, view: int, index: int) -> str:
    """Logits of one unit, of a codec whose container is Parquet."""
    return f"{logits_group(name, segment, view)}/part-{index:08d}.parquet"


def codec_folder(name: str) -> str:
    """Folder of what a teacher's codec keeps once."""
    return f"{teacher(name)}/codec"


def codec_array(name: str, array: str, crc: str) -> str:
    """One array that a teacher's codec keeps once, named by its content."""
    return f"{codec_folder(name)}/{checked_name(array)}-{crc}.npy"


def stats_folder(name: str, segment: str, view: int) -> str:
    """Folder of a teacher's statistics over one segment and view."""
    return f"{teacher(name)}/stats/{checked_name(segment)}/{view_name(view)}"


def stats_part(name: str, segment: str, view: int, index: int) -> str:
    """Statistics of one unit."""
    return f"{stats_folder(name, segment, view)}/part-{index:08d}.parquet"


def commits_folder(name: str) -> str:
    """Folder of a teacher's receipts."""
    return f"{teacher(name)}/commits"


def commit(name: str, unit: str) -> str:
    """Receipt of one unit; that it exists is the commit."""
    parse_unit(unit)
    return f"{commits_folder(name)}/{unit}.json"


def generation(number: int) -> str:
    """Manifest of one sealed generation of the catalog."""
    return f"catalog/{number:08d}/generation.json"


def generation_commits(number: int, crc: str) -> str:
    """Table of the commits that one generation adds, named by its content."""
    return f"catalog/{number:08d}/commits-{crc}.parquet"


def dropped_rows(number: int, crc: str) -> str:
    """Table of the sample ids that are dropped, written with one generation, named by its content."""
    return f"catalog/{number:08d}/dropped-{crc}.parquet"


def source_facts(segment: str) -> str:
    """By what a segment's source is known again."""
    return f"runs/sources/{checked_name(segment)}.json"


def run_record(run: str) -> str:
    """What one run measured."""
    return f"{RUNS}/{checked_name(run)}/run.json"


def run_progress(run: str) -> str:
    """Where one run stands."""
    return f"{RUNS}/{checked_name(run)}/progress.json"


def claim(number: int) -> str:
    """The n-th turn of a driver that wants the store for itself."""
    return f"{CLAIMS}/{number:08d}.json"


def is_run(name: str) -> bool:
    """Whether a name below `RUNS` may be a run's."""
    return is_name(name) and name not in ("sources", "claims")


def owner(key: str) -> tuple[str | None, str | None]:
    """(teacher, segment) that an object is of; None where it is of none or of all."""
    match key.split("/"):
        case ["transfer_set", segment, _]:
            return None, segment
        case ["runs", "sources", source]:
            return None, source.removesuffix(".json")
        case ["teachers", teacher, "commits", receipt] if is_unit(unit := receipt.removesuffix(".json")):
            return teacher, parse_unit(unit)[0]
        case ["teachers", teacher, "logits" | "stats", segment, *_]:
            return teacher, segment
        case ["teachers", teacher, *_]:
            return teacher, None
    return None, None


def is_document(key: str) -> bool:
    """Whether it is the key of a manifest of softcask's (and not of Zarr's metadata, or of nobody's)."""
    match key.split("/"):
        case ["softcask.json"] | ["catalog", "newest.json"] | ["catalog", _, "generation.json"]:
            return True
        case ["transfer_set", _, "segment.json"] | ["teachers", _, "teacher.json"]:
            return True
        case ["runs", _, "run.json" | "progress.json"]:
            return True
        case ["views", _]:
            return view_number(key) is not None
        case ["runs", "sources" | "claims", name]:
            return name.endswith(".json")
        case ["teachers", _, "commits", receipt]:
            return receipt.endswith(".json") and is_unit(receipt.removesuffix(".json"))
    return False


def checked_key(key: str) -> str:
    """`key` itself if it stays inside the store; for keys that were read from a store.

    Raises:
        StoreError: It is absolute, has an empty, '.' or '..' part, a backslash, a colon, a control character
            or half a character.
    """
    if not {"", ".", ".."}.isdisjoint(key.split("/")) or _BAD_LETTER.search(key):
        raise StoreError(
            f"the store names an object {key!r}, which does not stay inside the store; it is not trusted"
        )
    return key
