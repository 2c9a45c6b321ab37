"""The headline: a net with dropout and jitter, distilled into a smaller one without either."""

from __future__ import annotations

from examples.paper.findings import Claim, Line, Section
from examples.paper.nets import BIG_NETS, PLAIN, SOFT

MNIST = Section(
    name="mnist",
    title="A large net distilled into a smaller one",
    about="A 1200-1200 net, trained with dropout, bounded weights and images jittered by two pixels, "
    "labels the 60,000 training digits. An 800-800 net learns from its soft targets at T = 20 alone: "
    "no label, no jitter, no dropout.",
    lines=(
        Line(key="big", name="1200-1200, the teacher", paper="67", runs=BIG_NETS),
        Line(key="soft", name="800-800, distilled at T = 20", paper="74", runs=SOFT),
        Line(key="plain", name="800-800, plain", paper="146", runs=PLAIN),
    ),
    claims=(
        Claim(text="the teacher makes 75 errors at most", holds=lambda of: of["big"] <= 75),
        Claim(text="the distilled net makes 80 at most", holds=lambda of: of["soft"] <= 80),
        Claim(
            text="most of what the plain net lacks to the teacher is gained",
            holds=lambda of: of["plain"] - of["soft"] > 0.5 * (of["plain"] - of["big"]),
        ),
    ),
)
