"""`softcask inspect`: what a store holds, and what its teachers think of a row."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softcask.jobs import console
from softcask.jobs.options import Json, StoreUri
from softcask.storage_schemas.errors import ConfigError, IncompleteStore, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from softcask.pipeline.store.reading.reader import Store

EXAMPLES = (
    "Examples:\n\nsoftcask inspect STORE\n\nsoftcask inspect STORE --row train-images-00000007\n\n"
    "softcask inspect STORE --row train-images-00000007 --temperatures 1,8 --top 3 --json"
)
MEAN = "mean of members"

Row = Annotated[
    list[str] | None,
    typer.Option("--row", metavar="ID", help="Show what each teacher thinks of this sample_id. Repeatable."),
]
Temperatures = Annotated[str, typer.Option(metavar="T,T", help="Temperatures for --row.")]
Top = Annotated[int, typer.Option(min=1, help="Classes shown for --row.")]
AllowPartial = Annotated[
    bool, typer.Option("--allow-partial", help="Also look at what is committed and not sealed yet.")
]


def inspect(
    store: StoreUri,
    row: Row = None,
    temperatures: Temperatures = "1,4,20",
    top: Top = 5,
    as_json: Json = False,
    allow_partial: AllowPartial = False,
) -> None:
    """Show a store's teachers, rows, bytes and state, and the top classes of single rows."""
    opened = _open(store, allow_partial)
    wanted = _parsed(temperatures)
    answer: dict[str, Any] = overview(opened) if as_json or not row else {}
    if row:
        answer["samples"] = [sample(opened, sample_id, wanted, top) for sample_id in row]
    if as_json:
        console.emit(answer)
    elif row:
        for found in answer["samples"]:
            _show_sample(found, wanted)
    else:
        _show(answer)


def overview(store: Store) -> dict[str, Any]:
    """What the store holds, as plain JSON-able values."""
    teachers = {name: _teacher(store, name) for name in sorted(store.teachers)}
    complete = bool(teachers) and all(each["units"] == each["planned_units"] for each in teachers.values())
    return {
        "store": store.uri,
        "state": "complete" if complete else "partial",
        "generation": store.generation,
        "classes": len(store.class_names),
        "rows": len(store.rows),
        "labelled": int((store.rows.labels >= 0).sum()),
        "quarantined": sum(segment.quarantined for segment in store.segments),
        "segments": [
            {"segment": s.segment, "rows": s.rows, "unit_rows": s.unit_rows, "units": s.units}
            for s in store.segments
        ],
        "views": {str(number): _view(store, number) for number in store.views},
        "teachers": teachers,
    }


def sample(store: Store, sample_id: str, temperatures: list[float], top: int) -> dict[str, Any]:
    """What each teacher thinks of one row; None for a teacher that has not labelled it.

    Raises:
        StoreError: The store has no such row, or it is quarantined, or a temperature does not suit a codec.
    """
    from softcask.pipeline.targets.soft_targets import SoftTargets, members

    (number,) = rows_B = store.rows.find([sample_id])
    if number < 0:
        raise _no_such_row(store, sample_id)
    label = int(store.rows.labels[number])
    thoughts: dict[str, Any] = {}
    of_ensemble = members(store)
    asked = {name: [name] for name in store.teachers} | (
        {MEAN: [*of_ensemble]} if len(of_ensemble) > 1 else {}
    )
    for name, teachers in asked.items():
        targets = SoftTargets(store, teachers)
        try:
            thoughts[name] = {
                f"{t:g}": _top(store, targets.probabilities(rows_B, t)[0], top) for t in temperatures
            }
        except IncompleteStore:
            thoughts[name] = None
    return {
        "sample_id": sample_id,
        "label": store.class_names[label] if label >= 0 else None,
        "teachers": thoughts,
    }


def _open(uri: str, allow_partial: bool) -> Store:
    from softcask.pipeline.store.reading.reader import open_store

    try:
        return open_store(uri, allow_partial=allow_partial)
    except IncompleteStore as error:
        raise IncompleteStore(
            f"{uri} is not sealed: no precompute has finished on it yet. Run `softcask precompute` again to "
            "finish it, or look at what is committed with --allow-partial."
        ) from error


def _parsed(temperatures: str) -> list[float]:
    try:
        return [float(part) for part in temperatures.split(",")]
    except ValueError as error:
        raise ConfigError(f"--temperatures {temperatures}: expected numbers such as 1,4,20") from error


def _view(store: Store, number: int) -> dict[str, Any]:
    """What a view does, and how much of it each teacher has labelled."""
    import pyarrow.compute as pc

    commits = store.commits.filter(pc.equal(store.commits["view"], number))
    names = commits["teacher"].to_pylist()
    pinned = store.views[number]
    return {
        "seed": pinned.seed,
        "steps": list(pinned.steps),
        "row_shape": list(pinned.row_shape),
        "row_dtype": pinned.row_dtype,
        "units": {name: names.count(name) for name in sorted(store.teachers)},
    }


