"""A cluster that does as it is told, in this process: what a real one does only now and then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

from softcask.jobs.submission.cluster import Job, JobLost

RUNNING = Job(
    id="a",
    status="RUNNING",
    ended=False,
    exit_code=None,
    message="",
    metadata={"softcask": "0.1.0"},
    began=1.0,
    finished=None,
)
SUCCEEDED = replace(RUNNING, status="SUCCEEDED", ended=True, exit_code=0)
STOPPED = replace(RUNNING, status="STOPPED", ended=True)
FAILED = replace(RUNNING, status="FAILED", ended=True, exit_code=2)


@dataclass
class FakeCluster:
    """Answers from lists; an error in one of them is raised.

    Attributes:
        standing: Jobs that are known.
        answers: What `job` gives, one after the other, and the last for ever.
        logs: Pieces that each call of `follow_log` gives.
        alive: Nodes.
        submitted: What `submit` was called with.
    """

    standing: list[Job] = field(default_factory=list)
    answers: list[Job | JobLost] = field(default_factory=list)
    logs: list[list[str | JobLost]] = field(default_factory=list)
    alive: int = 1
    refusal: JobLost | None = None
    meanwhile: list[Job] = field(default_factory=list)
    submitted: list[tuple[str, str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    address: str = "http://fake:8265"

    def jobs(self) -> list[Job]:
        return list(self.standing)

    def job(self, name: str) -> Job:
        if not self.answers:
            return replace(RUNNING, id=name)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, JobLost):
            raise answer
        return answer

    def nodes(self) -> int:
        return self.alive

    def submit(self, name: str, command: str, environment: dict[str, Any], metadata: dict[str, str]) -> None:
        self.submitted.append((name, command, environment, metadata))
        self.standing += self.meanwhile
        if self.refusal:
            raise self.refusal

    async def follow_log(self, name: str) -> AsyncIterator[str]:
        for piece in self.logs.pop(0) if self.logs else []:
            if isinstance(piece, JobLost):
                raise piece
            yield piece
