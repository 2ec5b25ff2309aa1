"""`crossrag serve`, `crossrag mcp` and `crossrag key`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from importlib.util import find_spec
from typing import Annotated, Any

import typer

from crossrag.errors import MissingExtraError, UsageError

from . import show
from .options import ConfigOption, IndexOption, SetOption, loaded


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example: crossrag serve --port 8777, then open http://127.0.0.1:8777")(serve)
    app.command(epilog="Example for a client's settings: command crossrag, arguments mcp --index PATH")(mcp)
    app.command(epilog="Example: crossrag key laptop --scope write, then add its line to crossrag.toml")(key)


def serve(
    index: IndexOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen at.")] = None,
    port: Annotated[
        int | None, typer.Option("--port", "-p", min=0, max=65_535, help="Port; 0 = any that is free.")
    ] = None,
    engine: Annotated[
        str, typer.Option("--engine", help="local, or ray: models as replicas on a cluster of Ray.")
    ] = "local",
    insecure_no_auth: Annotated[
        bool, typer.Option("--insecure-no-auth", help="Listen beyond this machine without any key.")
    ] = False,
) -> None:
    """Serve the page, its API, and the APIs of OpenAI, Cohere and TEI over HTTP."""
    _check_installed("server", "fastapi", "uvicorn", "prometheus_client", "opentelemetry", "multipart")
    if engine not in {"local", "ray"}:
        raise UsageError(f"There is no engine {engine!r}", hint="Write --engine local or --engine ray")
    chosen: dict[str, Any] = {"host": host, "port": port, "insecure_no_auth": insecure_no_auth or None}
    said = [f"server.{name}={value}" for name, value in chosen.items() if value is not None]
    from crossrag.server.observing import log_requests

    found = loaded(index, config, [*(settings or []), *said]).settings
    log_requests(found.server)
    if engine == "local":
        from crossrag.server.listening import serve as listen

        listen(found, listening=lambda address: show.talk(f"Listening at {address} (Ctrl-C ends it)."))
        return
    _check_installed("ray", "ray")
    from crossrag.scale.serve_cluster import Place
    from crossrag.scale.serve_cluster import serve as spread

    def listening(place: Place) -> None:
        ends = "Ctrl-C" if place.own else "`serve shutdown`"
        show.talk(f"Listening at {place.url} ({ends} ends it).")

    # Ray prints what happens to its workers on standard output, which is for data.
    with redirect_stdout(sys.stderr):
        spread(found, listening=listening)


def mcp(
    index: IndexOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    allow_write: Annotated[bool, typer.Option("--allow-write", help="Let the client add documents.")] = False,
) -> None:
    """Give agents search, fetch and ask over stdio, by the Model Context Protocol."""
    _check_installed("server,mcp", "mcp", "fastapi", "prometheus_client", "opentelemetry")
    from crossrag.server.mcp import Tools
    from crossrag.server.service import Service

    said = ["server.mcp_write=true"] if allow_write else []
    service = Service(loaded(index, config, [*(settings or []), *said]).settings)
    try:
        Tools(service).server().run()
    except* BrokenPipeError:
        pass  # the client has left
    finally:
        service.close()


def key(
    name: Annotated[str, typer.Argument(help="Whose key it is, for the log.")],
    scope: Annotated[str, typer.Option("--scope", help="read, write or admin.")] = "read",
    tenant: Annotated[str, typer.Option("--tenant", help="Whose documents it sees.")] = "",
) -> None:
    """Make a key for `crossrag serve`: it is shown once, and only its digest is kept."""
    from pydantic import ValidationError

    from crossrag.server.auth import new_key

    try:
        made, kept = new_key(name, scope, tenant)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise UsageError(f"{first['loc'][0]}: {first['msg']}", hint="See `crossrag key --help`") from None
    show.talk("The key, which is shown only now:")
    print(made)
    owner = f', tenant = "{kept.tenant}"' if kept.tenant else ""
    show.talk("Its entry for crossrag.toml, under [server]; further keys go into the same list:")
    show.talk(f'keys = [{{name = "{kept.name}", sha256 = "{kept.sha256}", scope = "{kept.scope}"{owner}}}]')


def _check_installed(extra: str, *modules: str) -> None:
    if missing := [module for module in modules if find_spec(module) is None]:
        raise MissingExtraError(
            f"This command needs the package {missing[0]}", hint=f"pip install 'crossrag[{extra}]'"
        )
