/* tests/onnx_ops_impl.h: one function per ONNX operator that names something of ours, and their table.
 * Each reads in.*, calls kernels of c->k, and checks out.*. Array letters as in kernels.h.
 */
#ifndef ONNX_OPS_IMPL_H
#define ONNX_OPS_IMPL_H
#include "tests/onnx_impl.h"

/* ---- softmax and losses ------------------------------------------------------------------------------- */
static double *softmax_rows(Case *c, const double *x, long N, long V)
{
    void *y = room(c, N * V);
    c->k->softmax(y, up(c, x, N * V), N, V, 1.0);
    return down(c, y, N * V);
}

/* -log p(target) of each row; one_target >= 0 stands for every row's. */
static double *nll_rows(Case *c, const double *z, const int32_t *targets, int32_t one_target, long N, long V,
                        double *sums)
{
    const LossAttr a = {.ce_weight = 1.0, .temperature = 1.0};
    double none[4] = {0};
    int32_t *t = room(c, N);
    for (long i = 0; i < N; i++) t[i] = one_target >= 0 ? one_target : targets[i];
    void *nll = room(c, N);
    c->k->xent(up(c, z, N * V), NULL, t, N, V, &a, 0.0, sums ? sums : none, nll);
    return down(c, nll, N);
}

/* log sum exp of each row, from the loss of class 0 */
static double *lse_rows(Case *c, const double *z, long N, long V)
{
    double *r = nll_rows(c, z, NULL, 0, N, V, NULL);
    for (long i = 0; i < N; i++) r[i] += z[i * V];
    return r;
}

static void run_softmax(Case *c)
{
    const Array x = get(c, "in.x");
    const Split s = split(x, (long)attr(c, "axis", -1));
    const double *y = softmax_rows(c, axis_moved(c, x.v, s, false), x.n / s.C, s.C);
    check(c, "out.y", axis_moved(c, y, s, true), x.n);
}

static void run_logsoftmax(Case *c)
{
    const Array x = get(c, "in.x");
    const Split s = split(x, (long)attr(c, "axis", -1));
    const long N = x.n / s.C;
    double *z = axis_moved(c, x.v, s, false), *y = room(c, x.n);
    for (int32_t j = 0; j < s.C; j++) {
        const double *nll = nll_rows(c, z, NULL, j, N, s.C, NULL);
        for (long i = 0; i < N; i++) y[i * s.C + j] = -nll[i];
    }
    check(c, "out.y", axis_moved(c, y, s, true), x.n);
}

static void run_sce(Case *c)
{
    const Array x = get(c, "in.x");
    double sums[4] = {0}, *nll = nll_rows(c, x.v, whole(c, get(c, "in.y")), -1, x.dim[0], x.dim[1], sums);
    if (strstr(c->name, "none")) check(c, "out.z", nll, x.dim[0]);
    else check(c, "out.z", &(double){strstr(c->name, "mean") ? sums[0] / sums[3] : sums[0]}, 1);
}

static void run_nllloss(Case *c)
{
    const Array x = get(c, "in.input"), y = get(c, "in.target");
    const Split s = split(x, 1);
    const long N = x.n / s.C;
    const double *z = axis_moved(c, x.v, s, false);
    double *nll = nll_rows(c, z, whole(c, y), -1, N, s.C, NULL), sum = 0.0;
    const double *lse = lse_rows(c, z, N, s.C);
    for (long i = 0; i < N; i++) sum += nll[i] -= lse[i];
    if (formats_find(&c->f, "out.loss") && get(c, "out.loss").n == N) check(c, "out.loss", nll, N);
    else check(c, "out.loss", &(double){strstr(c->f.metadata_json, "mean") ? sum / (double)N : sum}, 1);
}

/* Reductions over all axes, or over one. */
static Split reduced(Case *c, Array x)
{
    const Array axes = get(c, "in.axes");
    return axes.n ? split(x, (long)axes.v[0]) : (Split){1, x.n, 1};
}

static void run_reduce_log_sum_exp(Case *c)
{
    const Array x = get(c, "in.data");
    const Split s = reduced(c, x);
    const long N = s.outer * s.inner;
    check(c, "out.reduced", lse_rows(c, axis_moved(c, x.v, s, false), N, s.C), N);
}

static void run_reduce_l2(Case *c)
{
    const Array x = get(c, "in.data");
    const Split s = reduced(c, x);
    double *y = room(c, s.outer * s.inner);
    void *rows = up(c, axis_moved(c, x.v, s, false), x.n);
    for (long i = 0; i < s.outer * s.inner; i++) {
        double sum = 0.0;
        c->k->sumsq(&sum, at(c, rows, i * s.C), s.C);
        y[i] = sqrt(sum);
    }
    check(c, "out.reduced", y, s.outer * s.inner);
}

