# SPDX-License-Identifier: MIT
"""Three slow requests, simulated: they wait at the same time."""
from cfutures import ThreadPoolExecutor, as_completed
import time


def fetch_data(endpoint):
    print(f'Fetching {endpoint}')
    time.sleep(2)
    return f'Data from {endpoint}'


endpoints = ['api/data1', 'api/data2', 'api/data3']

with ThreadPoolExecutor(max_workers=3) as executor:
    futures = [executor.submit(fetch_data, url) for url in endpoints]
    for future in as_completed(futures):
        print(future.result())
