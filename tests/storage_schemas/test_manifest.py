from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.stores import flip, teacher_manifest

from softcask.storage_schemas.checksum import crc32c_hex
from softcask.storage_schemas.documents import DOCUMENTS
from softcask.storage_schemas.errors import CorruptObject, FormatTooNew
from softcask.storage_schemas.manifest import (
    ObjectRecord,
    Pointer,
    RootManifest,
    SegmentManifest,
    TeacherManifest,
)

ROOT = RootManifest(class_names=("cat", "dog"))
ZEROS = b"00000000"


def signed(body: dict[str, Any]) -> bytes:
    """Any JSON object with a right checksum at its end, made as a foreign writer would."""
    text = json.dumps({**body, "checksum": "crc32c:00000000"}, indent=2, ensure_ascii=False) + "\n"
    data = text.encode()
    end = data.rindex(ZEROS)
    return data[:end] + crc32c_hex(data).encode() + data[end + 8 :]


def fields(document: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(document.to_bytes())
    del body["checksum"]
    return body


def test_a_manifest_is_json_that_says_what_it_is_and_ends_in_its_checksum() -> None:
    data = ROOT.to_bytes()
    body = json.loads(data)
    assert list(body) == ["softcask", "format_version", "class_names", "checksum"]
    assert (body["softcask"], body["format_version"]) == ("store", 1)
    blank = data.replace(body["checksum"].encode(), b"crc32c:00000000")
    assert body["checksum"] == f"crc32c:{crc32c_hex(blank)}"
    assert data == signed(fields(ROOT))


def test_every_flipped_bit_of_a_manifest_is_found() -> None:
    for document in (ROOT, Pointer(generation=7)):
        data = document.to_bytes()
        for place in range(len(data)):
            for bit in range(8):
                with pytest.raises(CorruptObject, match="some/key.json"):
                    type(document).from_bytes(flip(data, place, bit), "some/key.json")


def test_a_manifest_that_was_cut_or_lengthened_is_found() -> None:
    data = ROOT.to_bytes()
    for changed in [*(data[:size] for size in range(len(data))), data + b"\n", data + b" ", b" " + data]:
        with pytest.raises(CorruptObject):
            RootManifest.from_bytes(changed, "softcask.json")


@given(names=st.lists(st.text(st.characters(codec="utf-8")), min_size=2, max_size=5))
def test_class_names_of_any_letters_come_back(names: list[str]) -> None:
    root = RootManifest(class_names=tuple(names))
    assert RootManifest.from_bytes(root.to_bytes(), "softcask.json").class_names == tuple(names)


@pytest.mark.parametrize(
    "name",
    ["00000000", '"checksum": "crc32c:00000000"\n}\n', 'x",\n  "checksum": "crc32c:00000000"\n}\n', "\n}\n"],
)
def test_class_names_that_look_like_the_checksum_do_no_harm(name: str) -> None:
    root = RootManifest(class_names=(name, "dog"))
    data = root.to_bytes()
    assert RootManifest.from_bytes(data, "softcask.json") == root
    for place in range(len(data)):
        with pytest.raises(CorruptObject):
            RootManifest.from_bytes(flip(data, place), "softcask.json")


def test_a_newer_format_is_told_from_damage() -> None:
    newer = {**fields(ROOT), "format_version": 2, "hitherto_unknown": []}
    with pytest.raises(FormatTooNew, match=r"format version 2.*up to 1.*Upgrade"):
        RootManifest.from_bytes(signed(newer), "softcask.json")


def test_a_newer_format_is_known_even_where_it_checks_itself_otherwise() -> None:
    data = json.dumps({"softcask": "store", "format_version": 9, "checksum": "blake3:abc"}).encode()
    with pytest.raises(FormatTooNew, match="format version 9"):
        RootManifest.from_bytes(data, "softcask.json")


def test_a_whole_document_with_fields_of_later_times_sends_one_to_upgrade() -> None:
    with pytest.raises(FormatTooNew, match=r"does not know: colour\. .*upgrade softcask"):
        RootManifest.from_bytes(signed({**fields(ROOT), "colour": "red"}), "softcask.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"colour": "red", "class_names": [1, 2]}, "colour"),
        ({"class_names": ["only one"]}, "class_names"),
        ({"class_names": [1, 2]}, "class_names"),
        ({"format_version": 0}, "format_version"),
        ({"softcask": "teacher"}, "not a softcask store document"),
    ],
)
def test_a_signed_document_with_fields_that_do_not_fit_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(CorruptObject, match=said):
        RootManifest.from_bytes(signed({**fields(ROOT), **change}), "softcask.json")


@pytest.mark.parametrize("data", [b"", b"[]", b"7", b"\xff\xfe", b"{", b"[" * 100_000, b"1" * 5000])
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptObject, match="softcask.json"):
        RootManifest.from_bytes(data, "softcask.json")


def test_no_document_is_taken_for_another() -> None:
    for kind in DOCUMENTS:
        if kind is not TeacherManifest:
            with pytest.raises(CorruptObject, match="is not a softcask"):
                kind.from_bytes(teacher_manifest("alpha").to_bytes(), "x.json")


def test_names_that_leave_the_store_are_refused_in_manifests() -> None:
    body = fields(teacher_manifest("alpha"))
    for name in ("../alpha", "", "a/b", "a\n"):
        with pytest.raises(CorruptObject, match="name"):
            TeacherManifest.from_bytes(signed({**body, "name": name}), "teacher.json")


def test_a_teachers_record_of_versions_does_not_pin_it() -> None:
    one = teacher_manifest("alpha")
    other = one.model_copy(update={"recorded": {"versions": {"python": "3.14"}}})
    assert one.pinned() == other.pinned()
    assert one.pinned() != one.model_copy(update={"batch_size": 5}).pinned()


def test_an_objects_record_takes_the_very_bytes_only() -> None:
    record = ObjectRecord.of("logits/c/0", b"123456789")
    assert (record.size, record.crc32c) == (9, "e3069283")
    assert record.check(b"123456789") == b"123456789"
    for data, said in ((b"12345678", "8 bytes, committed with 9"), (b"123456788", "committed with e3069283")):
        with pytest.raises(CorruptObject, match=f"logits/c/0.*{said}"):
            record.check(data)


def test_units_cover_a_segment_and_the_last_is_shorter() -> None:
    segment = SegmentManifest(
        segment="s0000",
        rows=20,
        quarantined=0,
        labelled=0,
        unit_rows=8,
        input_shape=(2,),
        input_dtype="uint8",
        table=ObjectRecord.of("transfer_set/s0000/rows.parquet", b""),
    )
    assert [segment.unit_range(index) for index in range(segment.units)] == [(0, 8), (8, 16), (16, 20)]
