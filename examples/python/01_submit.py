# SPDX-License-Identifier: MIT
"""Three calls on three threads; each result is taken as soon as it is there."""
import cfutures
import time


def some_function(n):
    print(f'start function {n}\n')
    time.sleep(0.2 * n)
    print(f'end function {n}\n')
    return n


with cfutures.ThreadPoolExecutor(max_workers=3) as executor:
    futures = [executor.submit(some_function, n) for n in range(1, 4)]
    for future in cfutures.as_completed(futures):
        result = future.result()
        print(f'Thread that finished: {result} \n')
