"""`python cut_off.py SUBCOMMAND ...`: Dunno in a process that may call nobody.

Whoever connects, sends, or asks for the address of a name ends the process at once; a library
could not hide it. Code that is no Python is not seen here: for that there is the empty network.
"""

import os
import sys

CALLING = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.gethostbyname"}
CALLED_SOMEBODY = 99


def refuse_calls(event: str, arguments: tuple[object, ...]) -> None:
    """Take part in Python's own auditing, https://peps.python.org/pep-0578/."""
    is_name = event == "socket.getaddrinfo" and arguments[0] not in ("127.0.0.1", None)
    if event in CALLING or is_name:
        os.write(2, f"called somebody: {event} {arguments}\n".encode())
        os._exit(CALLED_SOMEBODY)


if __name__ == "__main__":
    sys.addaudithook(refuse_calls)
    from service.cli import main

    main()
