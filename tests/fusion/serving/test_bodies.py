"""Packed bodies: what comes out, and where it ends."""

import gzip
import random
import zlib

import pytest

from fusion.protocol.oip import OipError
from fusion.serving.bodies import BodyReader

LIMIT = 1_000_000
NOISE = random.Random(0).randbytes(300_000)
A, ZEROS = gzip.compress(b"a"), bytes(LIMIT)
NAMED = b"\x1f\x8b\x08\x08" + A[4:10] + b"a.bin\0" + A[10:]


def unpack(body):
    return BodyReader(LIMIT / 1e6, 1).unpack(body)


@pytest.mark.parametrize(
    ("packed", "plain"),
    [
        (gzip.compress(NOISE), NOISE),
        (zlib.compress(NOISE), NOISE),
        (gzip.compress(NOISE[:7]) + gzip.compress(NOISE[7:]), NOISE),
        (b"".join(gzip.compress(NOISE[at : at + 100]) for at in range(0, 300_000, 100)), NOISE),
        (A + gzip.compress(b"") + NAMED, b"aa"),
        (gzip.compress(b""), b""),
        (A + bytes(1), b"a"),
        (A + A + bytes(512), b"aa"),
        (gzip.compress(NOISE) + bytes(200_000), NOISE),
        (gzip.compress(ZEROS), ZEROS),
        (gzip.compress(ZEROS[1:]) + gzip.compress(b"\0"), ZEROS),
    ],
)
def test_unpacks(packed, plain):
    assert unpack(packed) == plain


@pytest.mark.parametrize(
    ("packed", "status", "said"),
    [
        (gzip.compress(ZEROS + b"\0"), 413, "too large; legal: at most 1 MB, decompressed"),
        (gzip.compress(ZEROS) + A, 413, "too large; legal: at most 1 MB, decompressed"),
        (gzip.compress(ZEROS) * 1000, 413, "too large; legal: at most 1 MB, decompressed"),
        (zlib.compress(bytes(100 * LIMIT)), 413, "too large; legal: at most 1 MB, decompressed"),
        (gzip.compress(b"") * 20_000, 413, "too many gzip members; legal: at most 10000"),
        (b"", 400, "not as its content encoding says"),
        (b"plain", 400, "not as its content encoding says"),
        (A[:-1], 400, "not as its content encoding says"),
        (A[:-8] + bytes(8), 400, "not as its content encoding says"),
        (A + A[:-1], 400, "not as its content encoding says"),
        (A + b"\x1f", 400, "not as its content encoding says"),
        (A + b"plain", 400, "not as its content encoding says"),
        (A + bytes(9) + b"plain", 400, "not as its content encoding says"),
        (A + bytes(200_000) + b"plain", 400, "not as its content encoding says"),
        (A[:-4] + bytes(9), 400, "not as its content encoding says"),
        (bytes(9), 400, "not as its content encoding says"),
        (zlib.compress(b"a") + bytes(9), 400, "not as its content encoding says"),
        (A + zlib.compress(b"a"), 400, "not as its content encoding says"),
        (zlib.compress(b"a") + zlib.compress(b"a"), 400, "not as its content encoding says"),
        (zlib.compress(b"a") + A, 400, "not as its content encoding says"),
    ],
)
def test_refuses(packed, status, said):
    with pytest.raises(OipError, match=said) as error:
        unpack(packed)
    assert error.value.status == status
