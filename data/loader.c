/* data/loader.c: token streams -> samples, each a pure function of (seed, sample number).
 *
 *   concat      sample i of a source: ids t[iT .. iT+T-1], targets one further; (n-1)/T samples
 *   window_bos  sample i: ids BOS, t[iT .. iT+T-2], targets t[iT .. iT+T-1]; n/T samples, the short last
 *               window is left out
 *   pack, pad   sample i is row i of the source's documents, packing.c
 * A token that its source does not train is no target.
 *
 * Sources never join. Equal weights: an epoch is every sample of every source once, in the order of a Feistel
 * permutation of (seed, epoch), or in file order. Unequal weights: an epoch has as many samples, source j
 * draws its share q_j of them (largest remainder), its k-th draw lies at (k + 1/2) / q_j of the epoch, and
 * each source runs through its own permutation again and again, independent of the others.
 */
#include "data/packing_impl.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct Source {
    Tokens tok;
    TokenMap *map; /* tokens left in their files; tok has their path and number alone. NULL = tok has them */
    Packing rows;
    int64_t samples, first, draws;
    double weight;
    uint64_t seed;
} Source;
typedef struct Draw {
    double at;
    int32_t source;
    int64_t nth;
} Draw;
struct Loader {
    Source *source;
    int n_source;
    long seq_len;
    int bos;
    bool window_bos, shuffle, packed, pad, restart;
    LoaderReport report;
    int64_t samples, tokens;
    uint64_t seed;
    Draw *draw; /* [samples] by place in the epoch; NULL = equal weights */
    char hash[33];
};

static int draw_order(const void *x, const void *y)
{
    const Draw *a = x, *b = y;
    if (a->at < b->at) return -1;
    if (a->at > b->at) return 1;
    return (a->source > b->source) - (a->source < b->source);
}

/* q_j: shares of the epoch in proportion to the weights, largest remainders first. */
static bool share_draws(Loader *l, Arena *a, Err *e)
{
    double sum = 0, *rest = arena_alloc(a, (size_t)l->n_source * sizeof *rest, e);
    int64_t left = l->samples;
    if (!rest) return false;
    for (int j = 0; j < l->n_source; j++) sum += l->source[j].weight;
    for (int j = 0; j < l->n_source; j++) {
        const double q = (double)l->samples * (l->source[j].weight / sum);
        l->source[j].draws = (int64_t)floor(q);
        rest[j] = q - floor(q);
        left -= l->source[j].draws;
    }
    for (; left > 0; left--) {
        int best = 0;
        for (int j = 1; j < l->n_source; j++)
            if (rest[j] > rest[best]) best = j;
        l->source[best].draws++;
        rest[best] -= 1;
    }
    return true;
}

static bool interleave(Loader *l, Arena *a, Err *e)
{
    bool equal = true;
    for (int j = 1; j < l->n_source; j++)
        if (l->source[j].weight < l->source[0].weight || l->source[j].weight > l->source[0].weight)
            equal = false;
    if (equal) return true;
    for (int j = 0; j < l->n_source; j++)
        if (l->source[j].samples == 0)
            return err_set(e, ERR_FAIL, "%s: %zu tokens are too few for one sample of %ld",
                           l->source[j].tok.path, l->source[j].tok.n, l->seq_len);
    if (!share_draws(l, a, e)) return false;
    l->draw = arena_alloc(a, (size_t)l->samples * sizeof *l->draw, e);
    if (!l->draw) return false;
    int64_t n = 0;
    for (int j = 0; j < l->n_source; j++)
        for (int64_t k = 0; k < l->source[j].draws; k++)
            l->draw[n++] = (Draw){((double)k + 0.5) / (double)l->source[j].draws, j, k};
    qsort(l->draw, (size_t)n, sizeof *l->draw, draw_order);
    return true;
}