/* ---- activations -------------------------------------------------------------------------------------- */
static void run_gelu(Case *c)
{
    const Array x = get(c, "in.x");
    void *y = room(c, x.n);
    c->k->gelu_fwd(y, up(c, x.v, x.n), x.n, false);
    check_up(c, "out.y", y, x.n);
}

static void run_erf(Case *c)
{
    const Array x = get(c, "in.x");
    double *z = room(c, x.n);
    for (long i = 0; i < x.n; i++) z[i] = sqrt(2.0) * x.v[i];
    void *g = room(c, x.n);
    c->k->gelu_fwd(g, up(c, z, x.n), x.n, false);
    double *y = down(c, g, x.n);
    for (long i = 0; i < x.n; i++) y[i] = z[i] != 0.0 ? 2.0 * y[i] / z[i] - 1.0 : y[i];
    check(c, "out.y", y, x.n);
}

static void run_swish(Case *c)
{
    const Array x = get(c, "in.x");
    void *y = room(c, x.n), *one = room(c, x.n);
    c->k->fill(one, 1.0, x.n);
    c->k->swiglu_fwd(y, up(c, x.v, x.n), one, x.n);
    check_up(c, "out.y", y, x.n);
    if (attr(c, "alpha", 1.0) != 1.0) blame(c, "alpha", 0, attr(c, "alpha", 1.0), 1.0);
}

/* sigmoid, tanh and softplus from rows (x, 0) and (x, -x) of two classes */
static void run_two_classes(Case *c)
{
    const Array x = get(c, "in.x");
    const bool is_tanh = strstr(c->name, "tanh") != NULL;
    double *z = room(c, 2 * x.n), *y = room(c, x.n);
    for (long i = 0; i < x.n; i++) z[2 * i] = x.v[i], z[2 * i + 1] = is_tanh ? -x.v[i] : 0.0;
    if (strstr(c->name, "softplus")) y = nll_rows(c, z, NULL, 1, x.n, 2, NULL);
    else {
        const double *p = softmax_rows(c, z, x.n, 2);
        for (long i = 0; i < x.n; i++) y[i] = p[2 * i] - (is_tanh ? p[2 * i + 1] : 0.0);
    }
    check(c, "out.y", y, x.n);
}

/* ---- norms, attention, rotary positions --------------------------------------------------------------- */
static void run_layer_normalization(Case *c)
{
    const Array x = get(c, "in.X"), w = get(c, "in.W"), b = get(c, "in.B");
    const long C = w.n, N = x.n / C;
    void *y = room(c, x.n), *mean = room(c, N), *rstd = room(c, N);
    c->tol = 1e-4;
    c->k->layernorm_fwd(y, mean, rstd, up(c, x.v, x.n), up(c, w.v, C), up(c, b.v, C), N, C,
                        attr(c, "epsilon", 1e-5));
    check_up(c, "out.Y", y, x.n);
    check_up(c, "out.Mean", mean, N);
    check_up(c, "out.InvStdDev", rstd, N);
}

static void run_rms_normalization(Case *c)
{
    const Array x = get(c, "in.X"), w = get(c, "in.W");
    const long C = w.n, N = x.n / C;
    void *y = room(c, x.n), *rstd = room(c, N);
    c->tol = 1e-4;
    c->k->rmsnorm_fwd(y, rstd, up(c, x.v, x.n), up(c, w.v, C), N, C, attr(c, "epsilon", 1e-5));
    check_up(c, "out.Y", y, x.n);
}

/* (B,H,T,D) <-> (B,T,H,D): swaps the two middle axes of a dims (B,p,q,D) array */
static double *middle_swapped(Case *c, const double *x, long B, long p, long q, long D)
{
    double *y = room(c, B * p * q * D);
    for (long b = 0; b < B; b++)
        for (long i = 0; i < p; i++)
            for (long j = 0; j < q; j++)
                memcpy(y + ((b * q + j) * p + i) * D, x + ((b * p + i) * q + j) * D, (size_t)D * sizeof *y);
    return y;
}

