"""Runs the Autobahn fuzzing client against a WebSocket echo and prints what it thought of it.

The suite is a Python 2.7 program, so it lives in an environment of its own (.autobahn/ at the top of the project, made
on the first run) and is told about the server under test by URL only. Standard library only; README.md beside this
file says how to use it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import venv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOME = HERE.parents[1] / ".autobahn"
REQUIREMENTS = HERE / "requirements.txt"
ENDPOINT = "/autobahn/websocket"
AGENT = "polysock"
# The last virtualenv that can make environments for Python 2.7.
VIRTUALENV = "virtualenv<20.22"
# Optional C helpers of the suite: the mass and compression cases run several times faster, the verdicts are the same.
ACCELERATOR = "wsaccel==0.6.2"
# Modules that are meant for the Python at hand must not get in the way of the old one.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
VERDICTS = ("OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED", "UNCLEAN", "WRONG CODE", "FAILED BY CLIENT", "FAILED")
HARMLESS = frozenset({"OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"})


def find_python2(wanted: str) -> str:
    """The interpreter to use: the one named, else $PYTHON2, python2.7 on the path or in pyenv. Tried, not trusted."""
    candidates = [wanted]
    if wanted == "auto":
        pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
        candidates = [os.environ.get("PYTHON2", ""), "python2.7", "python2"]
        candidates += map(str, pyenv.glob("versions/2.7*/bin/python"))
    for name in candidates:
        path = shutil.which(name) if name else None
        if path is None:
            continue
        # sys.executable, because version managers put a shim on the path that is no interpreter itself.
        question = "import sys; print(sys.executable if sys.version_info[:2] == (2, 7) else '')"
        answer = subprocess.run([path, "-c", question], capture_output=True, text=True, check=False).stdout.strip()
        if answer:
            return answer
    sys.exit("The Autobahn suite needs CPython 2.7: put python2.7 on the path, set PYTHON2, or pass --python2 PATH.")


def prepare(python2: str) -> Path:
    """Make the environment if it is missing or its pins changed; return the suite's program."""
    stamp, wstest = HOME / "installed.txt", HOME / "python2" / "bin" / "wstest"
    pins = REQUIREMENTS.read_text(encoding="utf-8")
    if wstest.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == pins:
        return wstest
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir()
    (HOME / ".gitignore").write_text("*\n", encoding="utf-8")
    print(f"Installing the Autobahn test suite into {HOME.name}/ ...", flush=True)
    venv.create(HOME / "maker", with_pip=True)
    maker = HOME / "maker" / "bin"
    quiet = ["--quiet", "--disable-pip-version-check"]
    subprocess.run([maker / "python", "-m", "pip", "install", *quiet, VIRTUALENV], check=True)
    make = [maker / "virtualenv", "--quiet", "--python", python2, HOME / "python2"]
    subprocess.run(make, env=ENVIRONMENT, check=True)
    # Its pip is the last one for 2.7 and warns on every call that 2.7 is over.
    pip = [HOME / "python2" / "bin" / "python", "-W", "ignore", "-m", "pip", "install", *quiet, "--no-deps"]
    subprocess.run([*pip, "-r", REQUIREMENTS], env=ENVIRONMENT, check=True)
    if subprocess.run([*pip, ACCELERATOR], env=ENVIRONMENT, capture_output=True, check=False).returncode:
        print("(no C compiler for Python 2.7: the suite runs without its accelerator, more slowly)")
    stamp.write_text(pins, encoding="utf-8")
    return wstest


@contextlib.contextmanager
def server_under_test(url: str | None) -> Iterator[str]:
    if url:
        yield url
        return
    sys.path.insert(0, str(HERE.parent))
    from support.interop_server import running_interop_server

    log = HOME / "server.log"
    with running_interop_server(log) as address:
        yield address.replace("http", "ws", 1) + ENDPOINT
    if written := log.read_text(encoding="utf-8", errors="replace"):
        print(f"The server under test wrote to its standard error:\n{written[-4000:]}")


def fuzz(wstest: Path, url: str, cases: list[str], excluded: list[str], limit_seconds: float) -> dict[str, dict]:
    """Run the cases; return the suite's own index of results, by case."""
    reports = HOME / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    spec = HOME / "fuzzingclient.json"
    wanted = {
        "outdir": str(reports),
        "servers": [{"agent": AGENT, "url": url}],
        "cases": cases,
        "exclude-cases": excluded,
        "exclude-agent-cases": {},
    }
    spec.write_text(json.dumps(wanted), encoding="utf-8")
    log = HOME / "wstest.log"
    print(f"Fuzzing {url} (at most {limit_seconds:.0f} s) ...", flush=True)
    with log.open("wb") as output:
        command = [wstest, "--mode", "fuzzingclient", "--spec", spec]
        try:
            done = subprocess.run(
                command,
                env=ENVIRONMENT,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=limit_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            sys.exit(f"The suite did not finish in {limit_seconds:.0f} s; see {log}")
    index = reports / "index.json"
    if done.returncode or not index.exists():
        sys.exit(
            f"The suite ended with {done.returncode} and without results:\n{log.read_text(errors='replace')[-4000:]}"
        )
    return json.loads(index.read_text(encoding="utf-8"))[AGENT]


def worst(result: dict) -> str:
    """One word for a case: a flawed close counts as much as a flawed answer; an unexamined one does not count."""
    return max(result["behavior"], result["behaviorClose"], key=VERDICTS.index)


def case_order(case: str) -> list[int]:
    return [int(part) for part in case.split(".")]


def summary(results: dict[str, dict]) -> str:
    verdicts = {case: worst(results[case]) for case in sorted(results, key=case_order)}
    counts = Counter(verdicts.values())
    lines = [f"| {'verdict':16} | cases |", f"|{'-' * 18}|------:|"]
    lines += [
        f"| {verdict:16} | {counts[verdict]:5} |" for verdict in VERDICTS if counts[verdict] or verdict == "FAILED"
    ]
    lines += [f"| {'all':16} | {len(verdicts):5} |", ""]
    for case, verdict in verdicts.items():
        if verdict != "OK":
            result = results[case]
            lines.append(
                f"{case:9} {verdict:16} answer {result['behavior']}, close {result['behaviorClose']}"
                f" with code {result['remoteCloseCode']}, {result['duration']} ms"
            )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python2", default="auto", help="CPython 2.7 (default: $PYTHON2, or python2.7 on the path)")
    parser.add_argument("--cases", default="*", help="comma list of cases to run, such as '1.*,7.9.*' (default: all)")
    parser.add_argument("--exclude", default="", help="comma list of cases to leave out, such as '9.*,12.*,13.*'")
    parser.add_argument("--url", help="a WebSocket echo that runs already (default: starts tests/interop/server.py)")
    parser.add_argument("--time-limit", type=float, default=3600.0, help="seconds for the whole run (default: 3600)")
    options = parser.parse_args()
    wstest = prepare(find_python2(options.python2))
    cases, excluded = ([part for part in text.split(",") if part] for text in (options.cases, options.exclude))
    with server_under_test(options.url) as url:
        results = fuzz(wstest, url, cases, excluded, options.time_limit)
    print(f"\n{summary(results)}\n\nDetails of each case: {(HOME / 'reports' / 'index.html').relative_to(HOME.parent)}")
    return 0 if results and all(worst(result) in HARMLESS for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
