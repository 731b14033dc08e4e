# SPDX-License-Identifier: MIT
"""One task of ten fails: its error comes where its result is asked for, the others go on."""
from cfutures import ThreadPoolExecutor, as_completed


def risky_task(x):
    if x == 5:
        raise ValueError('Bad number!')
    return x * 2


with ThreadPoolExecutor(max_workers=4) as executor:
    futures = [executor.submit(risky_task, i) for i in range(10)]
    for future in as_completed(futures):
        try:
            print(future.result())
        except Exception as e:
            print(f'Error: {e}')
