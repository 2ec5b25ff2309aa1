"""The application on a port: loopback unless there are keys, an orderly end at SIGTERM."""

from __future__ import annotations

import ipaddress
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from crossrag.errors import ConfigError, UsageError

from .app import create_app
from .service import Service

if TYPE_CHECKING:
    from crossrag.config import Settings
    from crossrag.server_settings import ServerSettings


def check_closed(settings: ServerSettings) -> None:
    """Refuse to listen where others may come without a key.

    Raises:
        ConfigError: The address is not this machine's own alone, and there is no key.
    """
    if _is_loopback(settings.host) or settings.api_key or settings.keys or settings.insecure_no_auth:
        return
    raise ConfigError(
        f"{settings.host} can be reached from other machines, and there is no key",
        hint="Make one with `crossrag key NAME`, or set server.api_key; --insecure-no-auth does without",
    )


def serve(settings: Settings, *, listening: Callable[[str], None], service: Service | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C; running requests get `server.grace_seconds` to end.

    Args:
        settings: All of them.
        listening: Called with the address when the port is open.
        service: In place of one made from the settings.

    Raises:
        ConfigError: The address is open to others, and there is no key.
        UsageError: The port is taken.
    """
    import uvicorn

    limits = settings.server
    check_closed(limits)
    taken = bound(limits)
    made = service or Service(settings)
    config = uvicorn.Config(
        create_app(made),
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        timeout_graceful_shutdown=max(1, round(limits.grace_seconds)),
        h11_max_incomplete_event_size=16_384,
        http="h11",
        ws="none",
        lifespan="on",
        timeout_keep_alive=5,
    )
    server = _server_class()(config, made)
    # From here on, connections are kept for the server, which is about to take them.
    taken.listen(2_048)
    address, port = taken.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    listening(f"http://{shown}:{port}")
    try:
        server.run(sockets=[taken])
    finally:
        taken.close()


def _server_class() -> Any:
    import uvicorn

    class Server(uvicorn.Server):
        """Tells the service when it is to end, and ends with success."""

        def __init__(self, config: uvicorn.Config, service: Service) -> None:
            super().__init__(config)
            self._service = service

        def handle_exit(self, sig: int, frame: Any) -> None:  # noqa: ARG002 - inherited
            # Not the inherited way: that raises the signal again at the end, which would then be no success.
            self._service.stop()
            if self.should_exit and sig == signal.SIGINT:
                self.force_exit = True
            self.should_exit = True

    return Server


def bound(settings: ServerSettings) -> socket.socket:
    """A socket at the address of the settings, which does not listen yet.

    Raises:
        UsageError: The port is taken.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((settings.host, settings.port))
    except OSError as error:
        made.close()
        raise UsageError(
            f"Cannot listen at {settings.host}, port {settings.port}: {error.strerror}",
            hint="Choose another with --port, or end what listens there",
        ) from None
    return made


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
