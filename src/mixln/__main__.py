"""The command `mixln`, also as `python -m mixln` and under torchrun."""

import sys


def main() -> int:
    """Runs the command line; see :func:`mixln.cli.main`. Its packages are those of the extra `experiments`."""
    try:
        from mixln import cli
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "mixln":
            raise
        print(f'mixln: the command line needs {error.name}; run pip install "mixln[experiments]"', file=sys.stderr)
        return 2
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
