"""Runs every client's checks in an environment of its own, against servers started here once.

`python tests/clients/run.py [CLIENT ...]` from the root; `make test-clients` does it for all.
Environments are kept in .clients/ until a client's requirements change.
"""

import os
import shutil
import subprocess
import sys
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.clients.servers import servers  # noqa: E402 - needs the path above

HERE = ROOT / "tests" / "clients"
KEPT = ROOT / ".clients"
CHECKS = "check_*"
CLIENT_S = 180  # a client that hangs is a client that fails


class NotMade(Exception):  # noqa: N818 - what there is to say about an environment
    """An environment could not be made; says why."""


def main(names):
    """Make, run, and tell: 0 when every client's checks pass."""
    chosen = names or sorted(path.name for path in HERE.iterdir() if any(path.glob(CHECKS)))
    with ThreadPoolExecutor(2) as pool:
        commands = dict(zip(chosen, pool.map(_command, chosen), strict=True))
    failed = []
    with servers() as urls:
        for name, command in commands.items():
            _say(f"== {name}")
            if not _passes(command, urls):
                failed.append(name)
    told = f"; not: {', '.join(failed)}" if failed else ""
    _say(f"{len(commands) - len(failed)} of {len(commands)} clients pass{told}")
    return bool(failed)


def _passes(command, urls):
    if isinstance(command, NotMade):
        _say(str(command))
        return False
    folder, arguments = command
    environment = {**os.environ, **urls}  # noqa: TID251 - what a child process gets
    try:
        run = subprocess.run(arguments, cwd=folder, env=environment, check=False, timeout=CLIENT_S)
    except subprocess.TimeoutExpired:
        _say(f"not done after {CLIENT_S} s")
        return False
    return run.returncode == 0


def _say(line):
    print(line, flush=True)  # noqa: T201 - a command's output


def _command(name):
    """The folder and arguments that run a client's checks, or NotMade."""
    try:
        if (HERE / name / "package.json").exists():
            return _node(name)
        return _python(name)
    except (NotMade, subprocess.CalledProcessError, OSError) as error:
        output = getattr(error, "output", "") or ""
        return NotMade(f"the environment of {name} could not be made: {error}\n{output}")


def _python(name):
    wanted = (HERE / name / "requirements.txt").read_text()
    home = KEPT / name
    interpreter = home / "bin" / "python"
    if _stale(home, wanted):
        shutil.rmtree(home, ignore_errors=True)
        venv.create(home, with_pip=True)
        _quietly(
            interpreter, "-m", "pip", "install", "--quiet", "-r", HERE / name / "requirements.txt"
        )
        (home / ".made").write_text(wanted)
    # Under the root a folder's name hides no package of the same name.
    checks = ["-m", "pytest", f"--rootdir={ROOT}", "-c", HERE / "pytest.ini", HERE / name]
    return ROOT, [interpreter, *checks]


def _node(name):
    npm = shutil.which("npm")
    if npm is None:
        raise NotMade("npm is not installed (Node.js 20 or newer brings it)")
    wanted = (HERE / name / "package-lock.json").read_text()
    home = KEPT / name
    if _stale(home, wanted):
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        for file in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name / file, home)
        _quietly(npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=home)
        (home / ".made").write_text(wanted)
    # Beside their packages, where imports look for them.
    checks = [shutil.copy(path, home) for path in [*(HERE / name).glob(CHECKS), HERE / "probe.mjs"]]
    files = [path for path in checks if not path.endswith("probe.mjs")]
    return home, ["node", "--test", "--test-reporter=spec", *files]


def _stale(home, wanted):
    made = home / ".made"
    return not made.exists() or made.read_text() != wanted


def _quietly(*arguments, cwd=ROOT):
    subprocess.run(
        [str(argument) for argument in arguments],
        cwd=cwd,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
