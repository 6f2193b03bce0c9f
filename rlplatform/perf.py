"""Where the wall-clock goes. Times are for people: nothing that a run computes depends on them."""

import time
from collections.abc import Callable
from typing import Any


class Clock:
    """Seconds spent in watched methods, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def watch(self, owner: object, method: str, name: str) -> None:
        """From now on, add the time of each call of `owner.method` to `seconds[name]`. Watched calls may nest: each counts
        its own whole time."""
        setattr(owner, method, self.timed(getattr(owner, method), name))

    def timed(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        """`call`, the time of which is added to `seconds[name]`."""
        self.seconds.setdefault(name, 0.0)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds[name] += time.perf_counter() - start

        return timed
