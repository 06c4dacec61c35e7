/* tests/test_pack.c: documents as rows, logits of packed documents, prefetch, training and evaluation of
 * chats. */
#include "data/packing_impl.h"
#include "tests/data_impl.h"
#include "train/train.h"
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

enum { MAX_DOC = 400 };
static int32_t ids[1 << 16];
static uint8_t marks[1 << 16];
static size_t begins[MAX_DOC + 1];

/* Documents of these lengths; ids count on, so that every token says where it comes from. */
static Tokens documents(const int *length, size_t n, bool marked)
{
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        begins[i] = at;
        for (int k = 0; k < length[i]; k++, at++) {
            ids[at] = (int32_t)at + 1;
            marks[at] = k >= length[i] / 2; /* the second half is trained */
        }
    }
    begins[n] = at;
    return (Tokens){
        .path = "documents", .id = ids, .n = at, .target = marked ? marks : NULL, .doc = begins, .n_doc = n};
}

static Packing pack(const Tokens *t, long T, bool pad, const char *rule, LoaderReport *rep)
{
    Packing p = {0};
    Err e = {0};
    *rep = (LoaderReport){0};
    packing_make(&p, t, T, pad, rule, rep, &arena, &e);
    ASSERT_OK(e);
    return p;
}

/* Lengths 5 4 7 3 2 6 take 4 3 6 2 1 5 positions: in rows of 8 first-fit gives {4 3 1} {6 2} {5}. */
TEST(pack, first_fit)
{
    static const int length[] = {5, 4, 7, 3, 2, 6};
    static const long rows[3][3] = {{0, 5, 19}, {9, 16, -1}, {21, -1, -1}};
    LoaderReport rep;
    const Tokens t = documents(length, 6, false);
    const Packing p = pack(&t, 8, false, "auto", &rep);
    ASSERT_EQ(p.n_row, 3);
    for (int r = 0; r < 3; r++)
        for (size_t k = p.row[r]; k < p.row[r + 1]; k++)
            ASSERT_EQ(p.part[k].from, (size_t)rows[r][k - p.row[r]]);
    int32_t in[8], out[8], pos[8], seg[8];
    ASSERT_EQ(packing_fill(&p, &t, 8, 1, true, in, out, pos, seg), 8);
    static const int32_t want[4][8] = {{10, 11, 12, 13, 14, 15, 17, 18},
                                       {11, 12, 13, 14, 15, 16, 18, 19},
                                       {0, 1, 2, 3, 4, 5, 0, 1},
                                       {1, 1, 1, 1, 1, 1, 2, 2}};
    ASSERT_BYTES(in, want[0], 32);
    ASSERT_BYTES(out, want[1], 32);
    ASSERT_BYTES(pos, want[2], 32);
    ASSERT_BYTES(seg, want[3], 32);
    ASSERT_EQ(packing_fill(&p, &t, 8, 2, false, in, out, pos, seg), 5);
    for (int i = 0; i < 8; i++) {
        ASSERT_EQ(pos[i], i);
        ASSERT_EQ(seg[i], i < 5);
        ASSERT_EQ(out[i], i < 5 ? 23 + i : -100);
    }
    arena_free(&arena);
}

/* Every target of every document is in one row, once; no row could have taken a later part before. */
TEST(pack, all_targets_once)
{
    static int length[MAX_DOC];
    const long T = 64;
    for (int i = 0; i < MAX_DOC; i++) length[i] = 2 + (int)(rng_u32((RngKey){.seed = 3}, (uint32_t)i) % 140);
    for (int marked = 0; marked < 2; marked++) {
        LoaderReport rep;
        const Tokens t = documents(length, MAX_DOC, marked);
        const Packing p = pack(&t, T, false, "split", &rep);
        static uint8_t seen[1 << 16];
        memset(seen, 0, sizeof seen);
        int32_t in[64], out[64], pos[64], seg[64];
        int64_t targets = 0;
        for (int64_t r = 0; r < p.n_row; r++) {
            targets += packing_fill(&p, &t, T, r, true, in, out, pos, seg);
            for (int i = 0; i < T; i++) {
                if (out[i] < 0) continue;
                ASSERT_EQ(out[i], in[i] + 1);
                ASSERT_EQ(seen[out[i] - 1]++, 0);
            }
        }
        int64_t want = 0;
        for (size_t i = 0; i < t.n_doc; i++)
            for (size_t k = t.doc[i] + 1; k < t.doc[i + 1]; k++) want += !t.target || t.target[k];
        ASSERT_EQ(targets, want);
        ASSERT_EQ(rep.targets, want);
    }
    arena_free(&arena);
}

