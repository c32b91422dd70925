"""A command that continues in a warm process: python client.py python|dvc ARGUMENTS...

Runs isolated and without site packages, for its own start is the price of it all. When it dies, so
does the command.
"""

import json
import os
import signal
import socket
import sys


def main() -> None:
    """Hand over, wait, end as the command ended; without a warm process be the command."""
    command, arguments = sys.argv[1], sys.argv[2:]
    server = connect(command) if is_for_server(command, arguments) else None
    if server is None:
        real = f"{sys.executable.rpartition('/')[0]}/{command}"
        os.execv(real, [real, *arguments])
    request = {
        "arguments": [command, *arguments],
        "cwd": os.getcwd(),  # noqa: PTH109  pathlib takes longer to import than all of this
        "environment": dict(os.environ),
        "umask": os.umask(0),
    }
    content = json.dumps(request).encode()
    socket.send_fds(server, [len(content).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(content)
    answer = server.recv(16)
    if not answer:
        print(f"{command}: the process that ran it is gone", file=sys.stderr)
        raise SystemExit(1)
    status = int(answer)
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    raise SystemExit(os.waitstatus_to_exitcode(status))


def is_for_server(command: str, arguments: list[str]) -> bool:
    """Scripts and modules; options of Python itself belong to a process of their own."""
    if command != "python":
        return True
    return bool(arguments) and (arguments[0] == "-m" or arguments[0].endswith(".py"))


def connect(command: str) -> "socket.socket | None":
    """The warm process; None: not ready, or gone."""
    folder = os.environ.get("FLOWSIGHT_WARM", "")
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(f"{folder}/{command}.socket")
    except OSError:
        return None
    return server


main()
