"""A third party's teacher for `make chaos`: numpy alone, and it ends its process where it was told to.

It writes down each unit that it begins, so that work done twice can be counted; and it puts itself between
the steps of a commit, to kill the process there. Nothing of this is in the product.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.store.access import local_objects
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.teachers.base import TeacherOptions

FOLDER = "SOFTCASK_CHAOS"
"""Environment: where orders are read and units are written down."""

UNIT_ROWS = 16
_UNIT = re.compile(
    r"teachers/(?P<teacher>[^/]+)/(?P<part>logits|stats|commits)/.*?(?P<unit>\d+)(?:/\d+)?(?:\.\w+)?$"
)


class ChaosTeacherOptions(TeacherOptions):
    """`seed` makes its weights; it takes `seconds` a batch."""

    kind: Literal["chaos"] = "chaos"
    seed: int = 0
    seconds: float = 0.05

    def load(self) -> ChaosTeacher:
        """Ready at once."""
        _obey()
        return ChaosTeacher(self)

    def fingerprint_fields(self) -> dict[str, Any]:
        """The weights follow from the seed."""
        return {"kind": self.kind, "seed": self.seed, "dtype": "float32"}


class ChaosTeacher:
    """One layer over the first value of a row and its neighbours."""

    device = "cpu"

    def __init__(self, options: ChaosTeacherOptions) -> None:
        self.name, self._seconds = options.name, options.seconds
        self._weights = np.random.default_rng(options.seed).normal(size=(24, 5)).astype(np.float32)

    def logits(self, inputs_B: NDArray[Any]) -> NDArray[np.float32]:
        """`[B, 5]`; the row's number, its first value, tells which unit was begun."""
        flat = inputs_B.reshape(len(inputs_B), -1)
        first = int(flat[0, 0])
        of_a_unit = int(flat[-1, 0]) - first == len(flat) - 1  # probe rows lie apart
        if first % UNIT_ROWS == 0 and of_a_unit:
            _note(f"{time.time():.3f} {os.getpid()} {self.name} {first // UNIT_ROWS}")
        time.sleep(self._seconds)
        found: NDArray[np.float32] = (flat[:, 1:] @ self._weights[1:]).astype(np.float32)
        return found

    def state_digest(self) -> str:
        """Of the weights."""
        return f"seed:{self._weights[0, 0]:.6f}"


def _note(line: str) -> None:
    descriptor = os.open(Path(os.environ[FOLDER], "begun.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


def _obey() -> None:
    """Put ourselves between the steps of a publication, once a process."""
    if getattr(StoreObjects.publish, "chaos", False):
        return
    publish, write_all, link = StoreObjects.publish, local_objects._write_all, os.link
    at: dict[str, str] = {"key": ""}

    def watched_publish(self: StoreObjects, key: str, data: bytes) -> bool:
        at["key"] = key
        _die_if_told(key, "before")
        made = publish(self, key, data)
        _die_if_told(key, "after")
        return made

    def watched_write(descriptor: int, data: bytes) -> None:
        write_all(descriptor, data)
        _die_if_told(at["key"], "written")

    def watched_link(*args: Any, **kwargs: Any) -> None:
        link(*args, **kwargs)
        _die_if_told(at["key"], "linked")

    watched_publish.chaos = True  # type: ignore[attr-defined]
    replaced: list[tuple[Any, str, Callable[..., Any]]] = [
        (StoreObjects, "publish", watched_publish),
        (local_objects, "_write_all", watched_write),
        (os, "link", watched_link),
    ]
    for owner, name, stand_in in replaced:
        setattr(owner, name, stand_in)


def _die_if_told(key: str, step: str) -> None:
    """Orders are a list of `[teacher, unit, part, step]`; each is carried out once, by who comes first."""
    if (found := _UNIT.search(key)) is None:
        return
    folder = Path(os.environ[FOLDER])
    try:
        orders = json.loads((folder / "orders.json").read_text())
    except FileNotFoundError:
        return
    order = [found["teacher"], int(found["unit"]), found["part"], step]
    if order not in orders:
        return
    try:
        os.close(os.open(folder / "-".join(map(str, order)), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    _note(f"{time.time():.3f} {os.getpid()} ! 0")
    os.kill(os.getpid(), signal.SIGKILL)
