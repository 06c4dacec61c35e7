/* tests/test_prune.c: scores, structures, schedules and masks of pruning: by hand, against PyTorch and NumPy
 * (tests/golden/make_prune.py), and by what must hold for any input. */
#include "compress/mask_impl.h"
#include "tests/test.h"
#include "train/train.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Bed {
    Arena a;
    Err e;
    Model m;
    Prune p;
    PruneConfig c;
} Bed;

static PruneConfig config(const char *method)
{
    static const char *exclude[] = {"embed_tokens", "lm_head", "norms"};
    static int64_t shape[] = {32, 32};
    return (PruneConfig){.enabled = true,
                         .method = method,
                         .sparsity = 0.5,
                         .structure = "unstructured",
                         .block_shape = {2, shape},
                         .scope = "auto",
                         .schedule = "auto",
                         .every_steps = 1,
                         .exclude = {3, exclude},
                         .snip_batches = 2,
                         .movement_threshold = 0.1,
                         .score_learning_rate = 0.01};
}

static bool open_on(Bed *b, const PruneConfig *c, const char *model, const Kernels *k)
{
    *b = (Bed){.a = {.name = "prune"}, .c = *c};
    ASSERT(model_open(&b->m, model, k, &b->a, &b->e));
    return prune_open(&b->p, &b->c, &b->m, 7, NULL, &b->e);
}

static bool bed_open(Bed *b, const PruneConfig *c)
{
    return open_on(b, c, "tests/data/hf-tiny-llama", kernels_cpu_f32());
}

static void bed_close(Bed *b) { arena_free(&b->a); }

static PruneItem *item(Bed *b, const char *name)
{
    for (int i = 0; i < b->p.n; i++)
        if (!strcmp(b->p.item[i].name, name)) return &b->p.item[i];
    test_fail(__FILE__, __LINE__, "no item %s", name);
    return NULL;
}

static long kept(const PruneItem *it)
{
    long n = 0;
    for (long j = 0; j < it->rows * it->cols; j++) n += it->keep[j];
    return n;
}

static void update(Bed *b, int64_t step, const Calibration *cal)
{
    bool moved;
    if (!prune_update(&b->p, step, cal, &moved, &b->e)) test_fail(__FILE__, __LINE__, "%s", b->e.msg);
}

static const float *gold(TensorFile *f, const char *name, Arena *a, Err *e)
{
    const FileTensor *t = formats_find(f, name);
    if (!t) test_fail(__FILE__, __LINE__, "no %s in the fixture", name);
    float *v = arena_alloc(a, t->bytes + 4, e);
    return formats_read_f32(f, t, v, e) ? v : NULL;
}

/* ---- choosing ---- */
TEST(prune, exact_k_ties_by_lowest_index)
{
    const float x[10] = {1, 3, 3, -0.0f, 3, 0.0f, 2, 3, 0, 1}, y[3] = {3, 5, -1};
    uint8_t a[10] = {0}, b[3] = {0};
    Units u[2] = {{10, x, a}, {3, y, b}};
    ASSERT_EQ(units_keep(u, 2, 4), 3.0);
    static const uint8_t want[10] = {0, 1, 1, 0, 1, 0, 0, 0, 0, 0}, want_b[3] = {0, 1, 0};
    ASSERT_BYTES(a, want, 10);
    ASSERT_BYTES(b, want_b, 3);
    units_keep(u, 2,
               8); /* more, on top of what is kept: 3, 3, 2, 1, 1, then both zeros and a third in order */
    static const uint8_t all_but[10] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, last[3] = {1, 1, 0};
    units_keep(u, 2, 0);
    ASSERT_BYTES(a, all_but, 10);
    ASSERT_BYTES(b, last, 3);
    ASSERT_EQ(kept_count(5, 0.5), 2L); /* rint(2.5) to even */
    ASSERT_EQ(kept_count(7, 0.5), 4L);
    ASSERT_EQ(kept_count(1000, 0.999), 1L);
    ASSERT(isnan(units_keep(u, 2, 0)));
}