/* Windows of a stream: how many, and what of them is trained. */
static void count_windows(Loader *l, Source *s)
{
    const size_t n = s->tok.n, T = (size_t)l->seq_len;
    const uint8_t *target = s->tok.target;
    s->samples = (int64_t)(l->window_bos ? n / T : (n - 1) / T);
    l->report.documents += s->tok.count.documents;
    for (size_t i = 0; i < (size_t)s->samples; i++) {
        int64_t on = target ? 0 : (int64_t)T;
        for (size_t j = 0; target && j < T; j++) on += target[i * T + j + !l->window_bos];
        l->report.targets += on;
        l->report.nothing_to_learn += on == 0;
    }
}

static bool make_samples(Loader *l, Source *s, const DataConfig *d, Arena *a, Err *e)
{
    if (!l->packed) {
        count_windows(l, s);
        return true;
    }
    const int64_t nothing = l->report.nothing_to_learn;
    if (!packing_make(&s->rows, &s->tok, l->seq_len, l->pad, d->too_long ? d->too_long : "auto", &l->report,
                      a, e))
        return false;
    s->samples = s->rows.n_row;
    if (l->report.nothing_to_learn > nothing)
        log_warn("%s: %lld documents have nothing to learn within seq_len %ld and are left out", s->tok.path,
                 (long long)(l->report.nothing_to_learn - nothing), l->seq_len);
    return true;
}

static bool content_hash(char hex[33], const Source *s, Err *e)
{
    const Tokens *t = &s->tok;
    if (s->map) return token_map_hash(s->map, hex, e);
    hash128_hex(hex, t->id, t->n * sizeof *t->id);
    if (!t->target) return true;
    char both[66];
    memcpy(both, hex, 33);
    hash128_hex(both + 33, t->target, t->n);
    hash128_hex(hex, both, sizeof both);
    return true;
}

static void report(Loader *l)
{
    LoaderReport *r = &l->report;
    int64_t used = 0;
    for (int j = 0; j < l->n_source; j++)
        for (size_t k = 0; k < l->source[j].rows.n_part; k++) used += l->source[j].rows.part[k].n;
    r->fill = l->packed && l->samples ? (double)used / (double)(l->samples * l->seq_len) : 1;
    if (r->too_long > 0)
        log_info(
            "data: %lld of %lld documents are longer than seq_len %ld (the longest has %lld tokens); %lld "
            "tokens are cut off",
            (long long)r->too_long, (long long)r->documents, l->seq_len, (long long)r->longest,
            (long long)r->dropped_tokens);
    if (l->packed)
        log_info("data: %lld documents in %lld rows of %ld, %.1f %% full, %lld targets",
                 (long long)r->documents, (long long)l->samples, l->seq_len, 100 * r->fill,
                 (long long)r->targets);
}

/* Token files stay in their files where samples are cut from the stream; everything else is read. */
static bool load_source(Loader *l, Source *s, const SourceConfig *from, const LoaderOptions *o,
                        const Tokenizer *tk, Arena *a, Err *e)
{
    Arena scratch = {.name = "source"};
    Paths p = {0};
    FileKind kind = FILE_TEXT;
    bool ok = source_open(&p, &kind, from, tk, &scratch, e);
    if (ok && !l->packed && (kind == FILE_LLMC || kind == FILE_NANOGPT)) {
        s->map = token_map_open(&p, kind, from, o->data, o->vocab, a, e);
        s->tok = (Tokens){.path = arena_strdup(a, from->path, e), .n = s->map ? token_map_count(s->map) : 0};
        if (!e->code && s->tok.n == 0)
            err_set(e, ERR_FAIL, "%s: no tokens%s%s", from->path, from->split ? " in the part " : "",
                    from->split ? from->split : "");
        ok = !e->code;
    } else if (ok) {
        ok = tokens_load(&s->tok, from, o->data, tk, o->vocab, a, e);
    }
    arena_free(&scratch);
    return ok;
}

