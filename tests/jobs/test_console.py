"""Numbers as people read them, and lines where nobody watches a bar."""

from __future__ import annotations

import pytest

from softcask.jobs import console, progress


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (5_000_000, "4.8 MiB"),
        (3 * 2**40, "3.0 TiB"),
        (2**51, "2048.0 TiB"),
        (None, "unknown"),
    ],
)
def test_bytes_are_shown_in_binary_units(count: int | None, shown: str) -> None:
    assert console.size(count) == shown


def test_shares_and_counts_are_shown_as_people_say_them() -> None:
    assert (console.share(1, 3), console.share(0, 0)) == ("33.33%", "-")
    assert (console.many(1, "unit"), console.many(1200, "unit")) == ("1 unit", "1,200 units")


def test_a_path_is_never_broken_nor_taken_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    path = "/data/" + "x" * 300 + "/[red]store[/red]"
    console.say(path)
    console.complain(path)
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == (f"{path}\n", f"error: {path}\n")


def test_without_a_terminal_short_work_is_silent_and_long_work_says_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = {1000.0: 0, 1010.0: 1000, 1031.0: 3100, 1040.0: 4000, 1062.0: 6200}
    clock = iter([1000.0, *steps])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.Bars() as bars:
        for done in steps.values():
            bars.show("label", done, 9000, unit="rows", note="read 10%")
    assert capsys.readouterr().err == (
        "label: 3,100 of 9,000 rows, 100 rows/s, 59 s left, read 10%\n"
        "label: 6,200 of 9,000 rows, 100 rows/s, 28 s left, read 10%\n"
    )