/* Against a sort, on scores with many ties, signs and infinities. */
TEST(prune, exact_k_equals_a_sort)
{
    enum { N = 3000 };
    static float s[N];
    static uint8_t keep[N];
    for (int k = 0; k <= N; k += 271) {
        for (int i = 0; i < N; i++)
            s[i] = (float)((int)(rng_u32((RngKey){.seed = 1, .stream = 2}, (uint32_t)i) % 41) - 20) *
                   0x1p-130f;
        s[5] = INFINITY;
        s[9] = -INFINITY;
        memset(keep, 0, sizeof keep);
        units_keep(&(Units){N, s, keep}, 1, k);
        for (int i = 0; i < N; i++) {
            int better = 0;
            for (int j = 0; j < N; j++) better += s[j] > s[i] || (s[j] == s[i] && j < i);
            ASSERT_EQ((int)keep[i], (int)(better < k));
        }
    }
}

/* ---- methods on a model ---- */
TEST(prune, magnitude_counts_and_zeros)
{
    Bed b;
    PruneConfig c = config("magnitude");
    c.sparsity = 0.37;
    c.schedule = "oneshot";
    ASSERT(bed_open(&b, &c));
    Param *some = b.p.item[3].site->w; /* moments go with the weight, the others stay */
    float **moment[] = {(float **)&some->m, (float **)&some->v};
    for (int k = 0; k < 2; k++) {
        *moment[k] = arena_alloc(&b.a, (size_t)t_numel(&some->w) * sizeof(float), &b.e);
        for (long j = 0; j < t_numel(&some->w); j++) (*moment[k])[j] = 1;
    }
    update(&b, 0, NULL);
    for (long j = 0; j < t_numel(&some->w); j++)
        ASSERT((*moment[0])[j] == b.p.item[3].keep[j] && (*moment[1])[j] == b.p.item[3].keep[j]);
    ASSERT_EQ(b.p.n, (int)(7 * b.m.spec.L));
    for (int i = 0; i < b.p.n; i++) {
        const PruneItem *it = &b.p.item[i];
        const float *w = it->site->w->w.data;
        float least = INFINITY;
        ASSERT_EQ(kept(it), (long)rint((double)(it->rows * it->cols) * 0.63));
        for (long j = 0; j < it->rows * it->cols; j++) {
            if (it->keep[j]) least = fminf(least, fabsf(w[j]));
            else ASSERT(w[j] == 0 && !signbit(w[j]));
        }
        ASSERT(least > 0);
        ASSERT_EQ((double)least, it->limit);
    }
    bed_close(&b);
}

/* Scaling a matrix, or all of them, moves no mask; making masks again from the masked model neither. */
TEST(prune, scale_invariant_and_idempotent)
{
    Bed b, s;
    PruneConfig c = config("magnitude");
    c.schedule = "oneshot";
    for (int global = 0; global < 2; global++) {
        c.scope = global ? "global" : "layer";
        ASSERT(bed_open(&b, &c) && bed_open(&s, &c));
        for (int i = 0; i < s.p.n; i++) {
            float *w = s.p.item[i].site->w->w.data, by = global ? 4 : (float)(i + 1) * 0.5f;
            for (long j = 0; j < t_numel(&s.p.item[i].site->w->w); j++) w[j] *= by;
        }
        update(&b, 0, NULL);
        update(&s, 0, NULL);
        for (int i = 0; i < s.p.n; i++)
            ASSERT_BYTES(b.p.item[i].keep, s.p.item[i].keep, (size_t)(s.p.item[i].rows * s.p.item[i].cols));
        s.p.done = -1;
        update(&s, 0, NULL);
        for (int i = 0; i < s.p.n; i++)
            ASSERT_BYTES(b.p.item[i].keep, s.p.item[i].keep, (size_t)(s.p.item[i].rows * s.p.item[i].cols));
        bed_close(&b);
        bed_close(&s);
    }
}

