# SPDX-License-Identifier: MIT
"""Users fetched by five threads.  There is no user 11; that costs nobody else anything."""
from cfutures import ThreadPoolExecutor, as_completed
import requests
import server


def fetch_user_data(user_id):
    url = f'{address}/users/{user_id}'
    response = requests.get(url)
    response.raise_for_status()
    return response.json()


with server.running() as address, ThreadPoolExecutor(max_workers=5) as executor:
    # Submit tasks and get Future objects
    futures = {executor.submit(fetch_user_data, i): i for i in range(1, 12)}

    # Process results as they complete
    for future in as_completed(futures):
        user_id = futures[future]
        try:
            data = future.result()
            print(f"User {user_id}: {data['name']}")
        except Exception as e:
            print(f"User {user_id} failed: {e}")
