/* SPDX-License-Identifier: MIT */
/* Three stages, each where it belongs: threads download, because they wait; processes count,
 * because they compute, and on what came from outside; threads save.  What goes from one stage to
 * the next are bytes.  In the end the files are read back and compared. */
#include "http_get.h"
#include "http_server.h"
#include <errno.h>
#include <jansson.h>
#include <unistd.h>

enum { USERS = 5 };

/* ---- first stage: from an address to the page ------------------------------------------------ */

static int download_data(const void *url, size_t url_size, cf_bytes *page)
{
    (void)url_size;
    return http_get(url, page);
}

/* ---- second stage: from a page to what it says ----------------------------------------------- */

struct summary {
    int user, count, processed, words, times;
    char word[24]; /* the one that comes most often, so many times */
};

/* Counts the words of a text in an object that has a number for each. */
static void count_words(json_t *counts, const char *text)
{
    char word[24];
    for (int length; sscanf(text, " %23s%n", word, &length) == 1; text += length)
        json_object_set_new(counts, word,
                            json_integer(json_integer_value(json_object_get(counts, word)) + 1));
}

static void find_most_frequent(json_t *counts, struct summary *summary)
{
    const char *word;
    json_t *number;
    json_object_foreach(counts, word, number)
    {
        int times = (int)json_integer_value(number);
        summary->words += times;
        if (times > summary->times) {
            summary->times = times;
            snprintf(summary->word, sizeof summary->word, "%s", word);
        }
    }
}

static void summarize(const json_t *posts, struct summary *summary)
{
    size_t index;
    json_t *post, *counts = json_object();
    json_array_foreach(posts, index, post)
    {
        int id = (int)json_integer_value(json_object_get(post, "id"));
        summary->user = (int)json_integer_value(json_object_get(post, "userId"));
        summary->count++;
        summary->processed += id * id;
        if (json_is_string(json_object_get(post, "body")))
            count_words(counts, json_string_value(json_object_get(post, "body")));
    }
    find_most_frequent(counts, summary);
    json_decref(counts);
}

static int process_data(const void *page, size_t page_size, cf_bytes *result)
{
    json_error_t error;
    json_t *posts = json_loadb(page, page_size, 0, &error);
    if (posts == NULL)
        return cf_raise(EILSEQ, "line %d: %s", error.line, error.text);
    int code = 0;
    if (cf_bytes_resize(result, sizeof(struct summary)) == CF_OK) {
        memset(result->data, 0, result->size);
        summarize(posts, result->data);
    } else
        code = cf_raise(ENOMEM, "no memory");
    json_decref(posts);
    return code;
}

/* ---- third stage: from a summary to the path of its file ------------------------------------- */

/* Completed before the threads run, and they see that.  Worker processes would not. */
static char folder[] = "/tmp/pipeline_XXXXXX";

static int save_result(const void *arg, size_t arg_size, cf_bytes *path)
{
    const struct summary *s = arg;
    (void)arg_size;
    if (cf_bytes_resize(path, sizeof folder + 32) != CF_OK)
        return cf_raise(ENOMEM, "no memory");
    snprintf(path->data, path->size, "%s/result_%d.json", folder, s->user);
    json_t *result = json_pack("{si si si si s{ss si}}", "userId", s->user, "count", s->count,
                               "processed", s->processed, "words", s->words, "most_frequent",
                               "word", s->word, "times", s->times);
    bool is_saved = json_dump_file(result, path->data, JSON_INDENT(4)) == 0;
    json_decref(result);
    return is_saved ? 0 : cf_raise(errno, "%s: %s", (char *)path->data, strerror(errno));
}

/* ---- all of them ----------------------------------------------------------------------------- */

static void download(unsigned port, cf_bytes pages[USERS])
{
    char urls[USERS][64];
    cf_bytes args[USERS];
    cf_auto_executor *executor = NULL;
    for (int i = 0; i < USERS; i++) {
        int size =
            snprintf(urls[i], sizeof urls[i], "http://127.0.0.1:%u/posts?userId=%d", port, i + 1);
        args[i] = (cf_bytes){ urls[i], (size_t)size + 1 };
    }
    TRY(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = 5), &executor));
    TRY(cf_map_bytes(executor, download_data, args, USERS, pages, CF_FOREVER));
    printf("Downloaded %d datasets\n", USERS);
}

static void process(const cf_bytes pages[USERS], cf_bytes summaries[USERS])
{
    cf_auto_executor *executor = NULL;
    TRY(cf_process_pool_new(CF_PROCESS_POOL_OPTIONS(.max_workers = 4), &executor));
    TRY(cf_map_bytes(executor, process_data, pages, USERS, summaries, CF_FOREVER));
    printf("Processed %d datasets\n", USERS);
}

static void save(const cf_bytes summaries[USERS], cf_bytes paths[USERS])
{
    cf_auto_executor *executor = NULL;
    int total = 0;
    if (mkdtemp(folder) == NULL) {
        perror(folder);
        exit(1);
    }
    TRY(cf_thread_pool_new(CF_THREAD_POOL_OPTIONS(.max_workers = 3), &executor));
    TRY(cf_map_bytes(executor, save_result, summaries, USERS, paths, CF_FOREVER));
    for (int i = 0; i < USERS; i++)
        total += ((const struct summary *)summaries[i].data)->count;
    printf("Saved %d total items\n", total);
}

/* Is what the file says what was to be saved? */
static bool read_back(const char *path, const struct summary *saved)
{
    struct summary read = { 0 };
    const char *word = "";
    json_t *result = json_load_file(path, 0, NULL);
    bool is_complete = json_unpack(result, "{si si si si s{ss si}}", "userId", &read.user, "count",
                                   &read.count, "processed", &read.processed, "words", &read.words,
                                   "most_frequent", "word", &word, "times", &read.times) == 0;
    snprintf(read.word, sizeof read.word, "%s", word);
    json_decref(result);
    printf("%s: processed %d, %d words, %d times \"%s\"\n", strrchr(path, '/') + 1, read.processed,
           read.words, read.times, read.word);
    return is_complete && strcmp(read.word, saved->word) == 0 &&
           memcmp(&read, saved, offsetof(struct summary, word)) == 0;
}

int main(void)
{
    cf_bytes pages[USERS], summaries[USERS], paths[USERS];
    bool is_right = true;
    cf_worker_main();
    curl_global_init(CURL_GLOBAL_DEFAULT);
    unsigned port = http_server_start(100);
    download(port, pages);
    process(pages, summaries);
    save(summaries, paths);
    for (int i = 0; i < USERS; i++) {
        is_right = read_back(paths[i].data, summaries[i].data) && is_right;
        unlink(paths[i].data);
        cf_bytes_free(&pages[i]);
        cf_bytes_free(&summaries[i]);
        cf_bytes_free(&paths[i]);
    }
    rmdir(folder);
    http_server_stop();
    curl_global_cleanup();
    return is_right ? 0 : 1;
}
