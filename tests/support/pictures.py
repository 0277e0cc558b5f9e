"""Pixels of 16 bits, and PNGs by the format's definition."""

import struct
import zlib

import numpy as np

VALUES = np.random.default_rng(0).integers(0, 65536, (48, 64, 4), dtype=np.uint16)


def png(stored: np.ndarray, bits: int, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG by its definition: unfiltered rows, with chunks before them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in stored]
    else:
        digits = ["".join(f"{value:0{bits}b}" for value in row.ravel()) for row in stored]
        rows = [int(row, 2).to_bytes(len(row) // 8, "big") for row in digits]
    header = struct.pack(">IIBBBBB", stored.shape[1], stored.shape[0], bits, colour, 0, 0, 0)
    body = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in body)