def _teacher(store: Store, name: str) -> dict[str, Any]:
    import pyarrow.compute as pc

    from softcask.storage_schemas.fingerprint import digest

    manifest = store.teacher(name)
    commits = store.commits.filter(pc.equal(store.commits["teacher"], name))
    rows, labelled, correct = (sum(commits[key].to_pylist()) for key in ("rows", "labelled", "correct"))
    size = sum(each["size"] for objects in commits["objects"].to_pylist() for each in objects)
    return {
        "role": manifest.role,
        "kind": manifest.kind,
        "origin": _origin(manifest.kind, manifest.fingerprint),
        "units": len(commits),
        "planned_units": store.planned_units(name),
        "rows": rows,
        "labelled": labelled,
        "correct": correct,
        "bytes": size,
        "row_bytes": size / rows if rows else None,
        "dtype": manifest.fingerprint.get("dtype"),
        "codec": manifest.codec.name,
        "codec_reason": manifest.recorded.get("codec", {}).get("reason", ""),
        "expected_kl": {f"{loss.temperature:g}": loss.mean for loss in manifest.expected_fidelity},
        "fingerprint": digest(manifest.pinned()),
    }


def _origin(kind: str, fingerprint: dict[str, Any]) -> str:
    """Where an entry's logits come from, in a few words; of a store that may hold anything."""
    if kind == "derived" and isinstance(sources := fingerprint.get("derived_from"), list):
        names = [str(source.get("teacher")) for source in sources if isinstance(source, dict)]
        rule = fingerprint.get("rule") or fingerprint.get("operation")
        return f"{rule} of {', '.join(names)}"
    return f"import {fingerprint.get('format')}" if kind == "imported" else kind


def _no_such_row(store: Store, sample_id: str) -> StoreError:
    from softcask.pipeline.store.rows import read_rows

    for segment in store.segments:
        table = read_rows(store.objects, segment)
        for place, name in enumerate(table["sample_id"].to_pylist() if segment.quarantined else ()):
            if name == sample_id:
                reason = table["quarantine"][place].as_py()
                return StoreError(f"row {sample_id!r} of {store.uri} is quarantined: {reason}")
    like = f"; its ids look like {store.rows.sample_ids[0]!r}" if len(store.rows) else ""
    return StoreError(f"{store.uri} has no row {sample_id!r}{like}")


def _top(store: Store, probabilities_C: NDArray[Any], top: int) -> list[dict[str, Any]]:
    best = (-probabilities_C).argsort(kind="stable")[:top]
    return [{"class": store.class_names[c], "probability": float(probabilities_C[c])} for c in best]


def _show(found: dict[str, Any]) -> None:
    console.say(f"store       {found['store']}")
    sealed = f"sealed generation {found['generation']}" if found["generation"] else "not sealed"
    console.say(f"state       {found['state']}, {sealed}")
    console.say(f"classes     {found['classes']:,}")
    rest = f"{found['labelled']:,} labelled, {found['quarantined']:,} quarantined"
    console.say(f"rows        {found['rows']:,}, {rest}, {console.many(len(found['segments']), 'segment')}")
    console.show_table(
        [
            "teacher",
            "role",
            "units",
            "rows",
            "top-1",
            "bytes",
            "a row",
            "dtype",
            "codec",
            "origin",
            "fingerprint",
        ],
        [
            [
                name,
                t["role"],
                f"{t['units']:,} of {t['planned_units']:,}",
                f"{t['rows']:,}",
                console.share(t["correct"], t["labelled"]),
                console.size(t["bytes"]),
                "-" if t["row_bytes"] is None else f"{t['row_bytes']:,.0f} B",
                t["dtype"] or "-",
                t["codec"],
                t["origin"],
                t["fingerprint"].removeprefix("sha256:")[:12],
            ]
            for name, t in found["teachers"].items()
        ],
    )
    for numbers, view in _alike(found["views"]):
        steps = ", ".join(_told(step) for step in view["steps"])
        units = ", ".join(f"{name} {count:,}" for name, count in view["units"].items())
        console.say(f"{f'view {numbers}':11} {steps}; seed {view['seed']}; units of {units}")
    _show_losses(found["teachers"])


def _alike(views: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Views that tell the same, as one: there may be hundreds."""
    for _, same in groupby(views.items(), key=lambda each: each[1]):
        numbers, told = zip(*same, strict=True)
        yield numbers[0] if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}", told[0]


def _told(step: dict[str, Any]) -> str:
    """A step in a few words; of a store that may hold anything."""
    named = step.get("function") or step.get("transform")
    return f"{step.get('kind')} {named}" if named else str(step.get("kind"))


def _show_losses(teachers: dict[str, Any]) -> None:
    """What codecs that were chosen by a trial lose, as it found; nothing where there is none."""
    for name, teacher in teachers.items():
        if teacher["expected_kl"]:
            losses = ", ".join(f"{loss:.2g} at T={t}" for t, loss in teacher["expected_kl"].items())
            console.say(f"{name}: mean KL(teacher || stored) in nats, from the trial: {losses}")


def _show_sample(found: dict[str, Any], temperatures: list[float]) -> None:
    def cell(classes: list[dict[str, Any]]) -> str:
        return "\n".join(f"{each['class']}  {_probability(each['probability'])}" for each in classes)

    label = found["label"] if found["label"] is not None else "none"
    console.show_table(
        ["teacher", *(f"T = {t:g}" for t in temperatures)],
        [
            [name, *(cell(by_t[f"{t:g}"]) if by_t else "not labelled yet" for t in temperatures)]
            for name, by_t in found["teachers"].items()
        ],
        title=f"row {found['sample_id']}, label {label}",
    )


def _probability(value: float) -> str:
    return f"{value:.4f}" if value >= 0.001 else f"{value:.1e}"  # at T = 1 all that is told lies far below 1
