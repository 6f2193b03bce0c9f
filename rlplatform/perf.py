"""Where the wall-clock goes. Times are for people: nothing that a run computes depends on them."""

import time
from typing import Any


class Clock:
    """Seconds spent in watched methods, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def watch(self, owner: object, method: str, name: str) -> None:
        """From now on, add the time of each call of `owner.method` to `seconds[name]`. Watched calls may nest: each counts
        its own whole time."""
        inner = getattr(owner, method)
        self.seconds.setdefault(name, 0.0)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                self.seconds[name] += time.perf_counter() - start

        setattr(owner, method, timed)
