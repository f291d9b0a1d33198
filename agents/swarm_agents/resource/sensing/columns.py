"""A file's figures as an array, taken apart by `parse` only when its words have changed (see `scan`).

How the places of the figures are learnt: the file's numbers are replaced by their own ordinals, 1, 2, 3, …, and the
parser is let loose on that text. What it takes for a figure is where the figure stands. So there is one description of
each format, and it says which lines count.
"""

from __future__ import annotations

import itertools
import math
import os
from array import array
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import numpy as np

from swarm_agents.resource.sensing.files import Files, too_long
from swarm_agents.resource.sensing.scan import NUMBER, ROW, SAME, TOO_LONG, TOO_MANY, UNREADABLE
from swarm_agents.resource.sensing.scan import read as read_row

__all__ = ["Columns", "number"]

T = TypeVar("T")
#: Room for a text (bytes) and for numbers at first; it grows as is needed.
_TEXT, _NUMBERS = 4096, 512
_AT = {name: place for place, name in enumerate(ROW)}


class Columns(Generic[T]):
    """One file's figures.

    `learn` takes the text with ordinals for numbers; it returns what it makes of the words, and the ordinals of the
    figures (0: there is none) in an order of its own. It raises ValueError where there is nothing sensible.
    """

    def __init__(self, files: Files, path: str, learn: Callable[[bytes], tuple[T, Iterable[int]]]) -> None:
        self.path = path
        self._files, self._learn = files, learn
        self._row = np.zeros(len(ROW), np.int64)
        self._address = int(self._row.ctypes.data)
        self._row[_AT["shape"]] = -1
        self._text, self._numbers, self._places = np.zeros(0, np.uint8), np.zeros(0), np.zeros(0, np.int64)
        self._take_room(_TEXT, _NUMBERS)
        #: What `learn` made of the words; not to be had before the first `read`.
        self.words: T
        #: The figures as of the last `read`, NaN where there is none: a new array after the words have changed.
        #: An `array`, whose slices and lists cost a quarter of what NumPy's do.
        self.values = array("d")
        #: Where that array lies, for compiled code.
        self.address = 0

    def read(self) -> bool:
        """Reads the file; returns whether its words are others than before, and so the order of the figures.

        Raises:
            OSError: it can't be read.
            ValueError: there is nothing sensible in it.
        """
        self._row[0] = self._files.handle(self.path)
        found = read_row(self._address)
        if found == SAME:
            return False
        while found < 0:
            self._help(found)
            found = read_row(self._address)
        self._begin()
        return True

    def _help(self, problem: int) -> None:
        """Makes room, or says why the file can't be read."""
        if problem == TOO_LONG:
            too_long(self.path, self._text.size + 1)
            self._take_room(4 * self._text.size, self._numbers.size)
        elif problem == TOO_MANY:
            self._take_room(self._text.size, 4 * self._numbers.size)
        elif problem == UNREADABLE:
            try:
                os.pread(int(self._row[0]), 1, 0)  # compiled code has not kept what the kernel said
            except OSError:
                self._files.drop(self.path)
                raise
            raise OSError(f"/{self.path} could not be read")

    def _begin(self) -> None:
        """Learns where the figures are."""
        row = self._row
        shape, row[_AT["shape"]] = int(row[_AT["shape"]]), -1  # not known until it is learnt
        ordinals = itertools.count(1)
        text = self._text[: row[_AT["size"]]].tobytes()
        self.words, places = self._learn(NUMBER.sub(lambda _: b"%d" % next(ordinals), text))
        count = int(row[_AT["count"]])
        self._places = np.array([place if 0 < place <= count else 0 for place in places], np.int64)
        self.values = array("d", [self._numbers[place - 1] if place else math.nan for place in self._places])
        self.address = self.values.buffer_info()[0]
        row[_AT["places"]], row[_AT["values"]] = self._places.ctypes.data, self.address
        row[_AT["figures"]], row[_AT["shape"]] = self._places.size, shape

    def _take_room(self, text: int, numbers: int) -> None:
        self._text, self._numbers = np.zeros(text, np.uint8), np.zeros(numbers)
        row = self._row
        row[_AT["text"]], row[_AT["room"]] = self._text.ctypes.data, text
        row[_AT["numbers"]], row[_AT["most"]] = self._numbers.ctypes.data, numbers


def number(data: bytes) -> tuple[None, list[int]]:
    """For a file that holds one whole number, or a word such as `max` where there is none."""
    word = data.strip()
    return None, [int(word) if word.isdigit() else 0]
