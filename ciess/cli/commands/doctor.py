"""`ciess doctor`."""

from ciess.errors import CiessError


def doctor() -> None:
    """Versions, machine, and checks that the installation works."""
    from ciess.cli.doctor import doctor as examine

    text, healthy = examine()
    print(text)
    if not healthy:
        raise CiessError("A check failed; see above what is wrong.")
