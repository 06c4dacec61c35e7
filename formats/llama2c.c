/* formats/llama2c.c: llama2.c's .bin, version 0.
 *
 *   7 x int32: dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size (negative: untied head), seq_len
 *   float32, each kind for all layers: tok_embeddings, attention_norm, wq, wk, wv, wo, ffn_norm, w1, w2, w3;
 *   norm; cos [seq_len, head_dim/2]; sin [seq_len, head_dim/2]; the head if untied
 * No magic: a file is one when its length is exactly what its seven numbers ask for. q and k rows are
 * interleaved. Readers take norm eps 1e-5, theta 1e4 and no biases for granted. Source: karpathy/llama2.c. */
#include <math.h>
#include <string.h>
#include "formats/formats_impl.h"

enum { WQ = 2, WK = 3, N_KINDS = 11, HEAD_BYTES = 28 };
typedef struct Kind {
    const char *hf, *meta;
    bool per_layer;
} Kind;
static const Kind kinds[N_KINDS] = {{"model.embed_tokens.weight", "tok_embeddings", false},
                                    {"input_layernorm.weight", "attention_norm", true},
                                    {"self_attn.q_proj.weight", "wq", true},
                                    {"self_attn.k_proj.weight", "wk", true},
                                    {"self_attn.v_proj.weight", "wv", true},
                                    {"self_attn.o_proj.weight", "wo", true},
                                    {"post_attention_layernorm.weight", "ffn_norm", true},
                                    {"mlp.gate_proj.weight", "w1", true},
                                    {"mlp.down_proj.weight", "w2", true},
                                    {"mlp.up_proj.weight", "w3", true},
                                    {"model.norm.weight", "norm", false}};

/* rows, cols of kind k (cols 0: a vector). */
static void kind_shape(const LlamaDims *d, int k, int64_t shape[2])
{
    const int64_t c = d->dim, kv = c / d->heads * d->kv_heads;
    const int64_t s[N_KINDS][2] = {{d->vocab, c},  {c, 0},         {c, c}, {kv, c},
                                   {kv, c},        {c, c},         {c, 0}, {d->hidden, c},
                                   {c, d->hidden}, {d->hidden, c}, {c, 0}};
    shape[0] = s[k][0];
    shape[1] = s[k][1];
}

/* Floats behind the header; each count is under 2^31, so the sums below stay far under 2^127. */
static unsigned __int128 floats_of(const LlamaDims *d)
{
    unsigned __int128 n = (unsigned __int128)d->seq * (uint64_t)(d->dim / d->heads);
    for (int k = 0; k < N_KINDS; k++) {
        int64_t s[2];
        kind_shape(d, k, s);
        n += (unsigned __int128)s[0] * (uint64_t)(s[1] ? s[1] : 1) *
             (uint64_t)(kinds[k].per_layer ? d->layers : 1);
    }
    return d->tied ? n : n + (unsigned __int128)d->vocab * (uint64_t)d->dim;
}

/* Reads the seven numbers; says what is wrong with them, or NULL. */
static const char *header_read(LlamaDims *d, const unsigned char *p, size_t bytes)
{
    int32_t h[7];
    if (bytes < HEAD_BYTES) return "shorter than its header of 28 bytes";
    for (int i = 0; i < 7; i++)
        h[i] = (int32_t)((uint32_t)p[4 * i] | (uint32_t)p[4 * i + 1] << 8 | (uint32_t)p[4 * i + 2] << 16 |
                         (uint32_t)p[4 * i + 3] << 24);
    if ((uint32_t)h[0] == 0x616b3432u) return "a llama2.c file of version 1 or later; only version 0 is read";
    *d = (LlamaDims){.dim = h[0],
                     .hidden = h[1],
                     .layers = h[2],
                     .heads = h[3],
                     .kv_heads = h[4],
                     .vocab = h[5] < 0 ? -(int64_t)h[5] : h[5],
                     .seq = h[6],
                     .eps = 1e-5,
                     .theta = 1e4,
                     .tied = h[5] > 0};
    if (d->dim < 1 || d->hidden < 1 || d->layers < 1 || d->heads < 1 || d->kv_heads < 1 || d->vocab < 1 ||
        d->seq < 1)
        return "not a llama2.c file: a count in its header is zero or negative";
    if (d->dim % d->heads || d->heads % d->kv_heads || d->dim / d->heads % 2)
        return "not a llama2.c file: width and head counts in its header do not divide";
    if (d->layers > 100000) return "not a llama2.c file: over 100000 layers";
    return NULL;
}

