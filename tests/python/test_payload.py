# SPDX-License-Identifier: MIT
"""What crosses to a worker process and back arrives whole, whatever its size, and belongs to who
received it: it is writable where the standard module's is, shares memory with nothing, and outlives
its task, its worker and its pool."""
import gc
import hashlib
import pickle
import random

import pytest
from support import LIMIT, futures, long, ours, process_pool, run_json

numpy = pytest.importorskip("numpy")

KIB, MIB = 1 << 10, 1 << 20
SIZES = [
    0,
    1,
    79,
    80,
    81,
    95,
    96,
    97,
    4095,
    4096,
    64 * KIB - 1,
    64 * KIB,
    64 * KIB + 1,
    256 * KIB,
    MIB - 1,
    MIB,
    MIB + 1,
    5 * MIB + 3,
]
LARGE = [16 * MIB, 64 * MIB]


@pytest.fixture(scope="module")
def pool(nothing_stays):
    with process_pool(2, method="fork") as executor:
        yield executor


def block(size, seed=1):
    """Bytes that repeat nowhere near."""
    return random.Random(seed).randbytes(size)


MAKERS = {
    "bytes": block,
    "bytearray": lambda size: bytearray(block(size)),
    "array": lambda size: numpy.frombuffer(block(size), numpy.uint8),
    "writable array": lambda size: numpy.frombuffer(block(size), numpy.uint8).copy(),
}


# Tasks ------------------------------------------------------------------------------------------


def echo(value):
    return value


def make(kind, size):
    return MAKERS[kind](size)


def look(value):
    """What the worker sees: its kind, a digest, and whether it may write to it."""
    return type(value).__name__, digest(value), writable(value)


def digest(value):
    return hashlib.sha1(value).hexdigest()


def writable(value):
    return not memoryview(value).readonly


def write(value):
    """Write to an argument, and give it back."""
    value[:3] = b"abc" if isinstance(value, bytearray) else 7
    return value


def keep(value):
    KEPT.append(value)
    return len(KEPT)


def kept(number):
    return KEPT[number]


KEPT = []


def shape(array):
    return array.shape, str(array.dtype), array.flags["C_CONTIGUOUS"], array.sum().item()


# There and back ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("size", SIZES + LARGE[:1])
def test_there(pool, kind, size):
    value = MAKERS[kind](size)
    name, its_digest, _ = pool.submit(look, value).result(LIMIT)
    assert (name, its_digest) == (type(value).__name__, digest(value))


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("size", SIZES + LARGE[:1])
def test_back(pool, kind, size):
    value, expected = pool.submit(make, kind, size).result(LIMIT), MAKERS[kind](size)
    assert type(value) is type(expected) and digest(value) == digest(expected)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("size", [0, 100, 100 * KIB, LARGE[1]])
def test_there_and_back(pool, kind, size):
    value = MAKERS[kind](size)
    result = pool.submit(echo, value).result(LIMIT)
    assert type(result) is type(value) and result is not value or size == 0
    assert digest(result) == digest(value)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("size", [100, 100 * KIB, MIB])
def test_writable_as_with_a_plain_pickle(pool, kind, size):
    """In the worker and here: what is writable after pickling in the usual way."""
    value = MAKERS[kind](size)
    plain = writable(pickle.loads(pickle.dumps(value)))
    assert pool.submit(look, value).result(LIMIT)[2] is plain
    assert writable(pool.submit(echo, value).result(LIMIT)) is plain
    assert writable(pool.submit(make, kind, size).result(LIMIT)) is plain


@pytest.mark.parametrize("kind", ["bytearray", "writable array"])
@pytest.mark.parametrize("size", [100, 100 * KIB, MIB, 16 * MIB])
def test_what_a_task_writes_stays_there(pool, kind, size):
    value = MAKERS[kind](size)
    before = digest(value)
    changed = pool.submit(write, value).result(LIMIT)
    assert digest(value) == before and bytes(changed[3:]) == bytes(value[3:])
    assert bytes(changed[:3]) in (b"abc", b"\7\7\7")


@pytest.mark.parametrize("size", [100, 100 * KIB, MIB, 16 * MIB])
def test_results_share_nothing(pool, size):
    """Two results of the same call, and a result and its source, are written independently."""
    source = bytearray(block(size))
    one, two = (pool.submit(echo, source).result(LIMIT) for _ in range(2))
    one[0:4] = b"1111"
    two[0:4] = b"2222"
    assert (bytes(one[:4]), bytes(two[:4])) == (b"1111", b"2222")
    assert bytes(source) == block(size) and one[4:] == two[4:] == source[4:]


