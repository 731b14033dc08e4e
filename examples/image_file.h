/* SPDX-License-Identifier: MIT */
/* Reads and writes JPEG files with libjpeg-turbo, made to be called inside a task. */
#ifndef EXAMPLES_IMAGE_FILE_H
#define EXAMPLES_IMAGE_FILE_H

#include "common.h"
#include <errno.h>
#include <turbojpeg.h>

struct image {
    int width, height;
    unsigned char *pixels; /* red, green, blue, a byte each, row by row; from malloc */
};

static inline size_t image_row(const struct image *image)
{
    return (size_t)3 * (size_t)image->width;
}

/* The pixels are not set. */
static inline int image_new(int width, int height, struct image *image)
{
    *image = (struct image){ width, height, NULL };
    image->pixels = malloc(image_row(image) * (size_t)height);
    return image->pixels != NULL ? 0 : cf_raise(ENOMEM, "no memory");
}

/* The file as it is, from malloc; NULL: errno. */
static inline unsigned char *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return NULL;
    unsigned char *data = NULL;
    long end = fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    if (end >= 0 && fseek(file, 0, SEEK_SET) == 0)
        data = malloc((size_t)end + 1);
    if (data != NULL)
        *size = fread(data, 1, (size_t)end, file);
    fclose(file);
    return data;
}

static inline int write_file(const char *path, const unsigned char *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    bool is_written = file != NULL && fwrite(data, 1, size, file) == size;
    if (file != NULL && fclose(file) != 0)
        is_written = false;
    return is_written ? 0 : cf_raise(errno, "%s", strerror(errno));
}

/* To libjpeg a damaged file is but a warning, and it makes up what is missing; here it fails. */
static inline int image_decode(tjhandle jpeg, const unsigned char *data, unsigned long size,
                               struct image *image)
{
    int width, height, subsampling, colours, code;
    if (tjDecompressHeader3(jpeg, data, size, &width, &height, &subsampling, &colours) != 0)
        return cf_raise(EILSEQ, "%s", tjGetErrorStr2(jpeg));
    code = image_new(width, height, image);
    if (code == 0 && tjDecompress2(jpeg, data, size, image->pixels, width, 0, height, TJPF_RGB,
                                   TJFLAG_STOPONWARNING | TJFLAG_ACCURATEDCT) != 0) {
        code = cf_raise(EILSEQ, "%s", tjGetErrorStr2(jpeg));
        free(image->pixels);
        image->pixels = NULL;
    }
    return code;
}

/* Returns 0, or the code of a cf_raise that says what is wrong with the file. */
static inline int image_load(const char *path, struct image *image)
{
    size_t size = 0;
    unsigned char *data = read_file(path, &size);
    if (data == NULL)
        return cf_raise(errno, "%s", strerror(errno));
    tjhandle jpeg = tjInitDecompress();
    int code = image_decode(jpeg, data, size, image);
    tjDestroy(jpeg);
    free(data);
    return code;
}

/* Likewise. */
static inline int image_save(const char *path, const struct image *image)
{
    unsigned char *data = NULL;
    unsigned long size = 0;
    int code;
    tjhandle jpeg = tjInitCompress();
    if (tjCompress2(jpeg, image->pixels, image->width, 0, image->height, TJPF_RGB, &data, &size,
                    TJSAMP_420, 90, TJFLAG_ACCURATEDCT) == 0)
        code = write_file(path, data, size);
    else
        code = cf_raise(EIO, "%s", tjGetErrorStr2(jpeg));
    tjFree(data);
    tjDestroy(jpeg);
    return code;
}

#endif