bool llama2c_is(const unsigned char *p, size_t bytes)
{
    LlamaDims d;
    return !header_read(&d, p, bytes) && (unsigned __int128)bytes == HEAD_BYTES + 4 * floats_of(&d);
}

static void place(FileTensor *t, const LlamaDims *d, int k, const unsigned char **at)
{
    int64_t s[2];
    kind_shape(d, k, s);
    t->dtype = DT_F32;
    t->ndim = s[1] ? 2 : 1;
    t->dim[0] = s[0];
    t->dim[1] = s[1];
    t->bytes = (size_t)s[0] * (size_t)(s[1] ? s[1] : 1) * sizeof(float);
    t->data = *at;
    t->unpermute_heads = k == WQ ? (int)d->heads : k == WK ? (int)d->kv_heads : 0;
    *at += t->bytes;
}

bool llama2c_read(TensorFile *f, const char *path, Err *e)
{
    LlamaDims d;
    const FileMap *m = maps_add(f, path, e);
    if (!m) return false;
    const char *wrong = header_read(&d, m->data, m->bytes);
    if (wrong) return err_set(e, ERR_CORRUPT, "%s: %s", path, wrong);
    unsigned __int128 want = HEAD_BYTES + 4 * floats_of(&d);
    if (want != m->bytes)
        return err_set(
            e, ERR_CORRUPT,
            "%s: %s: its header (dim %lld, layers %lld, vocab %lld, seq %lld) asks for %.0f bytes, "
            "the file has %zu",
            path, want > m->bytes ? "truncated, or not a llama2.c file" : "too long for a llama2.c file",
            (long long)d.dim, (long long)d.layers, (long long)d.vocab, (long long)d.seq, (double)want,
            m->bytes);
    FileTensor *t = tensors_add(f, (int)(d.layers * (N_KINDS - 2) + 2 + !d.tied), e);
    if (!t) return false;
    const unsigned char *at = m->data + HEAD_BYTES;
    for (int k = 0; k < N_KINDS; k++)
        for (int l = 0; l < (kinds[k].per_layer ? (int)d.layers : 1); l++, t++) {
            place(t, &d, k, &at);
            t->name = kinds[k].per_layer ? arena_printf(f->arena, e, "model.layers.%d.%s", l, kinds[k].hf)
                                         : kinds[k].hf;
            t->stored_name = kinds[k].per_layer ? arena_printf(f->arena, e, "%s[%d]", kinds[k].meta, l)
                                                : kinds[k].meta;
        }
    if (!d.tied) {
        at += (size_t)d.seq * (size_t)(d.dim / d.heads) * sizeof(float); /* the two RoPE tables */
        place(t, &d, 0, &at);
        t->name = "lm_head.weight";
        t->stored_name = "wcls";
    }
    f->arch = "llama";
    f->config_json = llama_config_json(&d, f->arena, e);
    return !e->code;
}

/* ---- writing ------------------------------------------------------------------------------------------- */

static const OutTensor *out_find(const OutModel *m, const char *name)
{
    for (int i = 0; i < m->n; i++)
        if (!strcmp(m->t[i].name, name)) return m->t[i].tied_to ? out_find(m, m->t[i].tied_to) : &m->t[i];
    return NULL;
}

static bool number_is(const json_t *config, const char *key, double want, const char *path, Err *e)
{
    const json_t *v = json_object_get(config, key);
    if (!v || fabs(json_number_value(v) - want) <= 1e-6 * want) return true;
    return err_set(e, ERR_FAIL,
                   "%s: llama2.c cannot hold %s %g (its readers take %g); write .safetensors or .h5", path,
                   key, json_number_value(v), want);
}

static int64_t count_in(const json_t *config, const char *key, int64_t otherwise)
{
    const json_t *v = json_object_get(config, key);
    return json_is_integer(v) ? json_integer_value(v) : otherwise;
}

