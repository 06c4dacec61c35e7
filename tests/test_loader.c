/* tests/test_loader.c: the loader's samples and orders, the windows of the perplexity protocols. */
#include "tests/data_impl.h"
#include <unistd.h>

/* ---- loader ------------------------------------------------------------------------------------------- */

typedef struct Plan {
    DataConfig data;
    SourceConfig source[3];
    LoaderOptions o;
} Plan;

static Loader *open_loader(Plan *p, const Tokenizer *tk)
{
    Err e = {0};
    p->o.data = &p->data;
    p->o.source = p->source;
    Loader *l = loader_open(&p->o, tk, &arena, &e);
    ASSERT_OK(e);
    return l;
}

/* First id of a sample, after checking that it is T consecutive numbers and their successors. */
static int first_id(const Loader *l, int64_t sample, long T)
{
    static int32_t ids[64], targets[64], pos[64], seg[64];
    Err e = {0};
    ASSERT_EQ(loader_fill(l, sample, ids, targets, pos, seg, &e), T);
    for (long i = 0; i < T; i++) {
        ASSERT_EQ(ids[i], ids[0] + i);
        ASSERT_EQ(targets[i], ids[0] + i + 1);
        ASSERT_EQ(pos[i], i);
        ASSERT_EQ(seg[i], 0);
    }
    return ids[0];
}

TEST(loader, file_order_shares_one_token)
{
    Plan p = {.data = data_defaults(), .o = {.n_source = 2, .seq_len = 4, .vocab = 2000}};
    p.source[0] = source_of(put_tokens("a.bin", 0, 12), NULL);   /* 2 samples: 9 tokens read, 3 dropped */
    p.source[1] = source_of(put_tokens("b.bin", 1000, 5), NULL); /* T + 1 tokens: one sample */
    const Loader *l = open_loader(&p, NULL);
    ASSERT_EQ(loader_samples(l), 3);
    ASSERT_EQ(loader_tokens(l), 17);
    static const int want[] = {0, 4, 1000, 0, 4, 1000};
    for (int i = 0; i < 6; i++) ASSERT_EQ(first_id(l, i, 4), want[i]);
    p.data.max_samples = 2;
    l = open_loader(&p, NULL);
    ASSERT_EQ(loader_samples(l), 2);
    ASSERT_EQ(first_id(l, 2, 4), 0);
    arena_free(&arena);
}

TEST(loader, shuffle_takes_each_sample_once_per_epoch)
{
    Plan p = {.data = data_defaults(),
              .o = {.n_source = 2, .seq_len = 4, .vocab = 4096, .seed = 7, .shuffle = true}};
    p.source[0] = source_of(put_tokens("a.bin", 0, 4 * 30 + 1), NULL);
    p.source[1] = source_of(put_tokens("b.bin", 1000, 4 * 20 + 1), NULL);
    const Loader *l = open_loader(&p, NULL);
    p.o.seed = 8;
    const Loader *m = open_loader(&p, NULL);
    int same_epoch = 0, same_seed = 0, in_order = 0;
    for (int epoch = 0; epoch < 3; epoch++) {
        int seen[4096] = {0};
        for (int i = 0; i < 50; i++) {
            const int id = first_id(l, epoch * 50 + i, 4);
            ASSERT_EQ(seen[id]++, 0);
            same_epoch += id == first_id(l, (epoch + 1) * 50 + i, 4);
            same_seed += id == first_id(m, epoch * 50 + i, 4);
            in_order += id == 4 * i;
        }
    }
    ASSERT(same_epoch < 15 && same_seed < 15 && in_order < 15);
    ASSERT_EQ(first_id(l, 123, 4), first_id(l, 123, 4));
    ASSERT_EQ(strlen(loader_hash(l)), 32);
    ASSERT_STR(loader_hash(l), loader_hash(m));
    arena_free(&arena);
}

