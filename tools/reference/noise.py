"""Starting noise: an independent writing of src/noise.rs, whose bits the fixture pins.

Philox-4x32-10 (Salmon et al., SC 2011), two uniforms of 53 bits a block, Box-Muller in float64.
"""

import json
import math
import struct

MASK = 0xFFFFFFFF


def philox4x32(counter, key):
    """Ten rounds on one block: four 32-bit words in, four out."""
    counter, key = list(counter), list(key)
    for _ in range(10):
        a, b = counter[0] * 0xD2511F53, counter[2] * 0xCD9E8D57
        counter = [(b >> 32) ^ counter[1] ^ key[0], b & MASK, (a >> 32) ^ counter[3] ^ key[1], a & MASK]
        key = [(key[0] + 0x9E3779B9) & MASK, (key[1] + 0xBB67AE85) & MASK]
    return counter


def normal(seed, stream, count):
    """`count` standard normal float32 values, as bit patterns."""
    values = []
    for block in range((count + 1) // 2):
        words = philox4x32((block & MASK, block >> 32, stream & MASK, stream >> 32), (seed & MASK, seed >> 32))
        first, second = (((words[i] << 32 | words[i + 1]) >> 11) / 2**53 for i in (0, 2))
        radius, angle = math.sqrt(-2 * math.log(1 - first)), 2 * math.pi * second
        values += [radius * math.cos(angle), radius * math.sin(angle)]
    return [struct.unpack("<I", struct.pack("<f", value))[0] for value in values[:count]]


def cases():
    """One file of bit patterns for a few seeds and streams."""

    def write(path):
        runs = [(0, 0), (1, 0), (42, 0), (42, 1), (2**64 - 1, 0)]
        rows = [{"seed": str(seed), "stream": stream, "bits": normal(seed, stream, 16)} for seed, stream in runs]
        path.with_suffix(".json").write_text(json.dumps({"runs": rows}) + "\n")

    return {"denoise/noise": write}
