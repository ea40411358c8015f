"""Counter-based noise: the number that draws a token is a function of (seed, choice, position).

Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011),
vectorised. There is no generator state, so a draw depends neither on batch-mates nor on what was
drawn before: a stream can be continued on another worker from its prompt and emitted tokens.

    key      seed as two 32-bit words, low first
    counter  position low, position high, choice, 0 (the last word is left for other uses)
"""

import numpy as np
import numpy.typing as npt

UInt64Array = npt.NDArray[np.uint64]
Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]

_MASK = np.uint64(0xFFFFFFFF)
_HIGH = np.uint64(32)
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_ROUNDS = 10

Words4 = tuple[UInt64Array, UInt64Array, UInt64Array, UInt64Array]


def philox4x32(counter: Words4, key: tuple[UInt64Array, UInt64Array]) -> Words4:
    """Four 32-bit words (held in uint64) per counter. All inputs are below 2**32, of one shape."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        product0 = _MULTIPLIERS[0] * c0
        product1 = _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (product1 >> _HIGH) ^ c1 ^ k0,
            product1 & _MASK,
            (product0 >> _HIGH) ^ c3 ^ k1,
            product0 & _MASK,
        )
        k0 = (k0 + _WEYL[0]) & _MASK
        k1 = (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def uniform(seeds: UInt64Array, choices: Int64Array, positions: Int64Array) -> Float64Array:
    """One number in [0, 1) for each (seed, choice, position); three arrays of one length.

    52 bits, not 53: then `u * mass` rounds to below `mass` for every finite mass, and an inverse
    CDF never runs past its last token.
    """
    place = positions.astype(np.uint64)
    zero = np.zeros_like(place)
    counter = (place & _MASK, place >> _HIGH, choices.astype(np.uint64) & _MASK, zero)
    w0, w1, _, _ = philox4x32(counter, (seeds & _MASK, seeds >> _HIGH))
    bits = ((w0 >> np.uint64(6)) << np.uint64(26)) | (w1 >> np.uint64(6))
    return bits.astype(np.float64) * 2.0**-52