static void run_attention(Case *c)
{
    const Array q = get(c, "in.Q"), k = get(c, "in.K"), v = get(c, "in.V");
    const bool four = q.nd == 4;
    AttnShape s = {.B = q.dim[0], .causal = attr(c, "is_causal", 0) != 0.0};
    s.H = four ? q.dim[1] : (long)attr(c, "q_num_heads", 0);
    s.Hkv = four ? k.dim[1] : (long)attr(c, "kv_num_heads", 0);
    s.Tq = q.dim[four ? 2 : 1], s.Tkv = k.dim[four ? 2 : 1], s.D = q.n / (s.B * s.Tq * s.H);
    s.q_stride = s.o_stride = s.H * s.D, s.k_stride = s.v_stride = s.Hkv * s.D;
    s.scale = attr(c, "scale", 1.0 / sqrt((double)s.D));
    c->tol = q.t->dtype == DT_F16 ? 1e-2 : 1e-4;
    const double *qt = four ? middle_swapped(c, q.v, s.B, s.H, s.Tq, s.D) : q.v;
    const double *kt = four ? middle_swapped(c, k.v, s.B, s.Hkv, s.Tkv, s.D) : k.v;
    const double *vt = four ? middle_swapped(c, v.v, s.B, s.Hkv, s.Tkv, s.D) : v.v;
    void *o = room(c, q.n), *lse = room(c, s.B * s.H * s.Tq);
    c->k->attention_fwd(o, lse, up(c, qt, q.n), up(c, kt, k.n), up(c, vt, v.n), &s);
    const double *y = down(c, o, q.n);
    check(c, "out.Y", four ? middle_swapped(c, y, s.B, s.Tq, s.H, s.D) : y, q.n);
}

/* The caches are random numbers: each (cos, sin) is radius and angle, the kernel turns by the angle. */
static void run_rotary_embedding(Case *c)
{
    const Array x = get(c, "in.input"), cs = get(c, "in.cos_cache"), sn = get(c, "in.sin_cache");
    const Array pos = has(c, "in.position_ids") ? get(c, "in.position_ids") : (Array){0};
    const long B = x.dim[0], H = x.dim[1], T = x.dim[2], D = x.dim[3], half = cs.dim[cs.nd - 1];
    const double *xt = middle_swapped(c, x.v, B, H, T, D);
    double *y = room(c, x.n), *angle = room(c, half);
    const int32_t first = 1;
    const RopeShape s = {.rows = 1,
                         .H = H,
                         .D = D,
                         .D_rot = 2 * half,
                         .x_stride = H * D,
                         .y_stride = H * D,
                         .interleaved = attr(c, "interleaved", 0) != 0.0,
                         .mscale = 1.0,
                         .inv_freq = angle,
                         .pos = &first};
    void *out = room(c, H * D);
    for (long t = 0; t < B * T; t++) {
        const long row = pos.n ? (long)pos.v[t] : t;
        for (long j = 0; j < half; j++) angle[j] = atan2(sn.v[row * half + j], cs.v[row * half + j]);
        c->k->rope_fwd(out, up(c, xt + t * H * D, H * D), &s);
        memcpy(y + t * H * D, down(c, out, H * D), (size_t)(H * D) * sizeof *y);
        for (long h = 0; h < H; h++)
            for (long j = 0; j < 2 * half; j++)
                y[(t * H + h) * D + j] *= hypot(sn.v[row * half + j % half], cs.v[row * half + j % half]);
    }
    check(c, "out.output", middle_swapped(c, y, B, T, H, D), x.n);
}

/* ---- matrices and gathers ----------------------------------------------------------------------------- */
/* Leading dims padded to two batch dims, then rows and columns. */
static void matrices(Array x, bool left, long d[4])
{
    const int lead = x.nd > 2 ? x.nd - 2 : 0;
    d[0] = lead > 1 ? x.dim[0] : 1;
    d[1] = lead > 0 ? x.dim[lead - 1] : 1;
    d[2] = x.nd > 1 ? x.dim[x.nd - 2] : left ? 1 : x.dim[0];
    d[3] = x.nd > 1 ? x.dim[x.nd - 1] : left ? x.dim[0] : 1;
}

static void run_matmul(Case *c)
{
    const bool einsum = strstr(c->name, "einsum") != NULL;
    const Array a = get(c, einsum ? "in.x" : "in.a"), b = get(c, einsum ? "in.y" : "in.b");
    long p[4], q[4], n = 0;
    matrices(a, true, p);
    matrices(b, false, q);
    const long B0 = p[0] > q[0] ? p[0] : q[0], B1 = p[1] > q[1] ? p[1] : q[1], M = p[2], K = p[3], N = q[3];
    void *y = room(c, B0 * B1 * M * N), *x = up(c, a.v, a.n), *w = up(c, b.v, b.n);
    for (long i = 0; i < B0; i++)
        for (long j = 0; j < B1; j++, n++) {
            const long ia = (p[0] > 1 ? i : 0) * p[1] + (p[1] > 1 ? j : 0);
            const long ib = (q[0] > 1 ? i : 0) * q[1] + (q[1] > 1 ? j : 0);
            c->k->gemm_nn(at(c, y, n * M * N), at(c, x, ia * M * K), at(c, w, ib * K * N), M, N, K, SET);
        }
    check_up(c, einsum ? "out.z" : "out.c", y, n * M * N);
}

