"""The process beside a training: python -m flowsight.tracking SPOOL."""

import os
import sys
from pathlib import Path

from flowsight.tracking import sending

if __name__ == "__main__":
    code = 1
    try:
        code = 0 if sending.follow(Path(sys.argv[1])) else sending.WAITS
    finally:
        sys.stderr.flush()
        os._exit(code)  # no exit handler may ask a server that is away once more
