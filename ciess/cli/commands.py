"""The commands of the command line: functions whose parameters are the options, most of them fields of a config."""

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import tyro

from ciess.cli.options import DataPath, Flat, _defaults, _methods
from ciess.config.data import DataConfig
from ciess.config.fit import FitConfig
from ciess.config.recommender import RecommenderConfig
from ciess.config.retrain import RetrainConfig
from ciess.config.search import SearchConfig
from ciess.errors import CiessError


def commands(arguments: Sequence[str]) -> dict[str, Callable[..., None]]:
    """Name -> function; its parameters are the options."""
    defaults = _defaults(arguments)
    search_defaults: Any = SearchConfig.model_validate(defaults)
    fit_defaults: Any = FitConfig.model_validate({"backbone": defaults["backbone"], **_methods(arguments)})
    bench_defaults: Any = RecommenderConfig.model_validate({"backbone": defaults["backbone"]})

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
        """Train, test and save tables of fixed sizes (full, equal, mixed) or of learned masks (pep, esapn, optembed).

        Args:
            path: file, folder or zip archive with interactions; `planted` is a small embedded set.
            out: run directory, a path or a URI such as s3://bucket/run.
            config: what to train.
            options: how to read the data.
            resume: go on with the run in --out: finished tables are kept, an interrupted one goes on.
            overwrite: delete the run in --out first.
        """
        from ciess.runs.fit import fit_tables

        print(fit_tables(_read(path, options), config, options, out, resume=resume, overwrite=overwrite))

    def search(
        path: DataPath,
        out: str,
        config: Annotated[SearchConfig, Flat] = search_defaults,
        options: Annotated[DataConfig, Flat] = DataConfig(),  # noqa: B008
        resume: bool = False,
        overwrite: bool = False,
        reference_from: str | None = None,
    ) -> None:
        """Search the embedding size of every user and item.

        Args:
            path: file, folder or zip archive with interactions; `planted` is a small embedded set.
            out: run directory, a path or a URI such as s3://bucket/run.
            config: how to search.
            options: how to read the data.
            resume: go on with the search in --out; it ends as an undisturbed one. --episodes may be more than before.
            overwrite: delete the run in --out first.
            reference_from: run directory whose finished reference is used, instead of training one.
        """
        from ciess.runs.search import describe_search, run_search

        found = run_search(_read(path, options), config, out, options, resume, overwrite, reference_from)
        print(describe_search(found))

    def retrain(
        run: Annotated[str, tyro.conf.Positional],
        settings: Annotated[RetrainConfig, Flat] = RetrainConfig(),  # noqa: B008
        data: str | None = None,
    ) -> None:
        """Retrain the best masks of a search for each budget; test and save them beside full, equal and mixed sizes.

        Args:
            run: run directory of `ciess search`.
            settings: what to retrain.
            data: where the interactions are, if they have moved since the search; their checksum must match.
        """
        from ciess.runs.directory import read_config, read_source
        from ciess.runs.retrain import retrain_run
        from ciess.storage.storage import Storage

        folder = Storage(run)
        _, options = read_config(folder)
        source = read_source(folder) if data is None else data
        print(retrain_run(run, settings, _read(source, options)))

    def status(run: Annotated[str, tyro.conf.Positional]) -> None:
        """How far a run is, and how long it still takes.

        Args:
            run: run directory of `ciess search`.
        """
        from ciess.runs.status import describe_status

        print(describe_status(run))

    def figures(run: Annotated[str, tyro.conf.Positional], beside: str | None = None) -> None:
        """Draw the search in a run directory as it stands: figures/search.png, iterations.png, visited.png.

        Args:
            run: run directory of `ciess search`.
            beside: another one, whose episodes stand beside these in search.png, such as a search without random walk.
        """
        from ciess.runs.figures import write_search_figures

        print("\n".join(f"wrote {path}" for path in write_search_figures(run, beside)))

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
        from ciess.cli.recommend import write_recommendations

        write_recommendations(table, user, users, out, k, include_seen)

    def bench(
        path: DataPath,
        config: Annotated[RecommenderConfig, Flat] = bench_defaults,
        options: Annotated[DataConfig, Flat] = DataConfig(),  # noqa: B008
        rounds: int = 15,
        run: str | None = None,
    ) -> None:
        """What a training step costs here, where it goes, and how far it is from its floor.

        Args:
            path: file, folder or zip archive with interactions; `planted` is a small embedded set.
            config: what to measure.
            options: how to read the data.
            rounds: times each variant is measured.
            run: run directory of a search: compare what its short fits took with what they should, instead.
        """
        from ciess.bench.step import bench as measure
        from ciess.bench.step import bench_report

        interactions = _read(path, options)
        if run is not None:
            from ciess.bench.search import bench_search, describe_search_bench
            from ciess.storage.storage import Storage

            print(describe_search_bench(bench_search(interactions, Storage(run), rounds)))
            return
        print(bench_report(interactions, config, measure(interactions, config, rounds)))

    def doctor() -> None:
        """Versions, machine, and checks that the installation works."""
        from ciess.cli.doctor import doctor as examine

        text, healthy = examine()
        print(text)
        if not healthy:
            raise CiessError("A check failed; see above what is wrong.")

    return {
        "data": data,
        "fit": fit,
        "search": search,
        "retrain": retrain,
        "status": status,
        "figures": figures,
        "recommend": recommend,
        "bench": bench,
        "doctor": doctor,
    }


def _read(path: str, options: DataConfig) -> Any:
    """The interactions that a command is given; what reading has to say of them goes to stderr."""
    from ciess.data.source import read_source

    interactions = read_source(path, options)
    for note in interactions.notes:
        print(note, file=sys.stderr)
    return interactions