static bool load_sources(Loader *l, const LoaderOptions *o, const Tokenizer *tk, Arena *a, Err *e)
{
    l->source = arena_alloc(a, (size_t)o->n_source * sizeof *l->source, e);
    char *hashes = arena_alloc(a, (size_t)o->n_source * 32 + 1, e);
    if (!hashes) return false;
    for (int j = 0; j < o->n_source; j++) {
        Source *s = &l->source[j];
        char hex[33];
        if (!load_source(l, s, &o->source[j], o, tk, a, e)) return false;
        if (!make_samples(l, s, o->data, a, e)) return false;
        s->first = l->samples;
        s->weight = o->source[j].weight;
        const uint64_t mix[2] = {o->seed, (uint64_t)j};
        s->seed = hash64(mix, sizeof mix);
        l->samples += s->samples;
        l->tokens += (int64_t)s->tok.n;
        if (!content_hash(hex, s, e)) return false;
        memcpy(hashes + 32 * j, hex, 32);
        if (s->samples == 0)
            log_warn("%s: %zu tokens are too few for one sample of %ld: not used", s->tok.path, s->tok.n,
                     l->seq_len);
    }
    hash128_hex(l->hash, hashes, (size_t)o->n_source * 32);
    report(l);
    return true;
}

static bool open_all(Loader *l, const LoaderOptions *o, const Tokenizer *tk, Arena *a, Err *e)
{
    l->n_source = o->n_source;
    l->seq_len = o->seq_len;
    l->window_bos = o->data->window_bos;
    l->packed = o->data->packing && strcmp(o->data->packing, "concat") != 0;
    l->pad = l->packed && strcmp(o->data->packing, "pad") == 0;
    l->restart = o->data->reset_position_ids || l->pad;
    l->bos = tk ? tokenizer_bos(tk) : -1;
    l->shuffle = o->shuffle;
    l->seed = o->seed;
    if (o->n_source < 1) return err_set(e, ERR_USAGE, "data: no sources");
    if (o->seq_len < 1) return err_set(e, ERR_USAGE, "data.seq_len: %ld, must be at least 1", o->seq_len);
    if (l->window_bos && l->bos < 0)
        return err_set(e, ERR_USAGE, "data.window_bos: needs a tokenizer with a BOS");
    if (l->window_bos && l->packed)
        return err_set(e, ERR_USAGE, "data.window_bos: cuts a stream, so it needs packing: concat");
    if (!load_sources(l, o, tk, a, e)) return false;
    if (l->samples == 0)
        return err_set(e, ERR_FAIL, "%s: %lld tokens are too few for one sample of data.seq_len %ld",
                       l->source[0].tok.path, (long long)l->tokens, l->seq_len);
    if (o->data->max_samples > 0 && l->samples > o->data->max_samples) l->samples = o->data->max_samples;
    return interleave(l, a, e);
}

Loader *loader_open(const LoaderOptions *o, const Tokenizer *tk, Arena *a, Err *e)
{
    Loader *l = arena_alloc(a, sizeof *l, e);
    if (l && open_all(l, o, tk, a, e)) return l;
    loader_close(l);
    return NULL;
}

void loader_close(Loader *l)
{
    for (int j = 0; l && l->source && j < l->n_source; j++) {
        token_map_close(l->source[j].map);
        l->source[j].map = NULL;
    }
}

int64_t loader_samples(const Loader *l) { return l->samples; }
int64_t loader_tokens(const Loader *l) { return l->tokens; }
long loader_seq_len(const Loader *l) { return l->seq_len; }
bool loader_segments(const Loader *l) { return l->packed && !l->pad; }
LoaderReport loader_report(const Loader *l) { return l->report; }
const char *loader_hash(const Loader *l) { return l->hash; }

static int64_t permute(int64_t i, int64_t n, uint64_t seed, int64_t epoch)
{
    return (int64_t)rng_permute((uint64_t)i, (uint64_t)n, seed, (uint64_t)epoch);
}