TEST(loader, weights_set_the_shares)
{
    Plan p = {.data = data_defaults(),
              .o = {.n_source = 2, .seq_len = 4, .vocab = 4096, .seed = 7, .shuffle = true}};
    p.source[0] = source_of(put_tokens("a.bin", 0, 4 * 30 + 1), NULL);
    p.source[1] = source_of(put_tokens("b.bin", 1000, 4 * 10 + 1), NULL);
    p.source[1].weight = 3; /* of 40 samples an epoch: 10 and 30 */
    const Loader *l = open_loader(&p, NULL);
    ASSERT_EQ(loader_samples(l), 40);
    int count[4096] = {0}, b = 0;
    for (int i = 0; i < 120; i++) {
        const int id = first_id(l, i, 4);
        count[id]++;
        b += id >= 1000;
        ASSERT_MSG(4 * b >= 3 * (i + 1) - 4 && 4 * b <= 3 * (i + 1) + 4,
                   "%d of the first %d from the source of weight 3 of 4", b, i + 1);
    }
    for (int i = 0; i < 30; i++) ASSERT_EQ(count[4 * i], 1); /* three epochs: once through the large one, */
    for (int i = 0; i < 10; i++) ASSERT_EQ(count[1000 + 4 * i], 9); /* nine times through the small one */
    arena_free(&arena);
}

TEST(loader, windows_with_bos)
{
    Plan p = {.data = data_defaults(), .o = {.n_source = 1, .seq_len = 4, .vocab = 257}};
    p.data.window_bos = true;
    p.data.eot = "none";
    p.source[0] = source_of(put_file("t.txt", "abcdefghijk", 11), NULL);
    const Loader *l = open_loader(&p, open_tokenizer("bytes"));
    ASSERT_EQ(loader_samples(l), 2);
    int32_t ids[4], targets[4];
    Err e = {0};
    ASSERT_EQ(loader_fill(l, 1, ids, targets, NULL, NULL, &e), 4);
    static const int32_t in[] = {256, 'e', 'f', 'g'}, out[] = {'e', 'f', 'g', 'h'};
    ASSERT_BYTES(ids, in, sizeof in);
    ASSERT_BYTES(targets, out, sizeof out);
    arena_free(&arena);
}

