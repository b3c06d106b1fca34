"""Numbers distinct things in order of first appearance, and translates between two numberings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from traceq.model import Ints


class Interner(dict[Any, int]):
    """Numbers distinct keys in order of first appearance."""

    def __missing__(self, key: Any) -> int:
        self[key] = number = len(self)
        return number


class Renumbering:
    """From indices of a growing list to the numbers that ``number_of`` gives its items.

    An item is numbered when its index is first met. A list that is another object than the one
    before starts a new translation.
    """

    def __init__(self, number_of: Callable[[Any], int]) -> None:
        self._number_of = number_of
        self._items: Sequence[Any] = ()
        self._numbers: Ints = np.zeros(0, np.int64)

    def __call__(self, items: Sequence[Any], indices: Ints) -> Ints:
        """The number of each of the items at these indices."""
        if items is not self._items:
            self._items, self._numbers = items, np.zeros(0, np.int64)
        missing = len(items) - len(self._numbers)
        if missing:
            self._numbers = np.append(self._numbers, np.full(missing, -1))
        numbers: Ints = self._numbers[indices]
        if numbers.min(initial=0) < 0:
            new = np.unique(indices[numbers < 0])
            self._numbers[new] = [self._number_of(items[index]) for index in new.tolist()]
            numbers = self._numbers[indices]
        return numbers