TEST(prune, global_count_and_floor)
{
    Bed b;
    PruneConfig c = config("magnitude");
    c.schedule = "oneshot";
    c.scope = "global";
    c.sparsity = 0.9;
    c.layer_floor = 0.08;
    ASSERT(bed_open(&b, &c));
    float *w = b.p.item[3].site->w->w.data;
    for (long j = 0; j < t_numel(&b.p.item[3].site->w->w); j++)
        w[j] *= 1e-6f; /* would vanish without a floor */
    update(&b, 0, NULL);
    long all = 0, n = 0;
    for (int i = 0; i < b.p.n; i++) {
        const PruneItem *it = &b.p.item[i];
        const long size = it->rows * it->cols;
        ASSERT(kept(it) >= (long)ceil(0.08 * (double)size - 1e-9));
        all += size;
        n += kept(it);
    }
    ASSERT_EQ(n, (long)rint((double)all * 0.1));
    ASSERT_EQ(kept(&b.p.item[3]), (long)ceil(0.08 * (double)(b.p.item[3].rows * b.p.item[3].cols) - 1e-9));
    bed_close(&b);
}

TEST(prune, random_is_seeded)
{
    Bed b, s;
    PruneConfig c = config("random");
    c.schedule = "oneshot";
    ASSERT(bed_open(&b, &c) && bed_open(&s, &c));
    s.p.seed = 8;
    update(&b, 0, NULL);
    update(&s, 0, NULL);
    const PruneItem *x = &b.p.item[0], *y = &s.p.item[0];
    long same = 0, n = x->rows * x->cols;
    for (long j = 0; j < n; j++) same += x->keep[j] == y->keep[j];
    ASSERT_EQ(kept(x), kept(y));
    ASSERT(labs(same - n / 2) < 5 * (long)sqrt((double)n));
    bed_close(&b);
    bed_close(&s);
}

/* ---- structures ---- */
TEST(prune, two_of_four_and_four_of_eight)
{
    for (int of = 4; of <= 8; of += 4) {
        Bed b;
        PruneConfig c = config("magnitude");
        c.structure = of == 4 ? "2:4" : "4:8";
        ASSERT(bed_open(&b, &c));
        float *w = b.p.item[0].site->w->w.data;
        const float first[8] = {1, -1, 1, 1, 0, 0, 0, 5}; /* ties: the lowest indices stay */
        memcpy(w, first, sizeof first);
        update(&b, 0, NULL);
        for (int i = 0; i < b.p.n; i++)
            for (long j = 0; j < b.p.item[i].rows * b.p.item[i].cols; j += of) {
                int n = 0;
                for (int k = 0; k < of; k++) n += b.p.item[i].keep[j + k];
                ASSERT_EQ(n, of / 2);
            }
        static const uint8_t four[8] = {1, 1, 0, 0, 1, 0, 0, 1}, eight[8] = {1, 1, 1, 0, 0, 0, 0, 1};
        ASSERT_BYTES(b.p.item[0].keep, of == 4 ? four : eight, 8);
        bed_close(&b);
    }
}

/* Whole rows and tiles: the count, and the weakest by hand. */
TEST(prune, rows_and_blocks)
{
    Bed b;
    PruneConfig c = config("magnitude");
    c.schedule = "oneshot";
    c.structure = "row";
    c.sparsity = 0.25;
    ASSERT(bed_open(&b, &c));
    PruneItem *it = item(&b, "model.layers.0.self_attn.q_proj.weight");
    float *w = it->site->w->w.data;
    for (long r = 0; r < it->rows; r++) /* row r: one entry of r + 1, the rest 1e-3 */
        for (long k = 0; k < it->cols; k++) w[r * it->cols + k] = k == r % it->cols ? (float)(r + 1) : 1e-3f;
    update(&b, 0, NULL);
    const long gone = it->rows - (long)rint((double)it->rows * 0.75);
    for (long r = 0; r < it->rows; r++)
        for (long k = 0; k < it->cols; k++) ASSERT_EQ((int)it->keep[r * it->cols + k], (int)(r >= gone));
    bed_close(&b);
    static int64_t shape[] = {5, 3};
    c.structure = "block";
    c.block_shape.v = shape;
    c.sparsity = 0.5;
    ASSERT(bed_open(&b, &c));
    update(&b, 0, NULL);
    for (int i = 0; i < b.p.n; i++) {
        it = &b.p.item[i];
        long tiles = 0, whole = 0;
        for (long r = 0; r < it->rows; r += 5)
            for (long k = 0; k < it->cols; k += 3, tiles++) {
                const uint8_t v = it->keep[r * it->cols + k];
                whole += v;
                for (long y = r; y < r + 5 && y < it->rows; y++)
                    for (long x = k; x < k + 3 && x < it->cols; x++)
                        ASSERT_EQ((int)it->keep[y * it->cols + x], (int)v);
            }
        ASSERT_EQ(whole, (long)rint((double)tiles * 0.5));
    }
    bed_close(&b);
}

