# SPDX-License-Identifier: MIT
"""Map over words."""
from cfutures import ThreadPoolExecutor


def process_item(item):
    return item.upper()


items = ['apple', 'banana', 'cherry', 'date']

with ThreadPoolExecutor(max_workers=2) as executor:
    # map() returns results in original order
    results = list(executor.map(process_item, items))
    print(results)  # ['APPLE', 'BANANA', 'CHERRY', 'DATE']