static void run_gemm(Case *c)
{
    const Array a = get(c, "in.a"), b = get(c, "in.b"), bias = has(c, "in.c") ? get(c, "in.c") : (Array){0};
    const bool ta = attr(c, "transA", 0) != 0.0, tb = attr(c, "transB", 0) != 0.0;
    const long M = a.dim[ta], K = a.dim[!ta], N = b.dim[!tb];
    const double alpha = attr(c, "alpha", 1.0), beta = attr(c, "beta", 1.0);
    void *x = up(c, a.v, a.n), *w = up(c, b.v, b.n), *y = room(c, M * N), *row = room(c, N);
    if (ta && tb) { /* both turned: w x is the result turned */
        c->k->gemm_nn(y, w, x, N, M, K, SET);
        y = up(c, axis_moved(c, down(c, y, M * N), (Split){1, N, M}, false), M * N);
    } else if (tb) c->k->gemm_nt(y, x, w, M, N, K, SET);
    else if (ta) c->k->gemm_tn(y, x, w, M, N, K, SET);
    else c->k->gemm_nn(y, x, w, M, N, K, SET);
    if (bias.n == M * N) c->k->axpby(y, alpha, y, beta, up(c, bias.v, M * N), M * N);
    else {
        if (bias.n == N) c->k->scale(row, beta, up(c, bias.v, N), N, SET);
        if (bias.n == 1) c->k->fill(row, beta * bias.v[0], N);
        c->k->scale(y, alpha, y, M * N, SET);
        if (bias.n) c->k->add_row(y, row, M, N);
    }
    check_up(c, "out.y", y, M * N);
}

static void run_gather(Case *c)
{
    const Array x = get(c, "in.data"), idx = get(c, "in.indices");
    const Split s = split(x, (long)attr(c, "axis", 0));
    int32_t *ids = whole(c, idx);
    for (long i = 0; i < idx.n; i++) ids[i] += ids[i] < 0 ? (int32_t)s.C : 0;
    void *y = room(c, s.outer * idx.n * s.inner), *w = up(c, x.v, x.n);
    for (long o = 0; o < s.outer; o++)
        c->k->embedding_fwd(at(c, y, o * idx.n * s.inner), at(c, w, o * s.C * s.inner), ids, idx.n, s.inner,
                            SET);
    check_up(c, "out.y", y, s.outer * idx.n * s.inner);
}

static void run_mean(Case *c)
{
    const Array x = get(c, "in.data_0");
    const char *more[] = {"in.data_1", "in.data_2"};
    void *y = up(c, x.v, x.n);
    int n = 1;
    for (; n < 3 && has(c, more[n - 1]); n++)
        c->k->axpby(y, 1.0, y, 1.0, up(c, get(c, more[n - 1]).v, x.n), x.n);
    c->k->scale(y, 1.0 / n, y, x.n, SET);
    check_up(c, "out.result", y, x.n);
}

static void run_dropout(Case *c)
{
    const Array x = get(c, "in.x");
    void *y = room(c, x.n);
    c->k->dropout(y, up(c, x.v, x.n), get(c, "in.r").v[0], 1, 0, 0, 0, 1, x.n, SET);
    check_up(c, "out.y", y, x.n);
    if (!has(c, "out.z")) return;
    double *all = room(c, x.n);
    for (long i = 0; i < x.n; i++) all[i] = 1.0;
    check(c, "out.z", all, x.n);
}

/* ---- optimizers --------------------------------------------------------------------------------------- */
static void run_optimizer(Case *c)
{
    const Array x = get(c, "in.X"), g = get(c, "in.G"), v = get(c, "in.V");
    const double lr = get(c, "in.R").v[0], l2 = attr(c, "norm_coefficient", 0), alpha = attr(c, "alpha", 0);
    void *w = up(c, x.v, x.n), *m = up(c, v.v, x.n), *grad = up(c, g.v, x.n);
    if (get(c, "in.T").v[0] != 0.0) blame(c, "in.T", 0, get(c, "in.T").v[0], 0.0);
    if (strstr(c->name, "adam")) {
        void *h = up(c, get(c, "in.H").v, x.n);
        c->k->axpby(grad, l2, w, 1.0, grad, x.n);
        c->k->adamw(w, m, h, grad, x.n, lr, alpha, attr(c, "beta", 0), attr(c, "epsilon", 0), 0.0, 1.0, 1.0,
                    1.0);
        check_up(c, "out.H_new", h, x.n);
    } else c->k->sgd(w, m, grad, x.n, lr, alpha, l2, 1.0);
    check_up(c, "out.V_new", m, x.n);
    check_up(c, "out.X_new", w, x.n);
}

