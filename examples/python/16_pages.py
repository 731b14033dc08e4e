# SPDX-License-Identifier: MIT
"""Four pages from a web server, one after the other and then all at once."""
import time
import requests
from cfutures import ThreadPoolExecutor
import server


def fetch_url(url):
    response = requests.get(url)
    return len(response.content)


with server.running(delay=0.2) as address:
    urls = [
        f'{address}/posts/1',
        f'{address}/posts/2',
        f'{address}/posts/3',
        f'{address}/posts/4',
    ]

    # Sequential execution
    start = time.time()
    results_seq = [fetch_url(url) for url in urls]
    print(f"Sequential: {time.time() - start:.2f}s")

    # Concurrent execution
    start = time.time()
    with ThreadPoolExecutor(max_workers=4) as executor:
        results_con = list(executor.map(fetch_url, urls))
    print(f"Concurrent: {time.time() - start:.2f}s")

print(f"The same: {results_seq == results_con}")
