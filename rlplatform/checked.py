"""What a configuration says of values that cannot be."""

from collections.abc import Collection
from math import inf
from typing import ClassVar


class Checked:
    """A dataclass's base: each check names fields of it, and raises ValueError with the name and value of the first one that fails."""

    section: ClassVar[str] = ""  # what a field's name begins with in messages: "trust."

    def _expect(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise ValueError(f"{self.section}{name} must be {what}, got {getattr(self, name)!r}")

    def _one_of(self, known: Collection[str], name: str) -> None:
        self._expect(name, getattr(self, name) in known, f"one of {', '.join(known)}")

    def _at_least(self, least: int, *names: str) -> None:
        for name in names:
            self._expect(name, getattr(self, name) >= least, f">= {least}")

    def _positive(self, *names: str) -> None:
        for name in names:
            self._expect(name, 0.0 < getattr(self, name) < inf, "positive and finite")

    def _not_negative(self, *names: str) -> None:
        for name in names:
            self._expect(name, 0.0 <= getattr(self, name) < inf, "finite and >= 0")

    def _share(self, *names: str) -> None:
        for name in names:
            self._expect(name, 0.0 <= getattr(self, name) <= 1.0, "in [0, 1]")
