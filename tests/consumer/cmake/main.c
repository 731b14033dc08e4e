/* SPDX-License-Identifier: MIT */
/* The least that shows the library linked and at work. */
#include <cfutures.h>
#include <stdio.h>

struct pair {
    int a, b;
};

static int multiply(const void *arg, void *result)
{
    const struct pair *pair = arg;
    *(int *)result = pair->a * pair->b;
    return 0;
}

int main(void)
{
    cf_executor *executor = NULL;
    cf_future *future = NULL;
    struct pair pair = { 6, 7 };
    int product = 0;
    cf_status status = cf_thread_pool_new(NULL, &executor);
    if (status == CF_OK)
        status = CF_SUBMIT(executor, multiply, &pair, int, &future);
    if (status == CF_OK)
        status = CF_RESULT(future, CF_SECONDS(30), &product);
    cf_future_unref(future);
    cf_executor_free(executor);
    printf("%d times %d is %d\n", pair.a, pair.b, product);
    return status;
}