@pytest.mark.parametrize("size", [100, 100 * KIB, 4 * MIB])
def test_the_caller_may_change_an_argument_after_submitting(pool, size):
    """Once the task has begun; before that the standard module may take either state."""
    source = bytearray(block(size))
    task = pool.submit(echo, source)
    result = task.result(LIMIT)
    source[:] = bytes(size)
    assert result == block(size)


@pytest.mark.parametrize("size", [100, 100 * KIB, 4 * MIB])
def test_results_outlive_what_follows(pool, size):
    """A block that is used again must not show in a result that is still held."""
    held = [pool.submit(echo, block(size, seed)).result(LIMIT) for seed in range(12)]
    arrays = [pool.submit(make, "writable array", size).result(LIMIT) for _ in range(4)]
    for seed in range(50, 60):
        pool.submit(echo, block(size, seed)).result(LIMIT)
    assert held == [block(size, seed) for seed in range(12)]
    assert all(digest(array) == digest(block(size)) for array in arrays)


@pytest.mark.parametrize("size", [100, 100 * KIB, 4 * MIB])
def test_arguments_outlive_their_task_in_the_worker(size):
    """What a task keeps is still whole after many others."""
    with process_pool(1, method="fork") as pool:
        values = [
            block(size, 1),
            bytearray(block(size, 2)),
            numpy.frombuffer(block(size, 3), numpy.uint8),
        ]
        for value in values:
            pool.submit(keep, value).result(LIMIT)
        for seed in range(20, 40):
            pool.submit(echo, block(size, seed)).result(LIMIT)
        for number, value in enumerate(values):
            assert bytes(pool.submit(kept, number).result(LIMIT)) == bytes(value)


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_results_outlive_the_pool(method):
    with process_pool(1, method=method) as pool:
        results = [
            pool.submit(make, kind, size).result(LIMIT)
            for size in (100, 100 * KIB, 4 * MIB)
            for kind in MAKERS
        ]
    del pool
    gc.collect()
    expected = [MAKERS[kind](size) for size in (100, 100 * KIB, 4 * MIB) for kind in MAKERS]
    assert list(map(digest, results)) == list(map(digest, expected))
    for result in results:
        if writable(result):
            result[:1] = result[1:2]


# Structures -------------------------------------------------------------------------------------


def test_many_buffers_in_one_call(pool):
    values = {number: numpy.full(number * 5000, number, numpy.int64) for number in range(20)}
    result = pool.submit(echo, values).result(LIMIT)
    assert all((result[number] == values[number]).all() for number in values)


def test_one_buffer_twice(pool):
    array = numpy.arange(100_000)
    one, two = pool.submit(echo, [array, array]).result(LIMIT)
    assert one is two and (one == array).all()


@pytest.mark.parametrize(
    "dtype",
    ["bool", "i1", "u2", "i4", "f4", "f8", "c16", "U3", "M8[s]", [("a", "i4"), ("b", "f8")]],
)
def test_kinds_of_arrays(pool, dtype):
    array = numpy.zeros(100_000, dtype)
    result = pool.submit(echo, array).result(LIMIT)
    assert result.dtype == array.dtype and (result == array).all()


@pytest.mark.parametrize(
    "view",
    [
        lambda array: array.T,
        lambda array: array[::2],
        lambda array: array[:, 5:50],
        lambda array: numpy.asfortranarray(array),
        lambda array: array[::-1, ::-3],
        lambda array: array.reshape(-1, 10, 10),
        lambda array: array[0:0],
    ],
)
def test_shapes_of_arrays(pool, view):
    array = view(numpy.arange(250_000, dtype=numpy.int32).reshape(500, 500))
    assert pool.submit(shape, array).result(LIMIT) == shape(pickle.loads(pickle.dumps(array)))
    result = pool.submit(echo, array).result(LIMIT)
    assert result.shape == array.shape and (result == array).all()


def test_an_array_of_objects(pool):
    array = numpy.array([None, "text", 10**30, (1, 2)] * 20_000, dtype=object)
    assert (pool.submit(echo, array).result(LIMIT) == array).all()


class Holder:
    """It gives its buffer out of band, as protocol 5 allows."""

    def __init__(self, data):
        self.data = data

    def __reduce_ex__(self, protocol):
        if protocol < 5:
            return Holder, (bytes(self.data),)
        return Holder, (pickle.PickleBuffer(self.data),)

    def content(self):
        return bytes(self.data)


