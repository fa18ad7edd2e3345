"""Searches and sweeps on Ray: the only part of the package that imports it, and that no `ciess` command needs."""
