"""Philox4x32-10 of Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3, in unbounded integers."""

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # the golden ratio, and sqrt(3) - 1
WORD = 2**32


def philox4x32(key: tuple[int, int], counter: tuple[int, int, int, int], rounds: int = 10) -> tuple[int, ...]:
    """The four words that `counter` is mapped to under `key`."""
    left0, right0, left1, right1 = counter
    for r in range(rounds):
        round_key = [(k + r * w) % WORD for k, w in zip(key, WEYL, strict=True)]
        high0, low0 = divmod(MULTIPLIERS[0] * left0, WORD)
        high1, low1 = divmod(MULTIPLIERS[1] * left1, WORD)
        left0, right0, left1, right1 = high1 ^ right0 ^ round_key[0], low1, high0 ^ right1 ^ round_key[1], low0
    return left0, right0, left1, right1


def block(key: int, counter: int) -> tuple[int, ...]:
    """Block `counter` (64 bits) of the stream with a 64-bit key, low words first."""
    return philox4x32((key % WORD, key // WORD), (counter % WORD, counter // WORD, 0, 0))