/* .bin files stay where they are: the same samples and hash as from memory, and no memory for them. */
TEST(loader, token_files_are_not_read_into_memory)
{
    static uint16_t narrow[3][4000];
    static uint32_t wide[2 + 255 + 3000];
    for (int f = 0; f < 3; f++)
        for (int i = 0; i < 4000; i++) narrow[f][i] = (uint16_t)((f * 4000 + i * 7) % 50000);
    const size_t size[3] = {4000, 0, 1237};
    for (int f = 0; f < 3; f++) {
        static char name[24];
        snprintf(name, sizeof name, "n%d.bin", f);
        put_file(name, narrow[f], 2 * size[f]);
    }
    memset(wide, 0, sizeof wide);
    wide[0] = 20240801, wide[1] = 7, wide[2] = 3001;
    for (uint32_t i = 0; i < 3001; i++) wide[256 + i] = i * 17 % 50001;
    put_file("w.bin", wide, 4 * (256 + 3001));
    Err e = {0};
    const char *glob = path_join(&arena, test_dir(), "n?.bin", &e),
               *one = path_join(&arena, test_dir(), "w.bin", &e);
    for (int i = 0; i < 6; i++) {
        Plan p = {.data = data_defaults(), .o = {.n_source = 2, .seq_len = 33, .vocab = 50001}};
        p.data.vocab_check = i < 2 ? "error" : i < 4 ? "clip" : "off";
        p.o.vocab = i < 2 ? 50001 : 3000;
        p.data.window_bos = i == 1;
        p.source[0] = source_of(glob, i == 2 ? "train[13%:77%]" : NULL);
        p.source[1] = source_of(one, i == 3 ? "train[-21%:]" : NULL);
        const Tokenizer *tk = i == 1 ? open_tokenizer("bytes") : NULL;
        Loader *l = open_loader(&p, tk);
        int64_t row = 0, total = 0;
        for (int k = 0; k < 2; k++) {
            Tokens t;
            ASSERT(tokens_load(&t, &p.source[k], &p.data, NULL, p.o.vocab, &arena, &e));
            total += (int64_t)t.n;
            const bool bos = p.data.window_bos;
            for (size_t at = 0; at + 33 + !bos <= t.n; at += 33, row++) {
                int32_t ids[33], targets[33];
                ASSERT_EQ(loader_fill(l, row, ids, targets, NULL, NULL, &e), 33);
                ASSERT(memcmp(targets, t.id + at + !bos, sizeof targets) == 0);
                ASSERT(bos ? ids[0] == 256 && memcmp(ids + 1, t.id + at, 32 * 4) == 0
                           : memcmp(ids, t.id + at, sizeof ids) == 0);
            }
            if (i == 5) {
                char hex[33], all[33];
                hash128_hex(hex, t.id, t.n * 4);
                p.o.n_source = 1;
                p.source[0] = p.source[k];
                Loader *single = open_loader(&p, NULL);
                hash128_hex(all, hex, 32);
                ASSERT_STR(loader_hash(single), all);
                loader_close(single);
            }
        }
        ASSERT_EQ(loader_samples(l), row);
        ASSERT_EQ(loader_tokens(l), total);
        loader_close(l);
    }
    arena_free(&arena);
    /* 60 MB of tokens */
    const char *big = path_join(&arena, test_dir(), "big.bin", &e);
    FILE *f = fopen(big, "wb");
    ASSERT(f && ftruncate(fileno(f), 60 << 20) == 0 && fclose(f) == 0);
    Plan p = {.data = data_defaults(), .o = {.n_source = 1, .seq_len = 64, .vocab = 10}};
    p.source[0] = source_of(big, NULL);
    Loader *l = open_loader(&p, NULL);
    ASSERT_EQ(loader_tokens(l), 30 << 20);
    ASSERT_MSG(arena.peak < 1 << 20, "%zu bytes of memory", arena.peak);
    loader_close(l);
    p.o.vocab = 50001;
    p.source[0] = source_of(put_tokens("far.bin", 49999, 100), NULL);
    ASSERT(!loader_open(&p.o, NULL, &arena, &e));
    ASSERT_CONTAINS(e.msg, "far.bin: token 2 is 50001, but the vocabulary has 50001");
    e = (Err){0};
    p.source[0] = source_of(put_tokens("none.bin", 0, 0), NULL);
    ASSERT(!loader_open(&p.o, NULL, &arena, &e));
    ASSERT_CONTAINS(e.msg, "none.bin: no tokens");
    arena_free(&arena);
}

/* A .bin that changes while it is read: an error that says so, by the step and by the threads ahead of it. */
TEST(loader, token_file_changes_under_the_run)
{
    static uint16_t v[40000];
    Plan p = {.data = data_defaults(), .o = {.n_source = 1, .seq_len = 32, .vocab = 100}};
    int32_t ids[32], targets[32];
    for (int clip = 0; clip < 2; clip++) {
        Err e = {0};
        p.data.vocab_check = clip ? "clip" : "error";
        v[20005] = 0;
        const char *path = put_file("moving.bin", v, sizeof v);
        p.source[0] = source_of(path, NULL);
        Loader *l = open_loader(&p, NULL);
        v[20005] = 100;
        put_file("moving.bin", v, sizeof v);
        const bool filled = loader_fill(l, 20005 / 32, ids, targets, NULL, NULL, &e) == 32;
        ASSERT(filled == clip);
        if (clip) ASSERT_EQ(ids[20005 % 32], 99);
        else ASSERT_CONTAINS(e.msg, "moving.bin: token 20005 is 100 now, and the vocabulary has 100");
        e = (Err){0};
        ASSERT(truncate(path, 20000) == 0);
        ASSERT_EQ(loader_fill(l, 3, ids, targets, NULL, NULL, &e), 32);
        ASSERT_EQ(loader_fill(l, 1000, ids, targets, NULL, NULL, &e), 0);
        ASSERT_CONTAINS(e.msg, "moving.bin: ends at byte 64000, ");
        ASSERT_CONTAINS(e.msg, "became shorter while it was read; put it back");
        for (int workers = 0; workers < 3; workers++) {
            Prefetch *f = prefetch_open(l, 2, workers, &arena, &(Err){0});
            e = (Err){0};
            ASSERT(prefetch_get(f, 2, NULL, &e));
            ASSERT(!prefetch_get(f, 1000, NULL, &e));
            ASSERT_CONTAINS(e.msg, "moving.bin: ends at byte 64000, ");
            prefetch_close(f);
        }
        loader_close(l);
    }
    arena_free(&arena);
}

