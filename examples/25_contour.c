/* SPDX-License-Identifier: MIT */
/* The outlines of all pictures in a folder, by worker processes: each task reads a JPEG file,
 * filters it and writes another one.  A damaged file fails its own task only.
 * usage: 25_contour [FOLDER]    all *.jpg there, into FOLDER/processed; without one the program
 *                               paints some pictures first, and clears them away in the end */
#include "image_file.h"
#include "image_paint.h"
#include <ftw.h>
#include <glob.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the task -------------------------------------------------------------------------------- */

/* Eight times each point less its eight neighbours, on white; the border has not so many, and
 * stays. */
static void filter_contour(const struct image *in, struct image *out)
{
    size_t row = image_row(in), height = (size_t)in->height;
    memcpy(out->pixels, in->pixels, row * height);
    for (size_t y = 1; y + 1 < height; y++)
        for (size_t x = 3; x + 3 < row; x++) {
            const unsigned char *here = in->pixels + y * row + x;
            const unsigned char *above = here - row, *below = here + row;
            int around = above[-3] + above[0] + above[3] + here[-3] + here[3] + below[-3] +
                         below[0] + below[3];
            out->pixels[y * row + x] = limited(8 * here[0] - around + 255);
        }
}

/* From the path of a picture to the path of its outlines. */
static int process_image(const void *path, size_t path_size, cf_bytes *result)
{
    const char *name = strrchr(path, '/') + 1;
    int folder = (int)(name - (const char *)path);
    struct image in = { 0 }, out = { 0 };
    if (cf_bytes_resize(result, path_size + strlen("processed/")) != CF_OK)
        return cf_raise(ENOMEM, "no memory");
    snprintf(result->data, result->size, "%.*sprocessed/%s", folder, (const char *)path, name);
    int code = image_load(path, &in);
    if (code == 0)
        code = image_new(in.width, in.height, &out);
    if (code == 0) {
        filter_contour(&in, &out);
        code = image_save(result->data, &out);
    }
    free(in.pixels);
    free(out.pixels);
    return code;
}

/* ---- pictures to begin with ------------------------------------------------------------------ */

enum { ORIGINALS = 17, DAMAGED = 5 };

struct original {
    char path[PATH_MAX];
    int width, height;
    unsigned seed;
};

static int paint_original(const void *arg, void *result)
{
    const struct original *original = arg;
    struct image image;
    (void)result;
    int code = image_new(original->width, original->height, &image);
    if (code != 0)
        return code;
    image_paint(&image, original->seed);
    code = image_save(original->path, &image);
    free(image.pixels);
    return code;
}

static void paint_originals(const char *folder)
{
    static const int sizes[6][2] = { { 640, 480 },  { 1280, 960 }, { 800, 600 },
                                     { 1024, 768 }, { 480, 640 },  { 1200, 900 } };
    static struct original originals[ORIGINALS];
    cf_auto_executor *executor = NULL;
    for (int i = 0; i < ORIGINALS; i++) {
        struct original *original = &originals[i];
        *original = (struct original){ "", sizes[i % 6][0], sizes[i % 6][1], (unsigned)i };
        snprintf(original->path, PATH_MAX, "%s/ridges_%02d.jpg", folder, i + 1);
    }
    TRY(cf_process_pool_new(NULL, &executor));
    TRY(cf_map(executor, paint_original, originals, ORIGINALS, sizeof *originals, NULL, 0,
               CF_FOREVER));
    if (truncate(originals[DAMAGED].path, 20000) != 0)
        perror(originals[DAMAGED].path);
}

/* ---- all pictures of a folder ---------------------------------------------------------------- */

/* Says what has become of each picture as soon as it is known. */
static void show_progress(cf_future **futures, const glob_t *pictures)
{
    cf_completed *completed;
    size_t i, done = 0, count = pictures->gl_pathc;
    TRY(cf_as_completed(futures, count, CF_FOREVER, &completed));
    while (cf_completed_next(completed, &i) == CF_OK) {
        const char *path = pictures->gl_pathv[i], *name = strrchr(path, '/') + 1;
        const void *output;
        printf("[%2zu/%zu] ", ++done, count);
        if (cf_future_peek(futures[i], 0, &output, NULL) == CF_OK)
            printf("Processed: %s\n", (const char *)output + (name - path));
        else
            printf("Failed: %s: %s\n", name, cf_last_error()->message);
    }
    cf_completed_free(completed);
}

static void process_all(cf_executor *executor, const glob_t *pictures, bool is_shown)
{
    size_t count = pictures->gl_pathc;
    cf_future **futures = calloc(count, sizeof *futures);
    if (futures == NULL)
        exit(1);
    for (size_t i = 0; i < count; i++) {
        const char *path = pictures->gl_pathv[i];
        TRY(cf_submit_bytes(executor, process_image, path, strlen(path) + 1, &futures[i]));
    }
    if (is_shown)
        show_progress(futures, pictures);
    TRY(cf_wait(futures, count, CF_ALL_COMPLETED, CF_FOREVER, NULL));
    cf_future_unref_all(futures, count);
    free(futures);
}

/* One after the other, silently, and then by as many processes as there are CPUs. */
static void process_twice(const glob_t *pictures)
{
    double start = now();
    {
        cf_auto_executor *executor = NULL;
        TRY(cf_inline_executor_new(&executor));
        process_all(executor, pictures, false);
    }
    double sequential = now() - start;

    start = now();
    {
        cf_auto_executor *executor = NULL;
        TRY(cf_process_pool_new(NULL, &executor));
        process_all(executor, pictures, true);
    }
    printf("Sequential: %.3f s\nProcesses: %.3f s\n", sequential, now() - start);
}

static int process_folder(const char *folder)
{
    char text[PATH_MAX];
    glob_t pictures;
    snprintf(text, sizeof text, "%s/*.jpg", folder);
    if (glob(text, 0, NULL, &pictures) != 0) {
        fprintf(stderr, "%s: no such file\n", text);
        return 1;
    }
    snprintf(text, sizeof text, "%s/processed", folder);
    bool has_output = mkdir(text, 0777) == 0 || errno == EEXIST;
    if (has_output)
        process_twice(&pictures);
    else
        perror(text);
    globfree(&pictures);
    return has_output ? 0 : 1;
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status, (void)type, (void)place;
    return remove(path);
}

int main(int argc, char **argv)
{
    char own[] = "/tmp/contour_XXXXXX";
    cf_worker_main();
    if (argc > 1)
        return process_folder(argv[1]);
    if (mkdtemp(own) == NULL)
        return perror(own), 1;
    paint_originals(own);
    int status = process_folder(own);
    nftw(own, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    return status;
}
