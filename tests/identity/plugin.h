/* SPDX-License-Identifier: MIT */
/* What the tests call in a plugin. */
#ifndef TESTS_IDENTITY_PLUGIN_H
#define TESTS_IDENTITY_PLUGIN_H

typedef int plugin_function(void);

int plugin_answer(void);
plugin_function *plugin_hidden(void); /* a static function */

#endif