@pytest.mark.parametrize("size", [0, 100, 100 * KIB, MIB])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_buffers_out_of_band(pool, size, kind):
    data = kind(block(size))
    result = pool.submit(echo, Holder(data)).result(LIMIT)
    assert result.content() == block(size)


def test_long_text(pool):
    text = "caf\u00e9 \U0001F40D" * 300_000
    assert pool.submit(echo, text).result(LIMIT) == text


def test_deep_structures(pool):
    value = [{"number": number, "data": bytes([number % 256]) * number} for number in range(2000)]
    assert pool.submit(echo, value).result(LIMIT) == value


def test_large_arguments_by_name(pool):
    data = block(MIB)
    assert pool.submit(dict, a=data, b=data).result(LIMIT) == {"a": data, "b": data}


# Many at once -----------------------------------------------------------------------------------


def test_sizes_at_random(pool):
    dice = random.Random(7)
    sizes = [int(2 ** dice.uniform(0, 21)) for _ in range(150)]
    tasks = [pool.submit(echo, block(size, size)) for size in sizes]
    for size, task in zip(sizes, tasks):
        assert task.result(LIMIT) == block(size, size)


def test_map_of_large_values(pool):
    values = [block(300 * KIB, seed) for seed in range(30)]
    assert list(pool.map(echo, values)) == values
    assert list(pool.map(echo, values, chunksize=7)) == values


def test_both_ways_full():
    """Large arguments and large results at once, read by nobody for a while."""
    with process_pool(2, method="fork") as pool:
        data = block(20 * MIB)
        tasks = [pool.submit(echo, data) for _ in range(6)]
        assert futures.wait(tasks, timeout=LIMIT).not_done == set()
        assert all(task.result() == data for task in tasks)


def test_large_values_from_many_threads(pool):
    def work(seed):
        data = block(MIB, seed)
        return all(pool.submit(echo, data).result(LIMIT) == data for _ in range(5))

    with futures.ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(4)))


def test_a_large_error(pool):
    error = pool.submit(raise_large, MIB).exception(LIMIT)
    assert type(error) is ValueError and error.args == (block(MIB),)


def raise_large(size):
    raise ValueError(block(size))


@ours
def test_memory_comes_back():
    """Much that came and went leaves little behind, in the parent and in the worker."""
    grown = run_json(
        """
        def task(data):
            return data
        def memory():
            return sum(rss(pid) for pid in [os.getpid(), *pool._processes])
        def rss(pid):
            fields = open(f"/proc/{pid}/smaps_rollup").read().split()
            return int(fields[fields.index("Pss:") + 1])
        if __name__ == "__main__":
            with process_pool(1, method="fork") as pool:
                data = bytes(8 << 20)
                for _ in range(5):
                    pool.submit(task, data).result()
                before = memory()
                for _ in range(40):
                    pool.submit(task, data).result()
                report(memory() - before)
    """
    )
    assert grown < 40 * KIB  # in KiB: 640 MiB have crossed


@ours
def test_descriptors_do_not_pile_up():
    assert (
        run_json(
            """
        def task(data):
            return data
        if __name__ == "__main__":
            with process_pool(1, method="fork") as pool:
                data = bytes(1 << 20)
                held = [pool.submit(task, data).result() for _ in range(5)]
                before = descriptors()
                held += [pool.submit(task, data).result() for _ in range(200)]
                report(descriptors() - before)
    """
        )
        <= 16
    )


@long
@ours
@pytest.mark.parametrize("size", [2**31 - 1, 2**31, 2**32 + 1])
def test_sizes_around_32_bits(size):
    """By a digest: neither direction cuts a length."""
    assert (
        run_json(
            """
        import hashlib
        def count(data):
            return len(data), hashlib.blake2b(data[:100] + data[-100:]).hexdigest()
        def produce(size):
            return b"x" * (size - 1) + b"y"
        if __name__ == "__main__":
            size = int(sys.argv[1])
            with process_pool(1, method="fork") as pool:
                data = produce(size)
                there = tuple(pool.submit(count, data).result(200)) == count(data)
                del data
                back = pool.submit(produce, size).result(200)
                report([there, len(back) == size, back[-2:] == b"xy"])
    """,
            size,
            limit=500,
        )
        == [True, True, True]
    )
