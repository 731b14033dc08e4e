/* SPDX-License-Identifier: MIT */
/* The same from C++: options start as {}, and a lambda without captures is a task. */
#include <cfutures.h>
#include <cstdio>

struct pair {
    int a, b;
};

int main()
{
    cf_executor *executor = nullptr;
    cf_thread_pool_options options{};
    options.max_workers = 2;
    pair numbers = {6, 7};
    int product = 0;
    cf_status status = cf_thread_pool_new(&options, &executor);
    if (status == CF_OK)
        status = CF_MAP(
            executor,
            [](const void *arg, void *result) {
                const pair *p = static_cast<const pair *>(arg);
                *static_cast<int *>(result) = p->a * p->b;
                return 0;
            },
            &numbers, 1, &product, CF_SECONDS(30));
    cf_executor_free(executor);
    std::printf("%d times %d is %d\n", numbers.a, numbers.b, product);
    return status;
}
