/* SPDX-License-Identifier: MIT */
/* What a function is called in another process: the build-id of the program or library that it lies
 * in, and its offset there.
 *
 * Images (programs and libraries that are loaded) are found by dl_iterate_phdr, kept in a table that
 * only grows, and pinned when a function of theirs is first named: a library that is closed and another
 * that takes its place can never be mistaken for each other.  An image without a build-id goes by a
 * hash of its program headers and its segments that cannot be written. */
#ifndef CFI_WIRE_IDENTITY_H
#define CFI_WIRE_IDENTITY_H

#include <cfutures.h>
#include <stdint.h>

typedef void cfi_function(void); /* any function, until it is cast back to its type */

enum { CFI_MAX_IMAGES = 64, CFI_IMAGE_PATH = 480 };

/* An image as it travels.  Zeroed beyond what is used, so it can be compared as bytes. */
struct cfi_image_name {
    uint8_t kind;    /* enum cfi_image_kind */
    uint8_t id_size; /* at most sizeof id   */
    uint8_t id[30];  /* longer build-ids are cut */
    char path
        [CFI_IMAGE_PATH]; /* where to load it from if it is not loaded; "": the program itself */
};

enum cfi_image_kind { CFI_IMAGE_BUILD_ID = 1, CFI_IMAGE_HASH = 2 };

struct cfi_identity {
    uint16_t image;  /* its number in this process: 0 to CFI_MAX_IMAGES - 1 */
    uint64_t offset; /* from the image's load address                      */
};

/* Names a function.  A few nanoseconds for one that was named before.
 * CF_OK, CF_INVALID (it lies in no code of a loaded image, or too many images), CF_NOMEM. */
cf_status cfi_identify(cfi_function *fn, struct cfi_identity *ret);

/* The name of an image that cfi_identify has numbered; lives as long as the process. */
const struct cfi_image_name *cfi_image_name(unsigned number);

/* The loaded image with that name, loaded now if need be; its number in this process.  `name` may
 * be hostile.  CF_OK, CF_INVALID with a message that names it, or CF_NOMEM. */
cf_status cfi_image_find(const struct cfi_image_name *name, unsigned *ret_number);

/* The function at that offset of an image; NULL: there is no code. */
cfi_function *cfi_image_function(unsigned number, uint64_t offset);

#endif
