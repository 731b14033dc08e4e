/* SPDX-License-Identifier: MIT */
/* The table of images, and the ways into it: by address, by name.
 *
 * An entry is made once and never changes, and its image is never unloaded, so nothing here is ever
 * stale and there is no lock: who adds an image swaps it into the first free place, and who finds that
 * it is there by now lets go of its own.  A forked child has nothing to repair.
 *
 * Nothing is kept between asking the loader and pinning what it said: somebody may close a library, and
 * another one is mapped in its place.  Hence first pin, then ask again, and only the second answer
 * counts if it is about what was pinned.
 *
 * The cache answers the same question twice.  An entry is one word, pointer and number together, so
 * that they cannot be of different functions; the offset follows from the image. */
#define _GNU_SOURCE
#include "identity.h"

#include "../base/atomics.h"
#include "../core/error.h"

#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>

struct image {
    struct cfi_image_name name;
    uintptr_t base;
    const ElfW(Phdr) * headers; /* they are part of the image, and tell it from all others */
    size_t header_count;
};

static CFI_ATOMIC(struct image *) images[CFI_MAX_IMAGES]; /* filled from the front */

/* ---- one image ---- */

/* Is all of that in one segment which is at least so accessible? */
static bool is_loaded(const struct image *image, unsigned flags, uintptr_t offset, size_t size)
{
    for (size_t i = 0; i < image->header_count; i++) {
        const ElfW(Phdr) *header = &image->headers[i];
        uintptr_t inside = offset - header->p_vaddr;
        if (header->p_type == PT_LOAD && (header->p_flags & flags) == flags &&
            inside < header->p_filesz && size <= header->p_filesz - inside)
            return true;
    }
    return false;
}