TEST(loader, refuses)
{
    static const struct {
        long T;
        int n;
        bool bos;
        size_t tokens;
        double weight;
        ErrCode code;
        const char *part;
    } c[] = {
        {4, 2, false, 4, 1, ERR_FAIL, "too few for one sample of data.seq_len 4"},
        {4, 0, false, 9, 1, ERR_USAGE, "no sources"},
        {0, 1, false, 9, 1, ERR_USAGE, "data.seq_len"},
        {4, 1, true, 9, 1, ERR_USAGE, "window_bos: needs a tokenizer"},
        {8, 2, false, 9, 2, ERR_FAIL, "b.bin: 4 tokens are too few"},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        Plan p = {.data = data_defaults(), .o = {.n_source = c[i].n, .seq_len = c[i].T}};
        Err e = {0};
        p.data.window_bos = c[i].bos;
        p.source[0] = source_of(put_tokens("a.bin", 0, c[i].tokens), NULL);
        p.source[1] = source_of(put_tokens("b.bin", 0, 4), NULL);
        p.source[1].weight = c[i].weight;
        p.o.data = &p.data;
        p.o.source = p.source;
        ASSERT(!loader_open(&p.o, NULL, &arena, &e));
        ASSERT_MSG(e.code == c[i].code && strstr(e.msg, c[i].part), "case %zu: %s", i, e.msg);
    }
    arena_free(&arena);
}

/* ---- windows of an evaluation ------------------------------------------------------------------------- */

enum { PLAN_TEXT = 1024 };

static size_t add(char *out, size_t at, const char *fmt, int v)
{
    return at + (size_t)snprintf(out + at, PLAN_TEXT - at, fmt, v);
}

/* All windows as text: ids, then `>`, then targets with `.` where not scored; BOS is 0, token i is i + 1. */
static const char *plan_text(const char *protocol, long window, long stride, size_t n, int bos)
{
    static char out[PLAN_TEXT];
    static int32_t t[64], ids[64], targets[64];
    Err e = {0};
    int64_t scored = 0;
    size_t at = 0;
    for (int i = 0; i < 64; i++) t[i] = i + 1;
    const EvalPlan *p = evalplan_open(protocol, window, stride, t, n, bos, &arena, &e);
    ASSERT_OK(e);
    out[0] = 0;
    for (int64_t i = 0; i < evalplan_count(p); i++) {
        const long len = evalplan_get(p, i, ids, targets);
        for (long j = 0; j < len; j++) at = add(out, at, "%d ", ids[j]);
        at = add(out, at, ">", 0);
        for (long j = 0; j < len; j++) at = add(out, at, targets[j] < 0 ? " ." : " %d", targets[j]);
        for (long j = 0; j < evalplan_window(p); j++) scored += targets[j] != -100;
        at = add(out, at, "\n", 0);
    }
    ASSERT_EQ(scored, evalplan_scored(p));
    return out;
}