static bool config_fits(LlamaDims *d, const json_t *c, const OutModel *m, const char *path, Err *e)
{
    const char *arch = json_string_value(json_object_get(c, "model_type"));
    const json_t *rope = json_object_get(c, "rope_parameters");
    const char *kind = json_string_value(json_object_get(rope, "rope_type"));
    if (!arch || (strcmp(arch, "llama") && strcmp(arch, "mistral")))
        return err_set(e, ERR_FAIL, "%s: llama2.c holds Llama models only, this one is `%s`", path,
                       arch ? arch : "?");
    if (json_is_object(json_object_get(c, "rope_scaling")) || (kind && strcmp(kind, "default")))
        return err_set(e, ERR_FAIL, "%s: llama2.c cannot hold scaled RoPE; write .safetensors or .h5", path);
    if (json_is_integer(json_object_get(c, "sliding_window")))
        return err_set(e, ERR_FAIL, "%s: llama2.c cannot hold a sliding window; write .safetensors or .h5",
                       path);
    if (!number_is(c, "rms_norm_eps", 1e-5, path, e) || !number_is(c, "rope_theta", 1e4, path, e) ||
        !number_is(rope, "rope_theta", 1e4, path, e))
        return false;
    *d = (LlamaDims){.dim = count_in(c, "hidden_size", 0),
                     .hidden = count_in(c, "intermediate_size", 0),
                     .layers = count_in(c, "num_hidden_layers", 0),
                     .heads = count_in(c, "num_attention_heads", 0),
                     .vocab = count_in(c, "vocab_size", 0),
                     .seq = count_in(c, "max_position_embeddings", 2048)};
    d->kv_heads = count_in(c, "num_key_value_heads", d->heads);
    const OutTensor *head = out_find(m, "lm_head.weight");
    d->tied = !head || head == out_find(m, "model.embed_tokens.weight");
    if (d->dim < 1 || d->hidden < 1 || d->layers < 1 || d->heads < 1 || d->kv_heads < 1 || d->vocab < 1 ||
        d->seq < 1 || d->dim % d->heads || d->heads % d->kv_heads || d->dim / d->heads % 2 ||
        d->layers > 100000 || d->dim > INT32_MAX || d->hidden > INT32_MAX || d->vocab > INT32_MAX ||
        d->seq > INT32_MAX)
        return err_set(e, ERR_FAIL, "%s: the model's config.json has no sizes that llama2.c could hold",
                       path);
    if (count_in(c, "head_dim", d->dim / d->heads) != d->dim / d->heads)
        return err_set(e, ERR_FAIL, "%s: llama2.c needs head_dim = hidden_size / heads", path);
    return true;
}

static const OutTensor *out_kind(const OutModel *m, const LlamaDims *d, int k, int layer, Arena *a,
                                 const char *path, Err *e)
{
    int64_t s[2];
    const char *name = kinds[k].hf;
    if (kinds[k].per_layer) name = arena_printf(a, e, "model.layers.%d.%s", layer, name);
    const OutTensor *t = name ? out_find(m, name) : NULL;
    kind_shape(d, k, s);
    if (!t) {
        err_set(e, ERR_FAIL, "%s: the model has no tensor `%s`", path, name ? name : "?");
    } else if (t->ndim != (s[1] ? 2 : 1) || t->dim[0] != s[0] || (s[1] && t->dim[1] != s[1])) {
        err_set(e, ERR_FAIL, "%s: tensor `%s`: its shape is not the [%lld, %lld] of config.json", path, name,
                (long long)s[0], (long long)s[1]);
    } else if (t->dtype != DT_F32 || !t->src || t->in_out) {
        err_set(e, ERR_FAIL, "%s: tensor `%s`: llama2.c holds float32 only; ask for dtype float32", path,
                name);
    }
    return e->code ? NULL : t;
}

/* halves p*D/2+j -> pairs 2j+p: the readers' order, row by row */
static void put_permuted(Sink *s, const OutTensor *t, int64_t heads)
{
    const size_t rows = (size_t)t->dim[0], cols = (size_t)t->dim[1], dh = rows / (size_t)heads;
    for (size_t r = 0; r < rows; r++) {
        size_t h = r / dh, j = r % dh / 2, p = r % dh % 2;
        sink_put(s, t->src + (h * dh + p * (dh / 2) + j) * cols, cols * sizeof(float));
    }
}