static bool row_kept(const PruneItem *it, long r) { return it->keep[r * it->cols]; }
static bool col_kept(const PruneItem *it, long k) { return it->keep[k]; }

/* A head takes its rows of q and columns of o; k and v only go with their whole group (here 2 heads a
 * group). */
TEST(prune, heads_and_neurons)
{
    Bed b;
    PruneConfig c = config("magnitude");
    c.schedule = "oneshot";
    c.structure = "head";
    c.sparsity = 0.5;
    ASSERT(bed_open(&b, &c));
    const long D = b.m.spec.D, H = b.m.spec.H, per = H / b.m.spec.Hkv;
    ASSERT_MSG(H == 4 && per == 2, "the tiny model has %ld heads, %ld a group", H, per);
    PruneItem *q = item(&b, "model.layers.0.self_attn.q_proj.weight"),
              *o = item(&b, "model.layers.0.self_attn.o_proj.weight"),
              *k = item(&b, "model.layers.0.self_attn.k_proj.weight");
    float *w = q->site->w->w.data;
    for (long j = 0; j < 2 * D * q->cols; j++)
        w[j] *= 1e-3f; /* heads 0 and 1, one group, are weak in layer 0 */
    w = o->site->w->w.data;
    for (long r = 0; r < o->rows; r++)
        for (long j = 0; j < 2 * D; j++) w[r * o->cols + j] *= 1e-3f;
    update(&b, 0, NULL);
    for (long j = 0; j < H * D; j++) {
        ASSERT_EQ(row_kept(q, j), j >= 2 * D);
        ASSERT_EQ(col_kept(o, j), j >= 2 * D);
    }
    for (long j = 0; j < b.m.spec.Hkv * D; j++) ASSERT_EQ(row_kept(k, j), j >= D);
    bed_close(&b);
    c.structure = "ffn";
    c.scope = "global";
    ASSERT(bed_open(&b, &c));
    update(&b, 0, NULL);
    long alive = 0;
    for (int l = 0; l < 2; l++) {
        const char *up = l ? "model.layers.1.mlp.up_proj.weight" : "model.layers.0.mlp.up_proj.weight",
                   *gate = l ? "model.layers.1.mlp.gate_proj.weight" : "model.layers.0.mlp.gate_proj.weight",
                   *down = l ? "model.layers.1.mlp.down_proj.weight" : "model.layers.0.mlp.down_proj.weight";
        for (long j = 0; j < b.m.spec.F; j++) {
            alive += row_kept(item(&b, up), j);
            ASSERT_EQ(row_kept(item(&b, up), j), row_kept(item(&b, gate), j));
            ASSERT_EQ(row_kept(item(&b, up), j), col_kept(item(&b, down), j));
        }
    }
    ASSERT_EQ(alive, (long)rint((double)(2 * b.m.spec.F) * 0.5));
    bed_close(&b);
    static const char *only[] = {"*up_proj*"};
    c.include = (ConfigStrs){1, only};
    ASSERT(bed_open(&b, &c));
    bool moved;
    ASSERT(!prune_update(&b.p, 0, NULL, &moved, &b.e));
    ASSERT_CONTAINS(b.e.msg, "runs through 3 tensors of layer 0");
    bed_close(&b);
}

