# SPDX-License-Identifier: MIT
"""What the tasks do.  Workers of every start method import this, so it imports very little."""

import os
import time

began = 0.0  # when the import of the peer did, by time.perf_counter()
kept = {}  # what a worker has made before, so that its making is not measured


def nothing(x=None):
    return x


def add_one(x):
    return x + 1


def who(seconds):
    time.sleep(seconds)
    return os.getpid()


def length(data):
    return len(data)


def make_bytes(size):
    if size not in kept:
        kept[size] = b"\1" * size
    return kept[size]


def make_array(size):
    import numpy

    if ("array", size) not in kept:
        kept["array", size] = numpy.ones(size // 8)
    return kept["array", size]


def powers(params):
    """The task of the chunk table."""
    value, calculations = params
    for _ in range(calculations):
        value = pow(value, value)
    return value


def count_primes(bounds):
    first, end = bounds
    return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(max(first, 2), end))


def contour(paths):
    from PIL import Image, ImageFilter

    source, target = paths
    with Image.open(source) as image:
        image.filter(ImageFilter.CONTOUR).save(target)


def count_words(text):
    counts = {}
    for word in text.split() * 5:
        counts[word] = counts.get(word, 0) + 1
    return {word.decode(): count for word, count in counts.items()}
