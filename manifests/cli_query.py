"""Commands that ask a store questions: sql, blame, status, log, show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from manifests.console import JsonOption, RefOption, StoreOption, examples, show

_PRINTED_ROWS = 40


def sql(
    store: StoreOption,
    ref: Annotated[str, typer.Argument(help="A branch, tag, commit id or ref~n.")] = "main",
    query: Annotated[
        str | None, typer.Argument(help="One SELECT; none lists the tables and their columns.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="A file with the query; -: from stdin.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=0, help="Rows to print; 0: all. [40; --json: all]"),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write all rows to this CSV file.")
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option("--parquet", help="Write all rows to this Parquet file.")
    ] = None,
    memory: Annotated[
        str, typer.Option("--memory", metavar="SIZE", help="DuckDB's memory, then it uses disk.")
    ] = "768MB",
    as_json: JsonOption = False,
) -> None:
    """Ask a ref with SQL: its layers are tables that join by shard and row. Reads only."""
    from manifests import cli_sql
    from manifests.cli import open_store
    from manifests.dataset import Dataset
    from manifests.sql import SqlSession

    text = _query_text(ref, query, file)
    with SqlSession(Dataset.open(open_store(store), ref), memory=memory) as session:
        if text is None:
            cli_sql.show_tables(session, as_json=as_json)
            return
        result = session.query(text)
        if csv or parquet:
            cli_sql.write_files(result, csv, parquet, as_json=as_json)
        elif as_json:
            cli_sql.show_json(result, limit or 0)
        else:
            cli_sql.print_rows(result, _PRINTED_ROWS if limit is None else limit)


def blame(
    store: StoreOption,
    annotation: Annotated[
        str, typer.Argument(help="An annotation id, its beginning, or source:source_id.")
    ],
    ref: RefOption = "main",
    as_json: JsonOption = False,
) -> None:
    """Where a mask comes from: commit, teacher, weights and policy, for one annotation."""
    from manifests.blame import blame
    from manifests.cli import open_store
    from manifests.cli_blame import print_blame
    from manifests.dataset import Dataset

    found = blame(Dataset.open(open_store(store), ref), annotation, ref=ref)
    show(found, as_json=as_json, human=lambda: print_blame(found))


def status(
    store: StoreOption,
    ref: Annotated[str, typer.Argument(help="A branch, tag, commit id or ref~n.")] = "main",
    as_json: JsonOption = False,
) -> None:
    """What a ref has and what is missing, with the commands that complete it."""
    from manifests.cli import open_store
    from manifests.cli_status import print_status
    from manifests.dataset import Dataset
    from manifests.prior import warn_of_prior
    from manifests.refs import Refs
    from manifests.status import status

    opened = open_store(store)
    branch = ref if ref in Refs(opened).branches() else ""
    dataset = Dataset.open(opened, ref)
    found = status(dataset, branch=branch)
    warn_of_prior(dataset)
    show(found, as_json=as_json, human=lambda: print_status(found, ref=ref))


def log(
    store: StoreOption,
    ref: RefOption = "main",
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="All branches and tags, not --ref alone.")
    ] = False,
    graph: Annotated[
        bool, typer.Option("--graph", "-g", help="Draw how branches part and merge.")
    ] = False,
    oneline: Annotated[bool, typer.Option("--oneline", help="A short line a commit.")] = False,
    layer: Annotated[
        str, typer.Option("--layer", metavar="LAYER", help="Only commits that changed this layer.")
    ] = "",
    operation: Annotated[
        str, typer.Option("--operation", metavar="NAME", help="Only commits of this operation.")
    ] = "",
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, help="Commits at most; 0: all.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """The history of a ref, newest first and never a commit before what was made of it."""
    from manifests import cli_log
    from manifests.cli import open_store
    from manifests.log import LogOptions, all_refs, log

    options = LogOptions(layer=layer, operation=operation, limit=limit, in_lines=graph)
    opened = open_store(store)
    entries = log(opened, all_refs(opened) if everything else [ref], options)
    if as_json:
        show(cli_log.log_json(entries), as_json=True, human=lambda: None)
    elif graph or oneline:
        cli_log.print_lines(entries, graph=graph, oneline=oneline)
    else:
        cli_log.print_log(entries)


def show_commit(
    store: StoreOption,
    ref: Annotated[str, typer.Argument(help="A branch, tag, commit id or ref~n.")] = "main",
    by_category: Annotated[
        bool, typer.Option("--by-category", help="The ledger by category.")
    ] = False,
    rejects: Annotated[
        bool, typer.Option("--rejects", help="Every image and box that was not kept, and why.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """One commit: all that is needed to make it again, what it holds, and its ledger."""
    from manifests import cli_show
    from manifests.cli import open_store
    from manifests.commit_details import commit_details
    from manifests.dataset import Dataset
    from manifests.rejects import rejects as find_rejects

    dataset = Dataset.open(open_store(store), ref)
    found = commit_details(dataset)
    tables = find_rejects(dataset) if rejects else ()
    rows = [row for table in tables for row in table.to_pylist()]
    rejected = rows if rejects else None
    show(
        cli_show.show_body(dataset, found, rejected),
        as_json=as_json,
        human=lambda: cli_show.print_commit(dataset, found, rejected, by_category=by_category),
    )


def _query_text(ref: str, query: str | None, file: Path | None) -> str | None:
    import sys

    from manifests.errors import InputError

    if any(character.isspace() for character in ref):
        raise InputError(
            f"expected a ref and then the query, got {ref[:40]!r} as the ref; put 'main' or "
            "another ref before it"
        )
    if file is None:
        return query
    if query is not None:
        raise InputError("a query and --file were given; give one of them")
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as a query: {error}") from error


COMMANDS: Mapping[str, tuple[Callable[..., None], str]] = {
    "sql": (
        sql,
        examples(
            "maskmill sql main --store st",
            "maskmill sql main 'select category, count(*) from boxes group by 1'",
            "maskmill sql main 'select teacher, avg(keep::int) from annotations group by 1'",
            "maskmill sql v1 --file worst.sql --csv worst.csv",
        ),
    ),
    "blame": (
        blame,
        examples(
            "maskmill blame df45e713 --store st",
            "maskmill blame coco:1768 --ref strict --json",
        ),
    ),
    "status": (status, examples("maskmill status --store st", "maskmill status strict --json")),
    "log": (
        log,
        examples(
            "maskmill log --store st",
            "maskmill log --graph --all",
            "maskmill log --oneline --layer masks/sam_vit_t",
            "maskmill log --ref strict --operation filter -n 5 --json",
        ),
    ),
    "show": (
        show_commit,
        examples(
            "maskmill show --store st",
            "maskmill show main~1 --by-category",
            "maskmill show release-1 --rejects --json",
        ),
    ),
}
"""Name -> command and what its --help shows at the end."""
