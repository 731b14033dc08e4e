/* SPDX-License-Identifier: MIT */
/* A library that the tests load and close: two builds of it differ in what it answers and in nothing
 * else, so the second fits exactly where the first was. */
#include "plugin.h"

static int hidden(void)
{
    return 100 + ANSWER;
}

int plugin_answer(void)
{
    return ANSWER;
}

plugin_function *plugin_hidden(void)
{
    return hidden;
}