/* ---- schedules ---- */
TEST(prune, schedules_by_hand)
{
    Bed b;
    PruneConfig c = config("magnitude");
    c.sparsity = 0.8;
    c.schedule = "cubic";
    c.begin_step = 10;
    c.end_step = 30;
    c.every_steps = 5;
    ASSERT(bed_open(&b, &c));
    ASSERT(prune_steps(&b.p, 40, NULL, &b.e));
    ASSERT_EQ(prune_target(&b.p, 9), 0.0);
    ASSERT_EQ(prune_target(&b.p, 10), 0.0);
    ASSERT_CLOSE(prune_target(&b.p, 20), 0.8 * (1 - 0.125), 1e-15, 0);
    ASSERT_EQ(prune_target(&b.p, 30), 0.8);
    uint8_t before[32] = {0};
    double last = 0;
    for (int64_t s = 0; s <= 40; s++) {
        bool moved;
        ASSERT(prune_update(&b.p, s, NULL, &moved, &b.e));
        ASSERT_EQ(moved, s == 15 || s == 20 || s == 25 || s == 30);
        if (!moved) continue;
        const double want = prune_target(&b.p, s);
        ASSERT(want > last);
        last = want;
        for (int i = 0; i < b.p.n; i++) {
            const PruneItem *it = &b.p.item[i];
            ASSERT_EQ(kept(it), kept_count(it->rows * it->cols, want));
        }
        for (int j = 0; j < 32; j++)
            ASSERT(s == 15 || before[j] >= b.p.item[0].keep[j]); /* none comes back */
        memcpy(before, b.p.item[0].keep, sizeof before);
    }
    b.p.cubic = false;
    ASSERT_CLOSE(prune_target(&b.p, 15), 0.2, 1e-15, 0);
    c.end_step = 41;
    b.c = c;
    ASSERT(!prune_steps(&b.p, 40, NULL, &b.e));
    ASSERT_CONTAINS(b.e.msg, "prune.end_step: 41 is behind the last step, 40");
    bed_close(&b);
}

/* regrow: weights behind the mask keep their values and come back when they win again; at the end they are
 * gone. */
TEST(prune, regrow_keeps_values_until_the_end)
{
    Bed b;
    PruneConfig c = config("magnitude");
    c.schedule = "linear";
    c.end_step = 4;
    c.regrow = true;
    ASSERT(bed_open(&b, &c));
    ASSERT(prune_steps(&b.p, 8, NULL, &b.e));
    PruneItem *it = &b.p.item[0];
    float *w = it->site->w->w.data;
    w[3] = 1e-6f;
    update(&b, 2, NULL);
    ASSERT(!it->keep[3] && w[3] == 1e-6f);
    w[3] = 100;
    update(&b, 3, NULL);
    ASSERT(it->keep[3]);
    w[3] = 1e-6f;
    update(&b, 4, NULL);
    ASSERT(!it->keep[3] && w[3] == 0 && !b.p.hidden);
    bed_close(&b);
}

/* ---- scores against PyTorch and NumPy ---- */
enum { ROWS = 4, T = 8 };
static long fixture_row(const void *ctx, int64_t i, int32_t *ids, int32_t *targets, int32_t *pos,
                        int32_t *seg)
{
    const long V = *(const long *)ctx;
    (void)seg;
    for (long t = 0; t < T; t++) {
        const long n = i * T + t, m = n + 1;
        ids[t] = (int32_t)((7 * n + n * n) % V);
        targets[t] = t + 1 < T ? (int32_t)((7 * m + m * m) % V) : -100;
        pos[t] = (int32_t)t;
    }
    return T;
}

static void scores_against(const char *method, const char *const *name, int n, const Kernels *k, double rtol)
{
    Bed b;
    TensorFile f;
    PruneConfig c = config(method);
    ASSERT(open_on(&b, &c, "tests/data/hf-tiny-llama", k));
    ASSERT(formats_open(&f, "tests/golden/prune.safetensors", &b.a, &b.e));
    float **score = arena_alloc(&b.a, (size_t)b.p.n * sizeof *score, &b.e);
    for (int i = 0; i < b.p.n; i++)
        score[i] = arena_alloc(&b.a, (size_t)(b.p.item[i].rows * b.p.item[i].cols) * sizeof **score, &b.e);
    const Calibration cal = {fixture_row, &b.m.spec.V, T, ROWS, 2, false};
    const bool ok = !strcmp(method, "wanda") ? score_inputs(&b.p, &cal, score, 0.5, &b.a, &b.e)
                                             : score_gradients(&b.p, &cal, score, &b.a, &b.e);
    if (!ok) test_fail(__FILE__, __LINE__, "%s", b.e.msg);
    for (int i = 0; i < n; i++) {
        const PruneItem *it = item(&b, name[i]);
        const float *want = gold(&f, arena_printf(&b.a, &b.e, "%s.%s", method, name[i]), &b.a, &b.e);
        const long size = it->rows * it->cols;
        double top = 0;
        for (long j = 0; j < size; j++) top = fmax(top, (double)want[j]);
        ASSERT_CLOSE_F32(score[it - b.p.item], want, (size_t)size, rtol, rtol * top);
    }
    if (!strcmp(method, "wanda")) /* compared inside a row */
        for (int i = 0; i < b.p.n; i++)
            for (long r = 0; r < b.p.item[i].rows; r++) {
                long in_row = 0;
                for (long j = 0; j < b.p.item[i].cols; j++)
                    in_row += b.p.item[i].keep[r * b.p.item[i].cols + j];
                ASSERT_EQ(in_row, kept_count(b.p.item[i].cols, 0.5));
            }
    formats_close(&f);
    bed_close(&b);
}
static const char *const grad_names[] = {"model.layers.0.self_attn.q_proj.weight",
                                         "model.layers.1.mlp.down_proj.weight"};