TEST(evalplan, val)
{
    ASSERT_STR(plan_text("val", 4, 0, 6, 0), "0 1 2 3 > 1 2 3 4\n0 5 > 5 6\n");
    ASSERT_STR(plan_text("val", 4, 0, 8, 0), "0 1 2 3 > 1 2 3 4\n0 5 6 7 > 5 6 7 8\n");
    ASSERT_STR(plan_text("val", 4, 0, 1, 0), "0 > 1\n");
    ASSERT_STR(plan_text("val", 4, 0, 6, -1), "1 2 3 4 > 2 3 4 5\n5 > 6\n");
    ASSERT_STR(plan_text("val", 4, 0, 5, -1), "1 2 3 4 > 2 3 4 5\n");
    arena_free(&arena);
}

TEST(evalplan, concat)
{
    ASSERT_STR(plan_text("concat-3", 0, 0, 8, 0), "1 2 3 > 2 3 .\n4 5 6 > 5 6 .\n");
    ASSERT_STR(plan_text("concat", 3, 0, 8, 0), "1 2 3 > 2 3 .\n4 5 6 > 5 6 .\n");
    Err e = {0};
    static const int32_t t[3000];
    ASSERT_STR(evalplan_name(evalplan_open("concat", 0, 0, t, 3000, -1, &arena, &e)), "concat-2048");
    arena_free(&arena);
}

/* Window 6, stride 2, as the loop of Hugging Face's documentation scores them. */
TEST(evalplan, stride)
{
    ASSERT_STR(plan_text("stride", 6, 2, 9, 0),
               "1 2 3 4 5 6 > 2 3 4 5 6 .\n3 4 5 6 7 8 > . . . 7 8 .\n5 6 7 8 9 > . . . 9 .\n");
    ASSERT_STR(plan_text("stride", 6, 2, 8, 0), "1 2 3 4 5 6 > 2 3 4 5 6 .\n3 4 5 6 7 8 > . . . 7 8 .\n");
    ASSERT_STR(plan_text("stride", 6, 2, 4, 0), "1 2 3 4 > 2 3 4 .\n");
    ASSERT_STR(plan_text("stride", 3, 3, 6, 0), "1 2 3 > 2 3 .\n4 5 6 > 5 6 .\n");
    arena_free(&arena);
}

TEST(evalplan, llamacpp)
{
    ASSERT_STR(plan_text("llamacpp", 6, 0, 13, 0),
               "0 2 3 4 5 6 > . . . 5 6 .\n0 8 9 10 11 12 > . . . 11 12 .\n");
    ASSERT_STR(plan_text("llamacpp", 6, 0, 11, -1), "1 2 3 4 5 6 > . . . 5 6 .\n");
    static const int32_t t[1100];
    Err e = {0};
    const EvalPlan *p = evalplan_open("llamacpp", 0, 0, t, 1100, 0, &arena, &e);
    ASSERT_EQ(evalplan_scored(p), 2 * 255);
    arena_free(&arena);
}

TEST(evalplan, refuses)
{
    static const struct {
        const char *protocol;
        long window, stride;
        size_t n;
        const char *part;
    } c[] = {
        {"wikitext", 4, 0, 9, "unknown protocol `wikitext`"},
        {"concat-x", 0, 0, 9, "`concat-x`"},
        {"concat-0", 0, 0, 9, "`concat-0`"},
        {"val", 0, 0, 9, "needs a window"},
        {"val", -1, 0, 9, "a window of -1"},
        {"val", 4, 0, 0, "too few"},
        {"concat-10", 0, 0, 9, "too few"},
        {"stride", 4, 5, 9, "from 1 to the window"},
        {"llamacpp", 2, 0, 9, "at least 3"},
        {"llamacpp", 10, 0, 9, "too few"},
        {"stride", 4, 2, 1, "too few"},
    };
    static const int32_t t[16];
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        Err e = {0};
        ASSERT(
            !evalplan_open(c[i].protocol, c[i].window, c[i].stride, t, c[i].n, c[i].n ? 0 : -1, &arena, &e));
        ASSERT_CONTAINS(e.msg, c[i].part);
    }
    arena_free(&arena);
}