static bool has_code(const struct image *image, uintptr_t offset)
{
    return is_loaded(image, PF_X, offset, 1);
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Takes the build-id over from a segment of notes, if it is there. */
static bool read_notes(const unsigned char *at, size_t left, size_t align,
                       struct cfi_image_name *ret)
{
    ElfW(Nhdr) note;
    while (left >= sizeof note) {
        memcpy(&note, at, sizeof note);
        if (note.n_namesz > left || note.n_descsz > left)
            return false;
        size_t id_at = (sizeof note + note.n_namesz + align - 1) & ~(align - 1);
        size_t next = (id_at + note.n_descsz + align - 1) & ~(align - 1);
        if (id_at + note.n_descsz > left)
            return false;
        if (note.n_type == NT_GNU_BUILD_ID && note.n_descsz > 0 && note.n_namesz == 4 &&
            memcmp(at + sizeof note, "GNU", 4) == 0) {
            ret->kind = CFI_IMAGE_BUILD_ID;
            ret->id_size = (uint8_t)smaller(note.n_descsz, sizeof ret->id);
            memcpy(ret->id, at + id_at, ret->id_size);
            return true;
        }
        at += smaller(next, left);
        left -= smaller(next, left);
    }
    return false;
}

static bool read_build_id(const struct image *image, struct cfi_image_name *ret)
{
    for (size_t i = 0; i < image->header_count; i++) {
        const ElfW(Phdr) *header = &image->headers[i];
        if (header->p_type == PT_NOTE &&
            is_loaded(image, PF_R, header->p_vaddr, header->p_filesz) &&
            read_notes((const unsigned char *)(image->base + header->p_vaddr), header->p_filesz,
                       header->p_align == 8 ? 8 : 4, ret))
            return true;
    }
    return false;
}

/* ---- images without a build-id ---- */

struct hash {
    uint64_t a, b;
};

static inline void hash_word(struct hash *hash, uint64_t word)
{
    hash->a = (hash->a ^ word) * UINT64_C(0x9E3779B97F4A7C15);
    hash->b = (hash->b + word) * UINT64_C(0xC2B2AE3D27D4EB4F);
    hash->a ^= hash->a >> 29;
    hash->b ^= hash->b >> 32;
}

/* All of a segment is read, also what lies between the variables that a sanitizer keeps apart. */
#if defined(__GNUC__)
#define UNCHECKED __attribute__((__no_sanitize_address__))
typedef uint64_t __attribute__((__may_alias__, __aligned__(1))) any_word;
#else
#define UNCHECKED
typedef uint64_t any_word;
#endif

static UNCHECKED void hash_memory(struct hash *hash, uintptr_t at, size_t size)
{
    const any_word *words = (const any_word *)at;
    const unsigned char *rest = (const unsigned char *)(at + size / 8 * 8);
    for (size_t i = 0; i < size / 8; i++)
        hash_word(hash, words[i]);
    for (size_t i = 0; i < size % 8; i++)
        hash_word(hash, rest[i]);
}

static void read_hash(const struct image *image, struct cfi_image_name *ret)
{
    struct hash hash = { 1, 2 };
    hash_memory(&hash, (uintptr_t)image->headers, image->header_count * sizeof *image->headers);
    for (size_t i = 0; i < image->header_count; i++) {
        const ElfW(Phdr) *header = &image->headers[i];
        if (header->p_type == PT_LOAD && (header->p_flags & (PF_R | PF_W)) == PF_R)
            hash_memory(&hash, image->base + header->p_vaddr, header->p_filesz);
    }
    ret->kind = CFI_IMAGE_HASH;
    ret->id_size = sizeof hash;
    memcpy(ret->id, &hash, sizeof hash);
}

/* ---- asking the loader ---- */

/* What to look for, and what was found. */
struct search {
    uintptr_t address;                 /* the image with this code; or, if it is 0, */
    const struct cfi_image_name *name; /* with this id */
    size_t visited;
    struct image image;
    bool is_fixed;           /* it cannot be unloaded */
    char file[PATH_MAX + 1]; /* as the loader calls it */
};

static bool has_same_id(const struct cfi_image_name *a, const struct cfi_image_name *b)
{
    return a->kind == b->kind && a->id_size == b->id_size && memcmp(a->id, b->id, a->id_size) == 0;
}

static bool is_wanted(const struct search *search, struct image *image)
{
    if (search->address)
        return has_code(image, search->address - image->base);
    if (!read_build_id(image, &image->name) && search->name->kind == CFI_IMAGE_HASH)
        read_hash(image, &image->name);
    return has_same_id(&image->name, search->name);
}

/* The kernel maps this one. */
static bool is_vdso(const struct image *image)
{
    uintptr_t start = getauxval(AT_SYSINFO_EHDR);
    return start && (uintptr_t)image->headers - start < 4096;
}

/* The loader calls this under its lock: what it describes stays there until the return. */
static int visit(struct dl_phdr_info *info, size_t size, void *data)
{
    (void)size;
    struct search *search = data;
    struct image image = { .base = info->dlpi_addr,
                           .headers = info->dlpi_phdr,
                           .header_count = info->dlpi_phnum };
    bool is_program = search->visited++ == 0;
    if (!is_wanted(search, &image))
        return 0;
    if (!image.name.kind && !read_build_id(&image, &image.name))
        read_hash(&image, &image.name);
    search->image = image;
    search->is_fixed = is_program || is_vdso(&image);
    if (!is_program)
        strncpy(search->file, info->dlpi_name, PATH_MAX);
    return 1;
}

static bool ask_loader(struct search *search)
{
    *search = (struct search){ .address = search->address, .name = search->name };
    return dl_iterate_phdr(visit, search) != 0;
}

/* ---- the table ---- */

static struct image *image_at(unsigned number)
{
    /* Pairs with the swap that put it there. */
    return number < CFI_MAX_IMAGES ? cfi_load_acquire(&images[number]) : NULL;
}

static bool is_in_table(const struct search *search, unsigned *ret_number)
{
    struct image *image;
    for (unsigned i = 0; (image = image_at(i)); i++) {
        if (search->address ? has_code(image, search->address - image->base)
                            : has_same_id(&image->name, search->name)) {
            *ret_number = i;
            return true;
        }
    }
    return false;
}

/* Takes over the image. */
static cf_status put_into_table(struct image *image, unsigned *ret_number)
{
    for (unsigned i = 0; i < CFI_MAX_IMAGES; i++) {
        struct image *other = NULL;
        if (cfi_cas_acq_rel(&images[i], &other, image)) {
            *ret_number = i;
            return CF_OK;
        }
        if (other->headers == image->headers) {
            free(image);
            *ret_number = i;
            return CF_OK;
        }
    }
    free(image);
    return cfi_fail(CF_INVALID, "the functions lie in more than %d programs and libraries",
                    CFI_MAX_IMAGES);
}

/* Where another process will find it.  The loader may know it by a name that depended on the directory
 * at that time; one that does not fit is kept for messages. */
static void set_path(struct cfi_image_name *name, const char *file)
{
    char *real = strchr(file, '/') ? realpath(file, NULL) : NULL;
    const char *path = real ? real : file;
    const char *slash = strrchr(path, '/');
    if (strlen(path) >= sizeof name->path && slash)
        path = slash + 1;
    memcpy(name->path, path, smaller(strlen(path), sizeof name->path - 1));
    free(real);
}

static cf_status add(const struct search *search, unsigned *ret_number)
{
    struct image *image = malloc(sizeof *image);
    if (!image)
        return cfi_fail_fixed(CF_NOMEM, "out of memory for the name of a program or library");
    *image = search->image;
    set_path(&image->name, search->file);
    return put_into_table(image, ret_number);
}

/* ---- pinning ---- */

/* The handle is never closed. */
static cf_status pin(const struct search *search)
{
    if (search->is_fixed)
        return CF_OK;
    if (dlopen(search->file, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE))
        return CF_OK;
    return cfi_fail(CF_INVALID, "%s cannot be kept from being unloaded", search->file);
}

/* Finds what is searched for, in the table or the loader's list; *ret_found says whether. */
static cf_status find(struct search *search, bool *ret_found, unsigned *ret_number)
{
    *ret_found = is_in_table(search, ret_number);
    cf_status s = CF_OK;
    while (s == CF_OK && !*ret_found && ask_loader(search)) {
        char pinned[sizeof search->file];
        memcpy(pinned, search->file, sizeof pinned);
        s = pin(search);
        if (s == CF_OK && ask_loader(search) && strcmp(search->file, pinned) == 0) {
            s = add(search, ret_number);
            *ret_found = s == CF_OK;
        }
    }
    return s;
}

/* ---- by address ---- */

enum { CACHE_BITS = 8, NUMBER_BITS = 6 };
_Static_assert(CFI_MAX_IMAGES <= 1 << NUMBER_BITS, "a number fits beside the pointer");
static cfi_u64 cache[1 << CACHE_BITS];

/* A function's place in the cache; NULL: its address leaves no room for the number. */
static inline cfi_u64 *cached(uint64_t address)
{
    if (CFI_UNLIKELY(address >> (64 - NUMBER_BITS)))
        return NULL;
    return &cache[address * UINT64_C(0x9E3779B97F4A7C15) >> (64 - CACHE_BITS)];
}

static CFI_COLD cf_status identify(uintptr_t address, unsigned *ret_number)
{
    struct search search = { .address = address };
    bool found = false;
    cf_status s = address ? find(&search, &found, ret_number) : CF_OK;
    if (s == CF_OK && !found)
        s = cfi_fail(CF_INVALID, "%#llx is not the code of a program or library",
                     (unsigned long long)address);
    cfi_u64 *place = s == CF_OK ? cached(address) : NULL;
    if (place) /* pairs with the load in cfi_identify: the image is in the table */
        cfi_store_release(place, (uint64_t)address << NUMBER_BITS | *ret_number);
    return s;
}

cf_status cfi_identify(cfi_function *fn, struct cfi_identity *ret)
{
    uintptr_t address = (uintptr_t)fn;
    cfi_u64 *place = cached(address);
    uint64_t word = CFI_LIKELY(place != NULL) ? cfi_load_acquire(place) : 0;
    unsigned number = (unsigned)word & ((1U << NUMBER_BITS) - 1);
    if (CFI_UNLIKELY(!word || word >> NUMBER_BITS != address)) {
        cf_status s = identify(address, &number);
        if (s != CF_OK)
            return s;
    }
    *ret = (struct cfi_identity){ (uint16_t)number, address - image_at(number)->base };
    return CF_OK;
}

const struct cfi_image_name *cfi_image_name(unsigned number)
{
    const struct image *image = image_at(number);
    return image ? &image->name : NULL;
}

cfi_function *cfi_image_function(unsigned number, uint64_t offset)
{
    const struct image *image = image_at(number);
    if (!image || offset > UINTPTR_MAX || !has_code(image, (uintptr_t)offset))
        return NULL;
    return (cfi_function *)(image->base + (uintptr_t)offset);
}

/* ---- by name ---- */

/* "libx.so (build-id ab12cd34..) is not in this process", and why if that is known. */
static CFI_COLD cf_status is_not_here(const struct cfi_image_name *name, const char *why)
{
    char id[2 * 4 + 1] = "";
    for (size_t i = 0; i < smaller(name->id_size, 4); i++) {
        id[2 * i] = "0123456789abcdef"[name->id[i] >> 4];
        id[2 * i + 1] = "0123456789abcdef"[name->id[i] & 15];
    }
    const char *slash = strrchr(name->path, '/');
    return cfi_fail(CF_INVALID, "%s (%s %s..) is not in this process%s%s",
                    slash           ? slash + 1
                    : name->path[0] ? name->path
                                    : "the program",
                    name->kind == CFI_IMAGE_HASH ? "hash" : "build-id", id, why ? ": " : "",
                    why ? why : "");
}

/* To open what is no file may take for ever. */
static bool is_file(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0 && S_ISREG(about.st_mode);
}

static cf_status load(struct search *search, unsigned *ret_number)
{
    const char *path = search->name->path;
    if (path[0] != '/' || !is_file(path))
        return is_not_here(search->name, NULL);
    void *handle = dlopen(path, RTLD_NOW);
    if (!handle)
        return is_not_here(search->name, dlerror());
    bool found = false;
    cf_status s = find(search, &found, ret_number);
    if (s == CF_OK && !found)
        s = is_not_here(search->name, "its file is of another build");
    (void)dlclose(handle); /* it is pinned, or not wanted */
    return s;
}

static bool is_good(const struct cfi_image_name *name)
{
    return (name->kind == CFI_IMAGE_BUILD_ID || name->kind == CFI_IMAGE_HASH) &&
           name->id_size > 0 && name->id_size <= sizeof name->id &&
           memchr(name->path, 0, sizeof name->path);
}

cf_status cfi_image_find(const struct cfi_image_name *name, unsigned *ret_number)
{
    const struct cfi_image_name copy = *name; /* it may lie in memory that others write */
    if (!is_good(&copy))
        return cfi_fail(CF_INVALID, "the name of a program or library is damaged");
    struct search search = { .name = &copy };
    bool found = false;
    cf_status s = find(&search, &found, ret_number);
    return s == CF_OK && !found ? load(&search, ret_number) : s;
}
