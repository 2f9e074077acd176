"""Load one page in one engine and print window.__result; the exit status is 2 when there was none."""

import argparse
import sys

from .engines import ENGINES, KNOCKOUTS, RUN_SECONDS, HtmlUnit, knock_out, open_engine


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m browserlab", description=__doc__)
    parser.add_argument("engine", choices=sorted(ENGINES))
    parser.add_argument("url")
    parser.add_argument("--timeout", type=float, default=RUN_SECONDS)
    parser.add_argument("--without", nargs="*", default=[], choices=sorted(KNOCKOUTS), help="features to remove first")
    parser.add_argument("--binary", help="the engine's program (htmlunit: the jar)")
    parser.add_argument("--browser", help="htmlunit: a BrowserVersion constant")
    arguments = parser.parse_args()
    options = {"binary": arguments.binary}
    if ENGINES[arguments.engine] is HtmlUnit and arguments.browser:
        options["browser"] = arguments.browser
    with open_engine(arguments.engine, **options) as engine:
        answer = engine.run(arguments.url, arguments.timeout, knock_out(*arguments.without) or None)
        for line in engine.log:
            print("#", line, file=sys.stderr)
    print(answer or "no answer")
    return 0 if answer else 2


if __name__ == "__main__":
    sys.exit(main())
