"""The colours of the page: people who see some colours alike tell the phases apart, by day and by night."""

import math
import re
from itertools import combinations
from pathlib import Path

import pytest

import batchflow.reporting.html

CSS = Path(batchflow.reporting.html.__file__).with_name("page.css").read_text()
THEMES = [dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", CSS, re.S)]
SEEN = {  # what is seen of linear RGB: Machado, Oliveira and Fernandes, 2009, for the severest case of each
    "all": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
WHITE = (0.95047, 1, 1.08883)


def times(matrix, vector):
    return [sum(cell * part for cell, part in zip(row, vector, strict=True)) for row in matrix]


def lab(colour, seen):
    """Return a colour as CIE L*a*b*, in which distances are what an eye takes for them."""
    values = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
    shown = [min(1, max(0, part)) for part in times(SEEN[seen], linear)]
    x, y, z = (
        share ** (1 / 3) if share > 216 / 24389 else (24389 / 27 * share + 16) / 116
        for share in (part / white for part, white in zip(times(XYZ, shown), WHITE, strict=True))
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def distance(theme, one, other, seen):
    return math.dist(lab(THEMES[theme][one], seen), lab(THEMES[theme][other], seen))


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("theme", [0, 1])
def test_phases_look_different(theme, seen):
    close = {
        pair: distance(theme, *pair, seen)
        for pair in combinations(("read", "call", "convert", "write", "other"), 2)
    }
    assert min(close.values()) >= 14, close


def test_the_measure_tells_colours_that_such_people_see_alike():
    THEMES.append({"red": "#c03020", "green": "#5a7d10"})
    assert distance(-1, "red", "green", "all") > 60
    assert distance(-1, "red", "green", "deuteranopia") < 14