TEST(pack, too_long_documents)
{
    static const int length[] = {9, 20, 5, 1};
    static const struct {
        const char *rule;
        bool marked;
        int64_t rows, dropped, targets, nothing;
    } c[] = {
        {"split", false, 5, 0, 31, 1}, {"truncate", false, 3, 11, 20, 1}, {"skip", false, 2, 20, 12, 1},
        {"auto", false, 5, 0, 31, 1},  {"auto", true, 2, 11, 8, 2},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        LoaderReport rep;
        const Tokens t = documents(length, 4, c[i].marked);
        const Packing p = pack(&t, 8, true, c[i].rule, &rep);
        ASSERT_EQ(p.n_row, c[i].rows);
        ASSERT_EQ(rep.too_long, 1);
        ASSERT_EQ(rep.longest, 20);
        ASSERT_EQ(rep.dropped_tokens, c[i].dropped);
        ASSERT_EQ(rep.targets, c[i].targets);
        ASSERT_EQ(rep.nothing_to_learn, c[i].nothing);
    }
    LoaderReport rep = {0};
    Packing p;
    Err e = {0};
    const Tokens t = documents(length, 4, false);
    ASSERT(!packing_make(&p, &t, 8, true, "error", &rep, &arena, &e));
    ASSERT_CONTAINS(e.msg, "document 2 has 20 tokens");
    arena_free(&arena);
}

/* A stream's windows: what the source does not train is no target, at the position that predicts it. */
TEST(pack, concat_masks_what_is_not_trained)
{
    Err e = {0};
    DataConfig d = data_defaults();
    const Tokenizer *tk = open_tokenizer("bytes");
    static const char text[] =
        "{\"prompt\": \"abc\", \"response\": \"xy\"}\n{\"prompt\": \"d\", \"response\": \"z\"}\n";
    const SourceConfig s = source_of(put_file("p.jsonl", text, sizeof text - 1), NULL);
    const LoaderOptions o = {.data = &d, .source = &s, .n_source = 1, .seq_len = 5};
    const Loader *l = loader_open(&o, tk, &arena, &e);
    ASSERT_OK(e);
    int32_t in[5], out[5];
    static const int32_t want[2][5] = {{-100, -100, -100, 'x', 'y'}, {256, -100, -100, 'z', 256}};
    for (int i = 0; i < 2; i++) { /* # a b c x y # # d z #, the last one only a target */
        ASSERT_EQ(loader_fill(l, i, in, out, NULL, NULL, &e), i ? 3 : 2);
        ASSERT_BYTES(out, want[i], sizeof out);
    }
    ASSERT_EQ(loader_report(l).targets, 5);
    d.packing = "pad";
    const Loader *pad = loader_open(&o, tk, &arena, &e);
    ASSERT_OK(e);
    ASSERT_EQ(loader_samples(pad), 2);
    ASSERT_EQ(loader_fill(pad, 1, in, out, NULL, NULL, &e), 2);
    static const int32_t row[5] = {-100, 'z', 256, -100, -100};
    ASSERT_BYTES(out, row, sizeof out);
    arena_free(&arena);
}

/* ---- logits ------------------------------------------------------------------------------------------- */
typedef struct Net {
    Model m;
    Graph *g;
    Tensor *ids, *pos, *seg, *logits;
} Net;

static Net net_of(const char *path, long T, bool segments)
{
    Net n = {0};
    Err e = {0};
    ASSERT(model_open(&n.m, path, kernels_ref_f64(), &arena, &e));
    n.g = graph_new(&(GraphOptions){.k = kernels_ref_f64(), .run = &arena}, &e);
    const long dim[2] = {1, T};
    n.ids = graph_input(n.g, "ids", DT_I32, 2, dim);
    n.pos = graph_input(n.g, "pos", DT_I32, 2, dim);
    if (segments) n.seg = graph_input(n.g, "seg", DT_I32, 2, dim);
    n.logits = model_logits(
        n.g, &n.m, model_hidden(n.g, &n.m, &(ModelInputs){.ids = n.ids, .pos = n.pos, .seg = n.seg}));
    graph_keep(n.g, n.logits);
    ASSERT(graph_plan(n.g, &e));
    return n;
}

/* A packed row's logits are those of each document run alone, for learned and for rotary positions. */
TEST(pack, logits_of_documents_run_alone)
{
    static const char *const models[] = {"tests/data/hf-tiny-gpt2", "tests/data/hf-tiny-llama",
                                         "tests/data/hf-tiny-mistral"};
    static const int length[] = {6, 10, 4, 7};
    const long T = 24;
    for (int i = 0; i < 3; i++) {
        LoaderReport rep;
        const Tokens t = documents(length, 4, false);
        const Packing p = pack(&t, T, false, "auto", &rep);
        ASSERT_EQ(p.n_row, 1);
        Net n = net_of(models[i], T, true);
        int32_t out[24];
        packing_fill(&p, &t, T, 0, true, n.ids->data, out, n.pos->data, n.seg->data);
        graph_forward(n.g);
        const double *z = n.logits->data;
        const long V = n.m.spec.V;
        long at = 0;
        for (int d = 0; d < 4; d++) {
            const long len = length[d] - 1;
            Net alone = net_of(models[i], len, false);
            for (long k = 0; k < len; k++) {
                ((int32_t *)alone.ids->data)[k] = t.id[t.doc[d] + (size_t)k];
                ((int32_t *)alone.pos->data)[k] = (int32_t)k;
            }
            graph_forward(alone.g);
            ASSERT_CLOSE_F64(z + at * V, alone.logits->data, (size_t)(len * V), 1e-12, 1e-12);
            graph_free(alone.g);
            at += len;
        }
        graph_free(n.g);
    }
    arena_free(&arena);
}

