/* tests/test_bake.c: a baked file is what training computed with, or is refused. */
#define _GNU_SOURCE
#include "compress/compress.h"
#include "tests/pare_impl.h"

typedef struct Fix {
    Arena a;
    Err e;
    Model m;
    QatConfig c;
    Qat q;
    BakeState s;
} Fix;

/* tables: the token table, and the head tied to it, are quantised too. */
static void fix_open(Fix *f, const char *format, bool tables)
{
    static const char *exclude[] = {"embed_tokens", "lm_head", "norms"};
    *f = (Fix){.a = {.name = "bake"}};
    ASSERT(model_open(&f->m, "tests/data/stories/stories260K.bin", kernels_ref_f32(), &f->a, &f->e));
    f->c = (QatConfig){.enabled = format != NULL,
                       .weight = format,
                       .activation = "none",
                       .grad = "none",
                       .granularity = "auto",
                       .group_size = format && !strncmp(format, "int", 3) ? 32 : 0,
                       .scale_rounding = "floor",
                       .symmetric = true,
                       .scale_update = "dynamic",
                       .amax_history = 4,
                       .ste = "auto",
                       .quantize_embedding = tables,
                       .rounding = "nearest",
                       .exclude = {3, exclude}};
    ASSERT(qat_open(&f->q, &f->c, &f->m, NULL, &f->e));
    qat_before(&f->q, 0);
    f->s = (BakeState){.m = &f->m, .q = &f->q};
}

TEST(bake, every_format_reads_back_and_runs)
{
    static const char *const format[] = {NULL,       "int8", "int4",  "fp8_e4m3", "fp8_e5m2",
                                         "fp4_e2m1", "nf4",  "mxfp8", "mxfp4",    "nvfp4"};
    for (int i = 0; i < 10; i++) {
        Fix f;
        fix_open(&f, format[i], i % 2);
        OutModel packed, effective;
        BakeReport r, again;
        const char *path = in_dir(text_of("m%d.h5", i));
        ASSERT(bake(&f.s, DT_F32, &packed, &effective, &f.a, &f.e));
        ASSERT(bake_write(path, "hdf5", &packed, 0, &f.e) && bake_verify(&f.s, path, &effective, &r, &f.e));
        ASSERT_OK(f.e);
        ASSERT_EQ((long)r.parameters, 260032);
        ASSERT(bake_count(path, &again, &f.e));
        ASSERT(again.nonzeros == r.nonzeros && again.stored == r.stored && again.bytes == r.bytes);
        ASSERT(i ? r.stored < 4 * r.parameters / 2 : r.stored == 4 * r.parameters);
        arena_free(&f.a);
    }
}

TEST(bake, refuses_what_differs)
{
    Fix f;
    fix_open(&f, "nvfp4", true);
    OutModel packed, effective;
    BakeReport r;
    const char *path = in_dir("m.h5");
    ASSERT(bake(&f.s, DT_F32, &packed, &effective, &f.a, &f.e) && bake_write(path, "hdf5", &packed, 0, &f.e));
    /* the state moves on by one bit of a gain: same codes, other values */
    Param *p = params_find(&f.m.params, "model.norm.weight");
    OutModel later, later_effective;
    ((float *)p->w.data)[3] += 0.25f;
    ASSERT(bake(&f.s, DT_F32, &later, &later_effective, &f.a, &f.e));
    ASSERT(!bake_verify(&f.s, path, &later_effective, &r, &f.e));
    ASSERT_CONTAINS(f.e.msg, "model.norm.weight");
    /* the tensors' comparison satisfied: the logits still differ */
    f.e = (Err){0};
    ((float *)p->w.data)[3] -= 0.25f;
    ASSERT(bake(&f.s, DT_F32, &later, &later_effective, &f.a, &f.e));
    ((float *)p->w.data)[3] += 0.25f;
    OutTensor *t = arena_alloc(&f.a, (size_t)effective.n * sizeof *t, &f.e);
    float *gain = arena_alloc(&f.a, 64 * sizeof *gain, &f.e);
    for (int i = 0; i < effective.n; i++) {
        t[i] = effective.t[i];
        if (strcmp(t[i].name, "model.norm.weight")) continue;
        memcpy(gain, t[i].src, 64 * sizeof *gain);
        gain[3] -= 0.25f;
        t[i].src = gain;
    }
    effective.t = t;
    ASSERT(!bake_verify(&f.s, path, &effective, &r, &f.e));
    ASSERT_CONTAINS(f.e.msg, "logits");
    arena_free(&f.a);
}
