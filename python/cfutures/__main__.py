# SPDX-License-Identifier: MIT
"""Runs a Python program with cfutures in the place of concurrent.futures.

    python -m cfutures script.py [argument...]     also a directory or zip file with a __main__.py
    python -m cfutures -m module [argument...]
    python -m cfutures -c command [argument...]
    python -m cfutures - [argument...]             the program comes from standard input

The program finds what it finds without `-m cfutures`: its sys.argv and sys.path, and a __main__ of
its own.  That one stays to the end of the interpreter: threads and exit functions may need it, and
by it multiprocessing finds the program in the processes that it starts.
"""
import builtins
import os
import pkgutil
import runpy
import sys
import types
from importlib.machinery import BuiltinImporter, SourceFileLoader, SourcelessFileLoader

from cfutures.install import install


def main() -> None:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__.strip(), file=sys.stdout if arguments else sys.stderr)
        sys.exit(0 if arguments else 2)
    try:
        _run(*arguments)
    except Exception as error:
        sys.excepthook(*_as_of_program(error))
        sys.exit(1)


def _run(what: str, *arguments: str) -> None:
    if what in ("-m", "-c"):
        if not arguments:
            _fail(f"argument expected for the {what} option")
        (_run_module if what == "-m" else _run_command)(*arguments)
    elif what.startswith("-") and what != "-":
        _fail(f"unknown option {what} (Python's own options stand before -m cfutures)")
    elif what == "-":
        _run_input(*arguments)
    elif pkgutil.get_importer(what):
        _run_directory(what, *arguments)
    else:
        _run_script(what, *arguments)


def _as_of_program(error: Exception) -> tuple:
    """What sys.excepthook is given: the error without the frames before the program's."""
    above = (__file__, "<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>")
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename in above:
        frames = frames.tb_next
    return type(error), error.with_traceback(frames), frames


def _run_module(name: str, *arguments: str) -> None:
    _become(["-m", *arguments])
    runpy._run_module_as_main(name)


def _run_command(command: str, *arguments: str) -> None:
    module = _become(["-c", *arguments], "", __loader__=BuiltinImporter)
    exec(compile(command, "<string>", "exec"), module)


def _run_input(*arguments: str) -> None:
    name = "<stdin>"
    module = _become(["-", *arguments], "",
                     __loader__=BuiltinImporter, __file__=name, __cached__=None)
    exec(compile(sys.stdin.buffer.read(), name, "exec"), module)


def _run_directory(path: str, *arguments: str) -> None:
    _become([path, *arguments])
    replaced = 0 if sys.flags.safe_path else 1
    sys.path[:replaced] = [os.path.join(os.getcwd(), path)]
    runpy._run_module_as_main("__main__", alter_argv=False)


def _run_script(path: str, *arguments: str) -> None:
    file = os.path.join(os.getcwd(), path)
    kind = SourcelessFileLoader if path.endswith(".pyc") else SourceFileLoader
    loader = kind("__main__", file)
    try:
        data = loader.get_data(file)
    except OSError as error:
        _fail(f"can't open file {file!r}: [Errno {error.errno}] {error.strerror}")
    module = _become([path, *arguments], os.path.dirname(os.path.realpath(path)),
                     __loader__=loader, __file__=file, __cached__=None)
    # The loader's get_code() would leave a __pycache__ beside a script, which Python never does.
    source = kind is SourceFileLoader
    exec(loader.source_to_code(data, file) if source else loader.get_code("__main__"), module)


def _become(argv: list[str], first_path: str | None = None, **attributes: object) -> dict:
    """Install cfutures, take the program's arguments and first directory of sys.path, and put an
    empty __main__ in the place of this one; return its namespace."""
    install()
    sys.argv[:] = argv
    if first_path is not None and not sys.flags.safe_path:
        sys.path[0] = first_path
    module = types.ModuleType("__main__")
    vars(module).update(attributes, __builtins__=builtins)
    sys.modules["__main__"] = module
    return vars(module)


def _fail(message: str) -> None:
    print(f"{sys.executable} -m cfutures: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
