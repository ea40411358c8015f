"""Lowers a model in a process of its own: torch and the weights in float32 go with it.

    python -m engines.openvino.lowering_process MODEL_DIR DTYPE FOLDER FREE_BYTES

What it makes is in the folder then: the facts and the graph. Why it could not is its last line.
"""

import json
import subprocess
import sys
from pathlib import Path

from engines.errors import ModelRejected

_REFUSED = 3  # with the reason


def lower_apart(path: Path, dtype: str, folder: Path, free_bytes: int) -> None:
    """Do it and wait. Raises ModelRejected also where the process was ended, as for its memory."""
    given = (str(path.absolute()), dtype, str(folder.absolute()), str(free_bytes))
    done = subprocess.run(  # noqa: S603 - this module, by the Python that runs
        [sys.executable, "-m", "engines.openvino.lowering_process", *given],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == _REFUSED:
        raise ModelRejected(json.loads(done.stdout.splitlines()[-1]))
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ModelRejected(f"{path} could not be lowered: exit code {done.returncode}, {last}")


def _main(path: str, dtype: str, folder: str, free_bytes: str) -> int:
    from engines.openvino.loading import lower_into  # noqa: PLC0415 - the caller needs none of it

    try:
        lower_into(Path(path), dtype, Path(folder), int(free_bytes))
    except (ModelRejected, OSError) as error:
        sys.stdout.write(f"\n{json.dumps(str(error))}\n")
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