/* ---- prefetch ----------------------------------------------------------------------------------------- */
TEST(pack, prefetch_has_the_loaders_rows)
{
    Err e = {0};
    DataConfig d = data_defaults();
    d.packing = "pack";
    d.document_separator = "<|endoftext|>";
    const Tokenizer *tk = open_tokenizer("tests/data/stories/tok512.model");
    const SourceConfig s = source_of("tests/data/text/tinystories-valid.txt", "x[:60000b]");
    const LoaderOptions o = {
        .data = &d, .source = &s, .n_source = 1, .seq_len = 128, .seed = 5, .shuffle = true};
    Loader *l = loader_open(&o, tk, &arena, &e);
    ASSERT_OK(e);
    enum { B = 3, T = 128, N = B * T };
    static int32_t want[4][N];
    for (int workers = 0; workers < 4; workers++) {
        Prefetch *p = prefetch_open(l, B, workers, &arena, &e);
        double waited = 0;
        static const int64_t from[] = {0,  3,  6,  9,  9,  100, 103, 7,  10, 13,
                                       16, 19, 22, 25, 28, 31,  34,  37, 40};
        for (size_t i = 0; i < sizeof from / sizeof *from; i++) {
            const BatchRows *r = prefetch_get(p, from[i], &waited, &e);
            long counted = 0;
            for (long b = 0; b < B; b++)
                counted += loader_fill(l, from[i] + b, want[0] + b * T, want[1] + b * T, want[2] + b * T,
                                       want[3] + b * T, &e);
            ASSERT_EQ(r->counted, counted);
            ASSERT_BYTES(r->ids, want[0], sizeof want[0]);
            ASSERT_BYTES(r->targets, want[1], sizeof want[0]);
            ASSERT_BYTES(r->pos, want[2], sizeof want[0]);
            ASSERT_BYTES(r->seg, want[3], sizeof want[0]);
        }
        prefetch_close(p);
    }
    arena_free(&arena);
}

/* ---- end to end --------------------------------------------------------------------------------------- */
static double final_loss(const char *packing, int workers, bool mask)
{
    Err e = {0};
    ConfigDoc *doc = NULL;
    RunResult r;
    char *set[] = {
        arena_printf(&arena, &e, "run.output_dir=%s/%s-%d-%d", test_dir(), packing, workers, mask),
        arena_printf(&arena, &e, "data.packing=%s", packing),
        arena_printf(&arena, &e, "data.workers=%d", workers),
        arena_printf(&arena, &e, "data.mask_prompt=%s", mask ? "true" : "false"),
        (char[]){"run.recipe=pretrain"},
        (char[]){"tokenizer.path=bytes"},
        (char[]){"model.init={arch: llama, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, "
                 "intermediate_size: 64, vocab_size: 257, max_position_embeddings: 256}"},
        (char[]){"+data.train=[{path: tests/data/instruct/conversations.json}]"},
        (char[]){"+data.val=[{path: tests/data/instruct/conversations.json, split: 'x[:25%]'}]"},
        (char[]){"data.chat_template=chatml"},
        (char[]){"data.seq_len=192"},
        (char[]){"train.max_steps=6"},
        (char[]){"train.batch_size=2"},
        (char[]){"optim.learning_rate=3e-3"},
        (char[]){"checkpoint.every_steps=0"},
    };
    Config *c = config_load(&arena, NULL, (int)(sizeof set / sizeof *set), set, &doc, &e);
    ASSERT_MSG(c, "%s", doc ? config_error_text(doc) : e.msg);
    train_run(c, &(TrainOptions){0}, &r, &arena, &e);
    ASSERT_OK(e);
    ASSERT_STR(r.eval.protocol, "documents");
    ASSERT(r.eval.tokens > 100 && isfinite(r.eval.nll) && r.eval.nll < 5.2);
    return r.eval.nll;
}

TEST(pack, chats_train_end_to_end)
{
    const double packed = final_loss("pack", 2, true);
    ASSERT_EQ(packed, final_loss("pack", 0, true)); /* workers do not show */
    ASSERT(final_loss("pad", 1, true) < 5.2);
    ASSERT(final_loss("concat", 1, true) < 5.2);
    arena_free(&arena);
}