/* ---- element types ------------------------------------------------------------------------------------ */
/* Codes or float bits equal; a NaN may be any NaN. */
static void same_bits(Case *c, const void *got, const FileTensor *want, const Array x)
{
    const size_t size = dtype_size(want->dtype);
    for (long i = 0; i < x.n; i++) {
        float f = 0.0f;
        dtype_to_f32(&f, (const char *)got + (size_t)i * size, want->dtype, 1);
        const bool equal = !memcmp((const char *)got + (size_t)i * size, want->data + (size_t)i * size, size);
        if (isnan(x.v[i]) ? !isnan(f) : !equal) blame(c, want->name, i, (double)f, element(want, i));
    }
}

static void run_cast(Case *c)
{
    const Array x = get(c, "in.input");
    const FileTensor *want = formats_find(&c->f, "out.output");
    void *got = room(c, x.n);
    const bool from = x.t->dtype == DT_F32;
    float *in = room(c, x.n);
    dtype_to_f32(in, x.t->data, x.t->dtype, (size_t)x.n);
    const bool ok = from ? dtype_from_f32(got, want->dtype, in, (size_t)x.n)
                         : dtype_to_f32(got, x.t->data, x.t->dtype, (size_t)x.n);
    if (!ok) blame(c, "cast refused", 0, NAN, NAN);
    same_bits(c, got, want, x);
}

static void run_quantize_e4m3(Case *c)
{
    const Array x = get(c, "in.x");
    const float scale = (float)get(c, "in.y_scale").v[0];
    float *scaled = room(c, x.n);
    void *codes = room(c, x.n);
    for (long i = 0; i < x.n; i++) scaled[i] = (float)x.v[i] / scale;
    dtype_from_f32(codes, DT_F8_E4M3, scaled, (size_t)x.n);
    same_bits(c, codes, formats_find(&c->f, "out.y"), x);
}

static void run_dequantize_e4m3(Case *c)
{
    const Array x = get(c, "in.x");
    if (has(c, "in.zero_point") && get(c, "in.zero_point").v[0] != 0.0) blame(c, "zero point", 0, 1.0, 0.0);
    void *y = room(c, x.n);
    c->k->scale(y, get(c, "in.x_scale").v[0], up(c, x.v, x.n), x.n, SET);
    double *out = down(c, y, x.n);
    if (formats_find(&c->f, "out.y")->dtype == DT_F16)
        for (long i = 0; i < x.n; i++) out[i] = (double)f32_from_f16(f16_from_f32((float)out[i]));
    check(c, "out.y", out, x.n);
}

/* ---- the table ---------------------------------------------------------------------------------------- */
static const Handler handlers[] = {
    {"test_adam", run_optimizer},
    {"test_attention_", run_attention},
    {"test_cast_", run_cast},
    {"test_erf", run_erf},
    {"test_dequantizelinear_e4m3fn", run_dequantize_e4m3},
    {"test_einsum_batch_matmul", run_matmul},
    {"test_einsum_inner_prod", run_matmul},
    {"test_gather_", run_gather},
    {"test_gelu_", run_gelu},
    {"test_gemm_", run_gemm},
    {"test_layer_normalization_", run_layer_normalization},
    {"test_logsoftmax_", run_logsoftmax},
    {"test_matmul_", run_matmul},
    {"test_mean_", run_mean},
    {"test_momentum", run_optimizer},
    {"test_nllloss_", run_nllloss},
    {"test_quantizelinear_e4m3fn", run_quantize_e4m3},
    {"test_reduce_l2_", run_reduce_l2},
    {"test_reduce_log_sum_exp_", run_reduce_log_sum_exp},
    {"test_rms_normalization_", run_rms_normalization},
    {"test_rotary_embedding", run_rotary_embedding},
    {"test_sce_", run_sce},
    {"test_sigmoid", run_two_classes},
    {"test_softmax_", run_softmax},
    {"test_softplus", run_two_classes},
    {"test_swish", run_swish},
    {"test_tanh", run_two_classes},
    {"test_training_dropout_zero_ratio", run_dropout},
};
#endif
