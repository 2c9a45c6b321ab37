from __future__ import annotations

import posixpath
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcask.storage_schemas import keys
from softcask.storage_schemas.errors import StoreError

NAMES = st.from_regex(re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"), fullmatch=True)
NUMBERS = st.integers(min_value=0, max_value=9999)


def keys_of(name: str, segment: str, view: int, index: int) -> list[str]:
    return [
        keys.segment_manifest(segment),
        keys.segment_rows(segment),
        keys.teacher_manifest(name),
        keys.probe(name),
        keys.logits_group(name, segment, view),
        keys.stats_part(name, segment, view, index),
        keys.commit(name, keys.unit_name(keys.segment_name(view), view, index)),
        keys.generation(index),
        keys.run_record(name),
    ]


@given(name=NAMES, segment=NAMES, view=NUMBERS, index=st.integers(min_value=0, max_value=10**8 - 1))
def test_no_key_made_of_checked_names_leaves_the_store(
    name: str, segment: str, view: int, index: int
) -> None:
    for key in keys_of(name, segment, view, index):
        assert posixpath.normpath(f"/store/{key}") == f"/store/{key}"
        assert keys.checked_key(key) == key


@given(text=st.text(max_size=70))
def test_a_name_is_taken_exactly_if_it_is_short_and_of_plain_letters(text: str) -> None:
    plain = text.isascii() and text.replace("-", "a").replace("_", "a").replace(".", "a").isalnum()
    if plain and len(text) <= 64 and text[0].isalnum():
        assert keys.checked_name(text) == text
    else:
        with pytest.raises(StoreError, match="cannot name a part of a store"):
            keys.checked_name(text)


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a\\b", "a b", "a\n", "é", "a" * 65, "-rf"])
def test_names_that_are_not_plain_are_refused(name: str) -> None:
    for make in (keys.checked_name, keys.segment_rows, keys.teacher_manifest, keys.run_record):
        with pytest.raises(StoreError, match=re.escape(repr(name))):
            make(name)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/passwd",
        "../other/softcask.json",
        "teachers/../../x",
        "teachers/./x",
        "teachers//x",
        "teachers/x/",
        "C:/x",
        "s3://bucket/x",
        "teachers\\..\\x",
        "a\x00b",
        "a\nb",
    ],
)
def test_a_key_that_leaves_the_store_or_hides_where_it_goes_is_not_trusted(key: str) -> None:
    with pytest.raises(StoreError, match="not trusted"):
        keys.checked_key(key)


@given(number=NUMBERS, view=NUMBERS, index=st.integers(min_value=0, max_value=10**8 - 1))
def test_a_units_name_says_segment_view_and_place(number: int, view: int, index: int) -> None:
    segment = keys.segment_name(number)
    assert keys.parse_unit(keys.unit_name(segment, view, index)) == (segment, view, index)


@pytest.mark.parametrize(
    "unit",
    [
        "",
        "s0000-v0000",
        "s0000-v0000-0000000",
        "s0000-v0000-000000000",
        "s0000-v0000-00000000\n",
        "s0000-v0000-0000000\N{ARABIC-INDIC DIGIT ONE}",
        "../s0000-v0000-00000000",
        "s0000-v0000-00000000/..",
    ],
)
def test_what_is_not_a_units_name_is_refused(unit: str) -> None:
    for refuse in (keys.parse_unit, lambda unit: keys.commit("teacher", unit)):
        with pytest.raises(StoreError, match="not the name of a unit"):
            refuse(unit)


@pytest.mark.parametrize(
    ("key", "teacher", "segment"),
    [
        (keys.ROOT, None, None),
        (keys.generation(3), None, None),
        (keys.segment_manifest("s0001"), None, "s0001"),
        (keys.segment_rows("s0001"), None, "s0001"),
        (keys.source_facts("s0001"), None, "s0001"),
        (keys.teacher_manifest("alpha"), "alpha", None),
        (keys.codec_array("alpha", "basis", "0badcafe"), "alpha", None),
        (keys.commit("alpha", "s0001-v0000-00000002"), "alpha", "s0001"),
        ("teachers/alpha/commits/notes.json", "alpha", None),
        (keys.logits_part("alpha", "s0001", 0, 2), "alpha", "s0001"),
        (keys.stats_part("alpha", "s0001", 0, 2), "alpha", "s0001"),
        ("teachers/alpha/logits/s0001/v0000/logits/c/2/0", "alpha", "s0001"),
    ],
)
def test_an_object_is_of_its_teacher_and_of_its_segment(
    key: str, teacher: str | None, segment: str | None
) -> None:
    assert keys.owner(key) == (teacher, segment)


def test_documents_are_told_from_all_else() -> None:
    documents = [
        keys.ROOT,
        keys.CATALOG_POINTER,
        keys.generation(3),
        keys.segment_manifest("s0001"),
        keys.source_facts("s0001"),
        keys.run_record("20260101T000000-000000"),
        keys.run_progress("20260101T000000-000000"),
        keys.claim(1),
        keys.teacher_manifest("alpha"),
        keys.commit("alpha", "s0001-v0000-00000002"),
    ]
    others = [
        keys.segment_rows("s0001"),
        keys.probe("alpha"),
        f"{keys.logits_group('alpha', 's0001', 0)}/zarr.json",
        "teachers/alpha/commits/notes.json",
        "notes.json",
    ]
    assert [keys.is_document(key) for key in (*documents, *others)] == [True] * 10 + [False] * 5


def test_a_segments_number_is_read_from_its_name() -> None:
    assert keys.segment_number(keys.segment_name(12)) == 12
    for name in ("s12", "t0001", "s0001-v0000", "s000x", "s000000001"):
        with pytest.raises(StoreError, match="name of a segment"):
            keys.segment_number(name)