/* Source and sample within it of a sample number. */
static const Source *locate(const Loader *l, int64_t sample, int64_t *i)
{
    const int64_t epoch = sample / l->samples, k = sample % l->samples;
    if (l->draw) {
        const Draw *d = &l->draw[k];
        const Source *s = &l->source[d->source];
        const int64_t nth = epoch * s->draws + d->nth, round = nth / s->samples, within = nth % s->samples;
        *i = l->shuffle ? permute(within, s->samples, s->seed, round) : within;
        return s;
    }
    const int64_t g = l->shuffle ? permute(k, l->samples, l->seed, epoch) : k;
    int j = l->n_source - 1;
    while (l->source[j].first > g) j--;
    *i = g - l->source[j].first;
    return &l->source[j];
}

/* Tokens [at, at + n) of a source. */
static bool copy_ids(const Source *s, size_t at, size_t n, int32_t *out, Err *e)
{
    if (s->map) return token_map_get(s->map, at, n, out, e);
    memcpy(out, s->tok.id + at, n * sizeof *out);
    return true;
}

/* Row i of a source. */
static long fill_row(const Loader *l, const Source *s, int64_t i, int32_t *ids, int32_t *targets,
                     int32_t *pos, int32_t *seg, Err *e)
{
    const long T = l->seq_len;
    const size_t row = (size_t)T * sizeof *ids;
    if (l->packed) return packing_fill(&s->rows, &s->tok, T, i, l->restart, ids, targets, pos, seg);
    const size_t at = (size_t)i * (size_t)T;
    long counted = T;
    if (l->window_bos) ids[0] = l->bos;
    if (!copy_ids(s, at, (size_t)T - l->window_bos, ids + l->window_bos, e) ||
        !copy_ids(s, at + !l->window_bos, (size_t)T, targets, e)) {
        memset(ids, 0, row); /* a model may still see this row */
        memset(targets, 0, row);
        return 0;
    }
    for (long p = 0; p < T && s->tok.target; p++)
        if (!s->tok.target[at + (size_t)p + !l->window_bos]) {
            targets[p] = -100;
            counted--;
        }
    for (long p = 0; p < T && pos; p++) pos[p] = (int32_t)p;
    if (seg) memset(seg, 0, row);
    return counted;
}

long loader_fill(const Loader *l, int64_t sample, int32_t *ids, int32_t *targets, int32_t *pos, int32_t *seg,
                 Err *e)
{
    int64_t i;
    const Source *s = locate(l, sample, &i);
    return fill_row(l, s, i, ids, targets, pos, seg, e);
}

int64_t loader_sequences(const Loader *l)
{
    const Source *last = &l->source[l->n_source - 1];
    return l->draw ? last->first + last->samples : l->samples;
}

int64_t loader_sequence(const Loader *l, int64_t sample)
{
    int64_t i;
    const Source *s = locate(l, sample, &i);
    return s->first + i;
}

long loader_fill_sequence(const Loader *l, int64_t sequence, int32_t *ids, int32_t *targets, int32_t *pos,
                          int32_t *seg, Err *e)
{
    int j = l->n_source - 1;
    while (l->source[j].first > sequence) j--;
    return fill_row(l, &l->source[j], sequence - l->source[j].first, ids, targets, pos, seg, e);
}

bool loader_input_hash(const Loader *l, char hex[33], Err *e)
{
    Arena tmp = {.name = "data hash"};
    const size_t T = (size_t)l->seq_len, n = (size_t)loader_sequences(l);
    uint64_t *row = arena_alloc(&tmp, n * sizeof *row, e);
    int32_t *v = arena_alloc(&tmp, 4 * T * sizeof *v, e); /* ids, positions, segments; targets */
    for (size_t i = 0; row && v && !e->code && i < n; i++) {
        loader_fill_sequence(l, (int64_t)i, v, v + 3 * T, v + T, v + 2 * T, e);
        if (!loader_segments(l)) memset(v + 2 * T, 0, T * sizeof *v);
        row[i] = hash64(v, 3 * T * sizeof *v);
    }
    if (!e->code) hash128_hex(hex, row, n * sizeof *row);
    arena_free(&tmp);
    return !e->code;
}