/* As llama2.c's export makes them, in float32: its tables come from float32 angles. */
static void put_rope(Sink *s, const LlamaDims *d, float (*f)(float))
{
    const int64_t dh = d->dim / d->heads;
    for (int64_t t = 0; t < d->seq; t++)
        for (int64_t j = 0; j < dh / 2; j++) {
            float freq = 1.0f / (float)pow(1e4, (double)((float)(2 * j) / (float)dh));
            float x = f((float)t * freq);
            sink_put(s, &x, sizeof x);
        }
}

static void put_all(Sink *s, const LlamaDims *d, const OutModel *m, Arena *a, Err *e)
{
    const int32_t h[7] = {(int32_t)d->dim,   (int32_t)d->hidden,   (int32_t)d->layers,
                          (int32_t)d->heads, (int32_t)d->kv_heads, (int32_t)(d->tied ? d->vocab : -d->vocab),
                          (int32_t)d->seq};
    sink_put(s, h, sizeof h);
    for (int k = 0; k < N_KINDS; k++)
        for (int l = 0; l < (kinds[k].per_layer ? (int)d->layers : 1); l++) {
            const OutTensor *t = out_kind(m, d, k, l, a, s->path, e);
            if (!t) return;
            if (k == WQ || k == WK) put_permuted(s, t, k == WQ ? d->heads : d->kv_heads);
            else sink_tensor(s, t);
        }
    put_rope(s, d, cosf);
    put_rope(s, d, sinf);
    if (!d->tied) sink_tensor(s, out_find(m, "lm_head.weight"));
}

/* Anything but the eleven kinds (biases, q/k norms, adapters) would be lost. */
static bool nothing_lost(const OutModel *m, const LlamaDims *d, const char *path, Err *e)
{
    const int64_t want = d->layers * (N_KINDS - 2) + 2;
    int64_t have = 0;
    for (int i = 0; i < m->n; i++) {
        const char *name = m->t[i].name, *rest = name;
        bool known = !strcmp(name, "lm_head.weight");
        if (!strncmp(name, "model.layers.", 13)) rest = strchr(name + 13, '.');
        for (int k = 0; k < N_KINDS && rest && !known; k++)
            known = !strcmp(kinds[k].per_layer && rest != name ? rest + 1 : rest, kinds[k].hf);
        if (!known)
            return err_set(e, ERR_FAIL, "%s: llama2.c cannot hold tensor `%s`; write .safetensors or .h5",
                           path, name);
        have += strcmp(name, "lm_head.weight") != 0;
    }
    if (have != want)
        return err_set(e, ERR_FAIL, "%s: the model has %lld tensors, config.json's %lld layers make %lld",
                       path, (long long)have, (long long)d->layers, (long long)want);
    const OutTensor *head = out_find(m, "lm_head.weight");
    if (!d->tied && (head->dtype != DT_F32 || !head->src || head->ndim != 2 || head->dim[0] != d->vocab ||
                     head->dim[1] != d->dim))
        return err_set(e, ERR_FAIL,
                       "%s: tensor `lm_head.weight`: llama2.c holds float32 only, here [%lld, %lld]", path,
                       (long long)d->vocab, (long long)d->dim);
    return true;
}

bool formats_write_llama2c(const char *path, const OutModel *m, Err *e)
{
    Arena a = {.name = "formats"};
    LlamaDims d;
    Sink s = {.fd = -1};
    if (e->code || !out_check(m, path, e)) return false;
    if (!m->config_json)
        return err_set(e, ERR_FAIL, "%s: llama2.c needs the model's config.json; none is known", path);
    json_t *config = json_object_of(m->config_json, strlen(m->config_json), "config.json", e);
    if (config && config_fits(&d, config, m, path, e) && nothing_lost(m, &d, path, e) &&
        sink_open(&s, path, (uint64_t)(HEAD_BYTES + 4 * floats_of(&d)), &a, e)) {
        put_all(&s, &d, m, &a, e);
        sink_commit(&s);
    }
    json_decref(config);
    arena_free(&a);
    return !e->code;
}
