"""The command line: the pydantic models of config.py, and the manners of a tool that other programs can call.

Exit codes: 0 done; 2 the input or the options are wrong (one paragraph on stderr); 1 the run failed; 130 interrupted.
"""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import tyro
from pydantic import ValidationError

from ciess.config import MODEL_CONFIGS, DataConfig, FitConfig, RecommenderConfig
from ciess.errors import CiessError, InputError
from ciess.storage import read_parquet

Flat = tyro.conf.arg(name="")
DataPath = Annotated[str, tyro.conf.Positional]


def _backbone(arguments: Sequence[str]) -> str:
    """The backbone asked for, so that --help and the defaults are the ones tuned for it."""
    for position, argument in enumerate(arguments):
        name = argument.partition("=")[2] if argument.startswith("--backbone=") else ""
        if argument == "--backbone" and position + 1 < len(arguments):
            name = arguments[position + 1]
        if name in MODEL_CONFIGS:
            return name
    return "lightgcn"


def _commands(arguments: Sequence[str]) -> dict[str, Callable[..., None]]:
    """Name -> function; its parameters are the options."""
    backbone = _backbone(arguments)
    fit_defaults: Any = FitConfig.model_validate({"backbone": backbone})
    bench_defaults: Any = RecommenderConfig.model_validate({"backbone": backbone})

    def data(path: DataPath, options: Annotated[DataConfig, Flat] = DataConfig()) -> None:  # noqa: B008
        """Counts, degrees and density of a data set, beside the published counts where it is known.

        Args:
            path: file, folder or zip archive with interactions; `planted` is a small embedded set.
            options: how to read it.
        """
        from ciess.data import describe

        print(describe(_read(path, options)))

    def fit(
        path: DataPath,
        out: str,
        config: Annotated[FitConfig, Flat] = fit_defaults,
        options: Annotated[DataConfig, Flat] = DataConfig(),  # noqa: B008
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Train, test and save tables of fixed sizes: full, equal, mixed.

        Args:
            path: file, folder or zip archive with interactions; `planted` is a small embedded set.
            out: run directory, a path or a URI such as s3://bucket/run.
            config: what to train.
            options: how to read the data.
            resume: go on with the run in --out: finished tables are kept, an interrupted one goes on.
            overwrite: delete the run in --out first.
        """
        from ciess.run import fit_tables

        print(fit_tables(_read(path, options), config, options, out, resume=resume, overwrite=overwrite))

    def recommend(
        table: Annotated[str, tyro.conf.Positional],
        user: str | None = None,
        users: str | None = None,
        out: str | None = None,
        k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 10,
        include_seen: bool = False,
    ) -> None:
        """Recommend items from a saved table, known items left out.

        Args:
            table: folder of a saved table, such as runs/es/tables/equal-c90-s0.
            user: one user, by the id of your own data.
            users: a file with one user id a line, or a Parquet file with a column user_id.
            out: with --users, the Parquet or CSV file to write: user_id, rank, item_id, score.
            k: items a user.
            include_seen: recommend known items too.
        """
        _recommend(table, user, users, out, k, include_seen)

    def bench(
        path: DataPath,
        config: Annotated[RecommenderConfig, Flat] = bench_defaults,
        options: Annotated[DataConfig, Flat] = DataConfig(),  # noqa: B008
        rounds: int = 15,
    ) -> None:
        """What a training step costs here, where it goes, and how far it is from its floor.

        Args:
            path: file, folder or zip archive with interactions; `planted` is a small embedded set.
            config: what to measure.
            options: how to read the data.
            rounds: times each variant is measured.
        """
        from ciess.bench import bench as measure
        from ciess.bench import bench_report

        interactions = _read(path, options)
        print(bench_report(interactions, config, measure(interactions, config, rounds)))

    def doctor() -> None:
        """Versions, machine, and checks that the installation works."""
        from ciess.doctor import doctor as examine

        text, healthy = examine()
        print(text)
        if not healthy:
            raise CiessError("A check failed; see above what is wrong.")

    return {"data": data, "fit": fit, "recommend": recommend, "bench": bench, "doctor": doctor}


def _read(path: str, options: DataConfig) -> Any:
    """The interactions at a path; `planted` is the embedded set, unless there is a file of that name."""
    from ciess import data

    if path == "planted" and not Path(path).exists():
        if options.model_dump(exclude={"split_seed"}) != DataConfig().model_dump(exclude={"split_seed"}):
            raise InputError(
                "The embedded planted data takes no reading options but --split-seed; some were given. Leave them out."
            )
        return data.planted(split_seed=options.split_seed).data
    interactions = data.read(path, **options.model_dump())
    for note in interactions.notes:
        print(note, file=sys.stderr)
    return interactions


def _recommend(folder: str, user: str | None, users: str | None, out: str | None, k: int, include_seen: bool) -> None:
    from ciess.artifact import load

    if (user is None) == (users is None) or (users is None) != (out is None):
        given = {"--user": user, "--users": users, "--out": out}
        found = " ".join(f"{name} {value}" for name, value in given.items() if value is not None) or "none of them"
        raise InputError(
            f"Found {found}. Expected --user ID alone, or --users FILE together with --out FILE. Give one of the two."
        )
    if out is not None and not out.endswith((".csv", ".parquet")):
        raise InputError(
            f"The output file is {out}, but a name that ends in .csv or .parquet was expected: the ending chooses the "
            "format. Rename it."
        )
    table = load(folder)
    if user is not None:
        best = table.recommend(user, k=k, include_seen=include_seen)
        for rank, (item, score) in enumerate(zip(best.items, best.scores, strict=True), start=1):
            print(f"{rank:>4}  {item!s:<24} {score:.4f}")
        return
    assert users is not None and out is not None
    many = table.recommend_many(_read_users(users), k=k, include_seen=include_seen)
    try:
        if out.endswith(".csv"):
            from pyarrow import csv

            csv.write_csv(many, out)
        else:
            pq.write_table(many, out)
    except OSError as error:
        raise InputError(
            f"Cannot write {out}: {error}. Expected a file in a folder that exists and can be written. Choose another "
            "--out."
        ) from error
    print(f"{out}: {many.num_rows:,} recommendations")


def _read_users(path: str) -> list[Any]:
    try:
        if path.endswith(".parquet"):
            table = read_parquet(Path(path).read_bytes())
            if "user_id" not in table.column_names:
                raise InputError(
                    f"{path} has no column user_id. The columns found are: {', '.join(table.column_names)}. Expected "
                    "the ids in user_id. Rename their column."
                )
            found = list(table["user_id"].to_pylist())
        else:
            found = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise InputError(
            f"Cannot read users from {path}: {error}. Expected a text file with one id a line, or a "
            "Parquet file with a column user_id. Check the path."
        ) from error
    if not found:
        raise InputError(f"{path} names no user. Expected one id a line, or rows in user_id. Put the ids into it.")
    return found


def _explain(error: ValidationError) -> str:
    """A pydantic error as one paragraph."""
    found = [
        f"--{'.'.join(part for part in item['loc'] if isinstance(part, str)).replace('_', '-')}: "
        f"found {item['input']!r}; {item['msg']}"
        for item in error.errors()
    ]
    return "The options are not valid. " + ". ".join(found) + ". See --help for what each option takes."


def _with_flags(text: str) -> str:
    """A message with the reading options as they are typed: `--min-rating 4` for `min_rating=4`."""
    for name in DataConfig.model_fields:
        if "_" in name:
            flag = "--" + name.replace("_", "-")
            text = re.sub(rf"\b{name}(=True)?\b", flag, text).replace(f"{flag}=", f"{flag} ")
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; `arguments` defaults to those of the process."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    status: Literal[0, 1, 2, 130] = 0
    try:
        tyro.extras.subcommand_cli_from_dict(
            _commands(arguments),
            prog="ciess",
            description="Choose how many embedding dimensions each user and item deserves.",
            args=arguments,
            config=(tyro.conf.AvoidSubcommands,),
        )
    except (CiessError, ValidationError) as error:
        if debug:
            raise
        text = _explain(error) if isinstance(error, ValidationError) else _with_flags(str(error))
        print(f"ciess: {text}", file=sys.stderr)
        status = 2 if isinstance(error, InputError | ValidationError) else 1
    except KeyboardInterrupt:
        if debug:
            raise
        print("\nciess: interrupted; `ciess fit` goes on from here with --resume.", file=sys.stderr)
        status = 130
    if status:
        sys.exit(status)
