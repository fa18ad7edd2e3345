"""Compression methods, by the name that the command line uses."""

from ciess.methods.esapn.esapn import check_sizes, esapn
from ciess.methods.fixed import equal, full, mixed
from ciess.methods.method import Method, both_sides
from ciess.methods.optembed.optembed import optembed
from ciess.methods.pep.pep import check_thresholds, pep
from ciess.methods.sized import sized

METHODS: dict[str, Method] = {
    "full": Method(full),
    "equal": Method(equal),
    "mixed": Method(mixed),
    "sized": Method(sized, learned=True),
    "pep": Method(pep, learned=True, check=both_sides, check_data=check_thresholds),
    "esapn": Method(esapn, learned=True, precise=False, check=check_sizes),
    "optembed": Method(optembed, learned=True, precise=False, check=both_sides),
}
"""Name -> method; the tables of all of them are retrained and tested alike."""

__all__ = ["METHODS", "Method"]
