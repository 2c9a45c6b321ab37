"""Teachers over the batches of a unit: logits, checked and encoded."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softcask.pipeline.label.reading import refuse_if_closed
from softcask.pipeline.label.work import Work
from softcask.pipeline.store.writing.encoding import EncodedUnit, UnitEncoder
from softcask.pipeline.teachers.base import Teacher
from softcask.pipeline.teachers.checks import check_logits
from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.manifest import TeacherManifest


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRunner:
    """Runs the co-resident teachers of one labeller, in a thread of its own.

    Attributes:
        teachers: By name.
        manifests: By name.
        codecs: By name.
        closed: Set when what is not yet computed is to be given up.
    """

    teachers: Mapping[str, Teacher]
    manifests: Mapping[str, TeacherManifest]
    codecs: Mapping[str, Codec]
    closed: threading.Event

    def run(self, work: Work) -> dict[str, EncodedUnit]:
        """What each teacher says of the unit's readable rows, encoded.

        Raises:
            SoftcaskError: A batch could not be read, or a teacher's logits cannot be stored.
        """
        ids = work.rows.sample_ids.filter(pa.array(work.rows.readable))
        encoders: dict[str, UnitEncoder] = {}
        first = 0
        for inputs_B in work.read():
            refuse_if_closed(self.closed, work)
            encoders = encoders or self._encoders(work, len(ids))
            for name, encoder in encoders.items():
                logits_BC = self._checked_logits(work, name, inputs_B, ids[first : first + len(inputs_B)])
                started = time.perf_counter()
                encoder.add(logits_BC)
                work.seconds["encode"] += time.perf_counter() - started
            first += len(inputs_B)
        # A unit whose rows are all quarantined is committed too.
        return {name: encoder.finish() for name, encoder in (encoders or self._encoders(work, 0)).items()}

    def _encoders(self, work: Work, rows: int) -> dict[str, UnitEncoder]:
        return {
            name: UnitEncoder(self.codecs[name], rows=rows, num_classes=self.manifests[name].num_classes)
            for name in work.teachers
        }

    def _checked_logits(
        self, work: Work, name: str, inputs_B: NDArray[Any], sample_ids: pa.Array
    ) -> NDArray[np.float32]:
        started = time.perf_counter()
        logits_BC = self.teachers[name].logits(inputs_B)
        work.seconds[f"forward:{name}"] += time.perf_counter() - started
        classes = self.manifests[name].num_classes
        check_logits(logits_BC, num_classes=classes, teacher=name, unit=work.task.unit, sample_ids=sample_ids)
        return logits_BC