static const char *const input_names[] = {"model.layers.0.self_attn.o_proj.weight",
                                          "model.layers.0.mlp.down_proj.weight"};
TEST(prune, snip_is_pytorchs) { scores_against("snip", grad_names, 2, kernels_ref_f64(), 1e-6); }
TEST(prune, snip_in_float32) { scores_against("snip", grad_names, 2, kernels_cpu_f32(), 1e-5); }
TEST(prune, taylor_is_pytorchs) { scores_against("taylor", grad_names, 2, kernels_ref_f64(), 1e-6); }
TEST(prune, wanda_is_pytorchs) { scores_against("wanda", input_names, 2, kernels_ref_f64(), 1e-6); }
TEST(prune, wanda_in_float32) { scores_against("wanda", input_names, 2, kernels_cpu_f32(), 1e-5); }

static void second_order(const char *name, int pattern, int of, long block)
{
    enum { R = 24, C = 192 };
    Arena a = {.name = "prune"};
    Err e = {0};
    TensorFile f;
    ASSERT(formats_open(&f, "tests/golden/prune.safetensors", &a, &e));
    const float *w0 = gold(&f, "sparsegpt.w", &a, &e), *h0 = gold(&f, "sparsegpt.h", &a, &e);
    const float *want = gold(&f, arena_printf(&a, &e, "sparsegpt.%s.out", name), &a, &e);
    double *w = arena_alloc(&a, sizeof *w * R * C, &e), *h = arena_alloc(&a, sizeof *h * C * C, &e);
    uint8_t *keep = arena_alloc(&a, (size_t)R * C, &e);
    float *have = arena_alloc(&a, sizeof *have * R * C, &e);
    for (int i = 0; i < R * C; i++) w[i] = (double)w0[i];
    for (int i = 0; i < C * C; i++) h[i] = (double)h0[i];
    ASSERT(sparsegpt(w, h, keep, R, C, 0.5, pattern, of, block, "w", &a, &e));
    long zeros = 0;
    for (int i = 0; i < R * C; i++) {
        have[i] = (float)w[i];
        zeros += !keep[i];
        ASSERT(keep[i] || w[i] == 0);
    }
    ASSERT_EQ(zeros, (long)(R * C / 2));
    ASSERT_CLOSE_F32(have, want, (size_t)(R * C), 1e-5, 1e-6);
    formats_close(&f);
    arena_free(&a);
}
TEST(prune, sparsegpt_is_numpys) { second_order("50", 0, 0, 128); }
TEST(prune, sparsegpt_one_block) { second_order("50whole", 0, 0, 192); }
TEST(prune, sparsegpt_two_of_four) { second_order("24", 2, 4, 128); }

/* Compensation pays: the layer's output error is below magnitude's. A probe of the whole walk. */
TEST(prune, sparsegpt_on_a_model)
{
    Bed b;
    PruneConfig c = config("sparsegpt");
    c.structure = "2:4";
    ASSERT(bed_open(&b, &c));
    const Calibration cal = {fixture_row, &b.m.spec.V, T, ROWS, 2, false};
    update(&b, 0, &cal);
    for (int i = 0; i < b.p.n; i++) {
        const PruneItem *it = &b.p.item[i];
        const float *w = it->site->w->w.data;
        ASSERT_EQ(kept(it), it->rows * it->cols / 2);
        for (long j = 0; j < it->rows * it->cols; j++) ASSERT(it->keep[j] || w[j] == 0);
    }
    bed_close(&b);
}

