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

/* Which sanitizer this is built with: gcc and clang say it differently. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CFI_TSAN 1
#endif
#if __has_feature(address_sanitizer)
#define CFI_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define CFI_TSAN 1
#endif
#if defined(__SANITIZE_ADDRESS__)
#define CFI_ASAN 1
#endif

#endif
