# SPDX-License-Identifier: MIT
"""Three stages, each where it belongs: threads download, processes compute, threads save."""
from cfutures import ThreadPoolExecutor, ProcessPoolExecutor
import requests
import json
import os
import tempfile
import server


def download_data(url):
    """I/O-bound: use threads"""
    response = requests.get(url)
    return response.json()


def process_data(data):
    """CPU-bound: use processes"""
    # Simulate expensive computation
    result = sum(item['id'] ** 2 for item in data if 'id' in item)
    return {'processed': result, 'count': len(data)}


def save_result(result):
    """I/O-bound: use threads"""
    # The article names the file after the count, which is the same for all: one file would be left.
    with open(f"result_{result['processed']}.json", 'w') as f:
        json.dump(result, f)
    return result['count']


def pipeline(address):
    urls = [f'{address}/posts?userId={i}'
            for i in range(1, 6)]

    # Stage 1: Download with threads
    with ThreadPoolExecutor(max_workers=5) as executor:
        downloaded_data = list(executor.map(download_data, urls))

    print(f"Downloaded {len(downloaded_data)} datasets")

    # Stage 2: Process with processes
    with ProcessPoolExecutor(max_workers=4) as executor:
        processed_data = list(executor.map(process_data, downloaded_data))

    print(f"Processed {len(processed_data)} datasets")

    # Stage 3: Save with threads
    with ThreadPoolExecutor(max_workers=3) as executor:
        saved_counts = list(executor.map(save_result, processed_data))

    print(f"Saved {sum(saved_counts)} total items")


def read_back():
    for name in sorted(os.listdir()):
        with open(name) as f:
            print(f"{name}: {json.load(f)}")


def main():
    with tempfile.TemporaryDirectory() as folder, server.running() as address:
        os.chdir(folder)
        pipeline(address)
        read_back()


if __name__ == "__main__":
    main()
