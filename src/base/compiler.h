/* SPDX-License-Identifier: MIT */
/* Hints to the compiler. */
#ifndef CFI_BASE_COMPILER_H
#define CFI_BASE_COMPILER_H

#if defined(__GNUC__)
#define CFI_PRINTF(format, first) __attribute__((__format__(__printf__, format, first)))
#define CFI_COLD                  __attribute__((__cold__, __noinline__))
#define CFI_LIKELY(x)             __builtin_expect(!!(x), 1)
#define CFI_UNLIKELY(x)           __builtin_expect(!!(x), 0)
#else
#define CFI_PRINTF(format, first)
#define CFI_COLD
#define CFI_LIKELY(x)   (x)
#define CFI_UNLIKELY(x) (x)
#endif

#endif
