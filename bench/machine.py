# SPDX-License-Identifier: MIT
"""What a figure is worth nothing without: the machine and the compiler."""

import os
import platform
import re
import subprocess
import time
from pathlib import Path


def first_match(pattern, path):
    match = re.search(pattern, Path(path).read_text(encoding="utf-8"), re.MULTILINE)
    return match[1] if match else "unknown"


def compiler(build):
    path = first_match(r"^CMAKE_C_COMPILER:\w+=(.*)$", build / "CMakeCache.txt")
    flags = first_match(r"^CMAKE_C_FLAGS_RELEASE:\w+=(.*)$", build / "CMakeCache.txt")
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    return f"{version.stdout.splitlines()[0]}, {flags}"


def describe(compiler):
    usable, present = len(os.sched_getaffinity(0)), os.cpu_count()
    memory_kib = int(first_match(r"^MemTotal:\s+(\d+)", "/proc/meminfo"))
    return {
        "CPU": first_match(r"^model name\s*:\s*(.*)$", "/proc/cpuinfo"),
        "Cores": f"{usable} usable of {present}",
        "Memory": f"{memory_kib / 2**20:.0f} GiB",
        "Kernel": f"{platform.system()} {platform.release()}",
        "Compiler": compiler,
        "Date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()) + " UTC",
        "Load before": f"{os.getloadavg()[0]:.2f}",
    }
