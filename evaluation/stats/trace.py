"""What a function of scores does with them, found by calling it once with stand-ins: so that a function that is written for one
table of scores can be computed for thousands of resamples at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np

from rlplatform.evaluation.stats.bootstrap import Resamples, itself
from rlplatform.evaluation.stats.measures import Measure
from rlplatform.evaluation.stats.samples import Floats, Sample


class Node:
    """A measure of scores that are not known yet. It can be put into lists and arrays, added and multiplied, and nothing else: what
    holds for one resample then holds for each of many."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, of: Callable[[Sequence[Resamples]], Floats]) -> None:
        self.of = of  # resamples of each argument -> [R]
        self.leaf: tuple[Measure, Traced] | None = None  # where it is a measure and nothing else: of what

    @classmethod
    def measured(cls, measure: Measure, scores: "Traced") -> "Node":
        """A measure of one score a run."""
        scores.check_one_point()
        node = cls(lambda arguments: measure.of(scores.pick(arguments))[0])
        node.leaf = measure, scores
        return node

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError("a node stands for a number that is not known yet")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __float__ = _refuse

    def _with(self, other: Any, does: Callable[[Any, Any], Floats]) -> "Node":
        if isinstance(other, Node):
            return Node(lambda args: does(self.of(args), other.of(args)))
        number = float(other)
        return Node(lambda args: does(self.of(args), number))

    def __add__(self, other: Any) -> "Node":
        return self._with(other, lambda a, b: a + b)

    def __sub__(self, other: Any) -> "Node":
        return self._with(other, lambda a, b: a - b)

    def __rsub__(self, other: Any) -> "Node":
        return self._with(other, lambda a, b: b - a)

    def __mul__(self, other: Any) -> "Node":
        return self._with(other, lambda a, b: a * b)

    def __truediv__(self, other: Any) -> "Node":
        return self._with(other, lambda a, b: a / b)

    __radd__, __rmul__ = __add__, __mul__


@dataclass(frozen=True)
class Traced:
    """Stands for argument `index` of a function of scores, to see whether it does more than arrange and add measures."""

    index: int
    sample: Sample

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        points, runs = len(self.sample.values), set(self.sample.runs.tolist())
        if len(runs) != 1:
            raise TypeError("ragged scores have no shape")
        return (runs.pop(), len(self.sample.runs)) + ((points,) if points > 1 else ())

    def __getitem__(self, key: Any) -> "Traced":
        """One point of a curve: scores[..., point] or scores[:, :, point]."""
        whole = key[:-1] if isinstance(key, tuple) else ()
        if whole not in ((Ellipsis,), (slice(None), slice(None))) or self.ndim != 3:
            raise TypeError("only a point of a curve is looked at")
        point = int(key[-1])
        return replace(self, sample=Sample(self.sample.tasks, self.sample.values[[point]], self.sample.runs))

    def __array__(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("these scores are not known yet")

    def pick(self, arguments: Sequence[Resamples]) -> Resamples:
        return replace(arguments[self.index], sample=self.sample)

    def check_one_point(self) -> None:
        if len(self.sample.values) != 1:
            raise TypeError("one score a run")


def trace(func: Callable[..., Any], samples: Sequence[Sample], point: Floats) -> list[Node] | None:
    """The nodes that func makes, in order; None where it does anything that nodes cannot, or where they do not give its point."""
    try:
        made = np.array(func(*(Traced(i, sample) for i, sample in enumerate(samples))), dtype=object)
        given = np.concatenate([node.of([itself(sample) for sample in samples]) for node in made.ravel()])
    except Exception:  # noqa: BLE001  # whatever it is, func is then called on real scores, where its own errors show
        return None
    return (
        list(made.ravel()) if given.shape == point.shape and np.allclose(given, point, rtol=1e-9, atol=1e-12) else None
    )


def together(nodes: Sequence[Node]) -> Callable[[Sequence[Resamples]], Floats]:
    """What all nodes come to, [nodes, R], with the points of a curve under one measure in one go."""
    alone = [i for i, node in enumerate(nodes) if node.leaf is None]
    places: dict[tuple[str, int], list[int]] = {}
    for i, node in enumerate(nodes):
        if node.leaf is not None:
            places.setdefault((node.leaf[0].name, node.leaf[1].index), []).append(i)
    curves = []
    for own in places.values():
        leaves = [leaf for i in own if (leaf := nodes[i].leaf) is not None]
        measure, first = leaves[0]
        values = np.concatenate([scores.sample.values for _, scores in leaves])
        curves.append((own, measure, replace(first, sample=Sample(first.sample.tasks, values, first.sample.runs))))

    def of(arguments: Sequence[Resamples]) -> Floats:
        out = np.empty((len(nodes), arguments[0].counts.shape[1]))
        for i in alone:
            out[i] = nodes[i].of(arguments)
        for own, measure, scores in curves:
            out[own] = measure.of(scores.pick(arguments))
        return out

    return of
