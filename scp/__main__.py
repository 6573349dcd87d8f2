"""Start the control plane: 1 settings, 2 the key, 3 the ports, 4 gunicorn until SIGTERM."""

from __future__ import annotations

import structlog

from scp.server import Server
from scp.settings import ScpSettings, refuse_public_address
from scp.tokens import signing_key
from service import logs
from service.admin import bind
from service.errors import OperatorError
from service.run import fail
from service.settings import load, shown

log = structlog.get_logger()


def start() -> None:
    """Run until SIGTERM.  Raises: OperatorError for what the operator must mend."""
    settings = load(ScpSettings)
    logs.setup("scp", settings.log_level, settings.log_format)
    log.info("starting", **shown(settings))
    refuse_public_address(settings)
    signing_key(settings.run_dir)
    bind(settings.admin_host, settings.admin_port, "SCP_ADMIN_PORT").close()  # the worker opens it; a taken one ends here
    Server(settings, bind(settings.host, settings.port, "SCP_PORT")).run()


def main() -> None:
    """Entry point: an operating failure is one line on stderr."""
    try:
        start()
    except OperatorError as error:
        fail("scp", error)


main()
