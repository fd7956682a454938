"""uvicorn's server, on sockets that are bound before models are loaded."""

import logging
import socket

from service.api.draining import DrainingServer
from service.api.listener import let_listen, shown

log = logging.getLogger(__name__)


class Server(DrainingServer):
    """The server of a single process."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and log each address, which uvicorn does only for sockets of its own."""
        sockets = sockets or []
        let_listen(sockets)
        await super().startup(sockets)
        for each in sockets if self.started else ():
            log.info("running on http://%s", shown(each))