/* Wanda's mask does not see a channel scale that the norm before takes back. */
TEST(prune, wanda_is_invariant_to_injection)
{
    Bed b, s;
    PruneConfig c = config("wanda");
    ASSERT(open_on(&b, &c, "tests/data/hf-tiny-llama", kernels_ref_f64()));
    ASSERT(open_on(&s, &c, "tests/data/hf-tiny-llama", kernels_ref_f64()));
    static const char *const reads[] = {"gate", "up"};
    double *g = params_find(&s.m.params, "model.layers.0.post_attention_layernorm.weight")->w.data;
    for (long j = 0; j < s.m.spec.C; j += 5) g[j] *= 64;
    for (int k = 0; k < 2; k++) {
        const PruneItem *it = item(&s,
                                   arena_printf(&s.a, &s.e, "model.layers.0.mlp.%s_proj.weight", reads[k]));
        double *w = it->site->w->w.data;
        for (long i = 0; i < it->rows * it->cols; i++)
            if (i % it->cols % 5 == 0) w[i] /= 64;
    }
    const Calibration cal = {fixture_row, &b.m.spec.V, T, ROWS, 2, false};
    update(&b, 0, &cal);
    update(&s, 0, &cal);
    for (int i = 0; i < b.p.n; i++)
        ASSERT_BYTES(b.p.item[i].keep, s.p.item[i].keep, (size_t)(b.p.item[i].rows * b.p.item[i].cols));
    bed_close(&b);
    bed_close(&s);
}

/* ---- movement ---- */
TEST(prune, movement_scores_move)
{
    Bed b;
    PruneConfig c = config("movement");
    c.schedule = "cubic";
    c.begin_step = 1;
    c.end_step = 5;
    ASSERT(bed_open(&b, &c));
    ASSERT(prune_steps(&b.p, 8, NULL, &b.e));
    params_alloc_grads(&b.m.params, &b.e);
    PruneItem *it = &b.p.item[0];
    ASSERT(it->score && it->score->aux && !it->score->decay);
    Graph *g = graph_new(&(GraphOptions){.k = b.m.params.k, .train = true, .run = &b.a}, &b.e);
    Tensor *w = site_weight(g, it->site), *t = graph_input(g, "t", DT_F32, 2, (long[]){it->rows, it->cols});
    graph_loss(g, OP(g, mse, w, t, NULL), 1, "mse");
    if (!graph_plan(g, &b.e)) test_fail(__FILE__, __LINE__, "%s", b.e.msg);
    float *s = it->score->w.data, *x = it->site->w->w.data;
    const long n = it->rows * it->cols;
    for (long j = 0; j < n; j++) s[j] = (float)((j * 37) % 101) - 50;
    update(&b, 1, NULL);
    ASSERT_EQ(kept(it), n);
    update(&b, 3, NULL);
    ASSERT_EQ(kept(it), kept_count(n, 0.5 * (1 - 0.125)));
    graph_step_begin(g);
    graph_micro(g);
    graph_step_end(g);
    const float *ds = it->score->w.grad, *dw = it->site->w->w.grad;
    for (long j = 0; j < n; j++) { /* target 0: dy = 2 y / cols, and y = 0 where masked */
        const double y = it->keep[j] ? (double)x[j] : 0, dy = 2 * y / (double)it->cols;
        ASSERT_CLOSE((double)dw[j], it->keep[j] ? dy : 0, 1e-6, 1e-12);
        ASSERT_CLOSE((double)ds[j], dy * (double)x[j], 1e-6, 1e-12);
        ASSERT(x[j] != 0); /* behind the mask */
    }
    s[0] = 1000; /* a masked one may win back its place */
    update(&b, 4, NULL);
    ASSERT(it->keep[0]);
    update(&b, 5, NULL);
    ASSERT_EQ(kept(it), kept_count(n, 0.5));
    ASSERT(it->score->frozen && !b.p.hidden);
    for (long j = 0; j < n; j++) ASSERT(it->keep[j] || x[j] == 0);
    graph_free(g);
    bed_close(&b);
}

