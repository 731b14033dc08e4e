# SPDX-License-Identifier: MIT
"""Lets pip build the extension by CMake, from the engine's sources one directory up.

CMakeLists.txt says how it is built; here is only where the result goes, and the version.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = pathlib.Path(__file__).resolve().parent.parent
OPTIONS = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DCFUTURES_BUILD_PYTHON=ON",
    "-DCFUTURES_BUILD_TESTS=OFF",
    "-DCFUTURES_BUILD_EXAMPLES=OFF",
    "-DCFUTURES_BUILD_BENCH=OFF",
    f"-DPython3_EXECUTABLE={sys.executable}",
]


def version():
    """As the C header states it."""
    text = (ROOT / "include" / "cfutures.h").read_text("utf-8")
    digits = re.search(r"#define CF_VERSION 0x([0-9A-Fa-f]{6})\b", text)[1]
    return ".".join(str(number) for number in bytes.fromhex(digits))


class BuildByCMake(build_ext):
    def build_extension(self, ext):
        build = pathlib.Path(self.build_temp, "cmake").resolve()
        jobs = str(len(os.sched_getaffinity(0)))
        subprocess.run(["cmake", "-S", ROOT, "-B", build, *OPTIONS], check=True)
        subprocess.run(
            ["cmake", "--build", build, "--target", "cfutures_python", "-j", jobs], check=True
        )
        path = pathlib.Path(self.get_ext_fullpath(ext.name)).resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(build / "python" / "package" / "cfutures" / path.name, path)


setup(
    version=version(),
    ext_modules=[Extension("cfutures._engine", sources=[])],
    cmdclass={"build_ext": BuildByCMake},
)
