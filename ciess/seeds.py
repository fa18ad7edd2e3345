"""Seeds that derive from content, so that neither order nor process can change a result."""

import hashlib
import json


def derive_seed(*content: int | str) -> int:
    """Seed in [0, 2**63) of what is to be drawn, for instance `derive_seed(run_seed, "samples", epoch)`.

    Equal content gives the equal seed in every process and on every machine.
    """
    text = json.dumps(content, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
