"""The sections by name, in the order in which `all` does them: the headline first, then what is cheap."""

from __future__ import annotations

from examples.paper.sections.absent import OMITTED, TWO_DIGITS
from examples.paper.sections.ensemble import ENSEMBLES, UNLABELLED
from examples.paper.sections.few import FEW
from examples.paper.sections.mnist import MNIST
from examples.paper.sections.rate import RATE
from examples.paper.sections.recipe import RECIPE
from examples.paper.sections.temperature import TEMPERATURE

SECTIONS = {
    section.name: section
    for section in (MNIST, FEW, OMITTED, TWO_DIGITS, ENSEMBLES, UNLABELLED, RATE, RECIPE, TEMPERATURE)
}