TEST(prune, soft_movement_by_hand)
{
    Bed b;
    PruneConfig c = config("soft_movement");
    c.schedule = "cubic";
    c.end_step = 4;
    c.movement_lambda = 3;
    ASSERT(bed_open(&b, &c));
    ASSERT(prune_steps(&b.p, 8, NULL, &b.e));
    params_alloc_grads(&b.m.params, &b.e);
    PruneItem *it = &b.p.item[0], *other = &b.p.item[1];
    float *s = it->score->w.data;
    const long n = it->rows * it->cols;
    const double tau = 0.1 * (1 - 0.125);
    ASSERT_CLOSE(prune_target(&b.p, 2), tau, 1e-15, 0);
    s[0] = (float)(log(tau / (1 - tau)) + 0.01);
    s[1] = (float)(log(tau / (1 - tau)) - 0.01);
    for (long j = 0; j < t_numel(&other->score->w); j++) ((float *)other->score->w.data)[j] = -9;
    update(&b, 2, NULL);
    ASSERT(it->keep[0] && !it->keep[1]);
    ASSERT_EQ(kept(it), n - 1);
    const long m = other->rows * other->cols;
    ASSERT_EQ(kept(other), (long)ceil(0.005 * (double)m)); /* never less than half a percent */
    double sum = 0, all = 0;
    for (int i = 0; i < b.p.n; i++) {
        const Tensor *t = &b.p.item[i].score->w;
        for (long j = 0; j < t_numel(t); j++) sum += 1 / (1 + exp(-(double)((float *)t->data)[j]));
        all += (double)t_numel(t);
    }
    const double weight = 3 * tau / 0.1;
    ASSERT_CLOSE(prune_regularise(&b.p, 2, 10), 10 * weight * sum / all, 1e-12, 0);
    ASSERT_CLOSE((double)((float *)it->score->w.grad)[5], 10 * weight * 0.25 / all, 1e-6, 0);
    ASSERT_EQ(prune_regularise(&b.p, 4, 10), 0.0);
    bed_close(&b);
}

/* ---- what is refused ---- */
static void refused(PruneConfig c, const char *part)
{
    Bed b;
    if (bed_open(&b, &c)) test_fail(__FILE__, __LINE__, "accepted, expected: %s", part);
    ASSERT_CONTAINS(b.e.msg, part);
    bed_close(&b);
}

TEST(prune, refused)
{
    static const char *glob[] = {"model.layers.0.mlp.upp_proj.weight"}, *head[] = {"lm_head"},
                      *none[] = {"norms"};
    PruneConfig c = config("magnitude");
    c.include = (ConfigStrs){1, glob};
    refused(c, "the nearest is model.layers.0.mlp.up_proj.weight");
    c.include = (ConfigStrs){1, none};
    refused(c, "no tensor is left to prune");
    c.include = (ConfigStrs){1, head};
    refused(c, "no tensor is left to prune");
    c = config("magnitude");
    c.structure = "2:4";
    c.sparsity = 0.6;
    refused(c, "structure 2:4 has a share of its own, 0.5");
    c = config("wanda");
    c.scope = "global";
    refused(c, "wanda compares within a row");
    c = config("sparsegpt");
    c.structure = "row";
    refused(c, "sparsegpt makes unstructured, 2:4 or 4:8");
    c = config("soft_movement");
    refused(c, "movement_lambda");
    c = config("movement");
    c.schedule = "oneshot";
    refused(c, "movement scores grow over steps");
    c = config("snip");
    c.layer_floor = 0.6;
    refused(c, "more than the 0.5 that sparsity keeps");
    Bed b;
    bool moved;
    c = config("snip");
    ASSERT(bed_open(&b, &c));
    ASSERT(!prune_update(&b.p, 0, NULL, &moved, &b.e));
    ASSERT_CONTAINS(b.e.msg, "snip needs data");
    bed_close(&b);
    c = config("magnitude");
    c.schedule = "oneshot";
    ASSERT(bed_open(&b, &c));
    ((float *)b.p.item[2].site->w->w.data)[4] = NAN;
    ASSERT(!prune_update(&b.p, 0, NULL, &moved, &b.e));
    ASSERT_CONTAINS(b.e.msg, "score of element 4 is NaN");
    bed_close(&b);
}
