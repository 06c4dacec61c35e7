/* model/init_teacher.c: a student that starts as a part of its teacher: chosen layers, and of wider tensors
 * the first rows, columns and heads (1910.01108 takes every other layer).
 *
 * Names stay, but for the layer's number. Heads: key heads first to first, and below each its first query
 * heads. A head that loses width keeps pairs of the half-split rotation together: dimension j of each half.
 */
#include "model/model.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((format_arg(1))) static const char *template_of(const char *fmt) { return fmt; }

static bool at_key(const ConfigDoc *doc, const char *key, Err *e)
{
    const ConfigNode *n = doc ? config_node(doc, key) : NULL;
    return n && n->file ? err_prefix(e, "%s:%d:%d: %s", n->file, n->line, n->col, key)
                        : err_prefix(e, "%s", key);
}

/* ---- which layers, which shape ------------------------------------------------------------------------- */
static long listed(const ConfigNode *n) { return n && n->kind == NODE_LIST ? n->n : 0; }

/* map (L): teacher layer of each of the student's. */
static bool layer_map(long *map, long L, long LT, const ConfigNode *n, Err *e)
{
    const char *word = !n || config_is_null(n) ? "even" : n->kind == NODE_SCALAR ? n->text : NULL;
    if (n && n->kind == NODE_LIST && n->n != L)
        return err_set(e, ERR_USAGE, "%d layers listed, the student has %ld", n->n, L);
    if (L > LT && !listed(n))
        return err_set(e, ERR_USAGE, "the student has %ld layers, its teacher %ld", L, LT);
    for (long i = 0; i < L; i++) {
        int64_t v = -1;
        if (n && n->kind == NODE_LIST && n->item[i]->kind == NODE_SCALAR) {
            if (!config_parse_int(n->item[i]->text, &v)) v = -1;
        } else if (word && !strcmp(word, "even")) v = i * LT / L;
        else if (word && !strcmp(word, "first_k")) v = i;
        else return err_set(e, ERR_USAGE, "expected a list of teacher layers, even, or first_k");
        if (v < 0 || v >= LT)
            return err_set(e, ERR_USAGE, "entry %ld is not a layer of the teacher: 0..%ld", i, LT - 1);
        map[i] = (long)v;
    }
    return true;
}

static void take(long *to, int64_t from, const ConfigDoc *doc, const char *key)
{
    if (doc && config_was_set(doc, key)) *to = (long)from;
}

/* The teacher's shape, but for what model.init says. */
static bool student_shape(ModelSpec *s, const ModelSpec *t, const ModelConfig *c, const ConfigDoc *doc,
                          Err *e)
{
    const ModelInitConfig *m = &c->init;
    *s = *t;
    if (listed(c->init_from_teacher.layers)) s->L = listed(c->init_from_teacher.layers);
    take(&s->L, m->num_hidden_layers, doc, "model.init.num_hidden_layers");
    take(&s->C, m->hidden_size, doc, "model.init.hidden_size");
    take(&s->H, m->num_attention_heads, doc, "model.init.num_attention_heads");
    s->Hkv = t->H == t->Hkv ? s->H : t->Hkv;
    take(&s->Hkv, m->num_key_value_heads, doc, "model.init.num_key_value_heads");
    if (s->family->name.qkv && s->H > 0) s->D = s->C / s->H;
    take(&s->D, m->head_dim, doc, "model.init.head_dim");
    take(&s->F, m->intermediate_size, doc, "model.init.intermediate_size");
    take(&s->max_pos, m->max_position_embeddings, doc, "model.init.max_position_embeddings");
    if (doc && config_was_set(doc, "model.init.tie_word_embeddings")) s->tied = m->tie_word_embeddings;
    if (doc && config_was_set(doc, "model.init.initializer_range")) s->init_std = m->initializer_range;
    bool arch = !doc || !config_was_set(doc, "model.init.arch") || !strcmp(m->arch, t->family->arch);
    long V = t->V;
    take(&V, m->vocab_size, doc, "model.init.vocab_size");
    if (!arch || V != t->V)
        return err_set(e, ERR_USAGE, "the teacher is a %s model of %ld tokens; its student is the same",
                       t->family->arch, t->V);
    const struct {
        const char *name;
        long student, teacher;
    } d[] = {{"num_hidden_layers", s->L, s->L},
             {"hidden_size", s->C, t->C},
             {"num_attention_heads", s->H, t->H},
             {"num_key_value_heads", s->Hkv, t->Hkv},
             {"head_dim", s->D, t->D},
             {"intermediate_size", s->F, t->F},
             {"query heads of a key head", s->Hkv > 0 ? s->H / s->Hkv : 0, t->H / t->Hkv}};
    bool same = !strcmp(c->init_from_teacher.width, "none");
    for (size_t i = 0; i < sizeof d / sizeof *d; i++) {
        if (d[i].student < 1 || d[i].student > d[i].teacher)
            return err_set(e, ERR_USAGE,
                           "%s is %ld for the student and %ld for its teacher: it can only shrink", d[i].name,
                           d[i].student, d[i].teacher);
        if (same && d[i].student != d[i].teacher)
            return err_set(e, ERR_USAGE,
                           "%s is %ld for the student and %ld for its teacher: set width: truncate",
                           d[i].name, d[i].student, d[i].teacher);
    }
    if (s->H % s->Hkv || (s->family->name.qkv && s->D * s->H != s->C) || s->D % 2)
        return err_set(e, ERR_USAGE, "%ld heads of %ld, %ld of keys, do not fit a width of %ld", s->H, s->D,
                       s->Hkv, s->C);
    return true;
}

bool spec_from_teacher(ModelSpec *s, const ModelSpec *t, const ModelConfig *c, const ConfigDoc *doc,
                       long **map, Arena *a, Err *e)
{
    if (!student_shape(s, t, c, doc, e)) return at_key(doc, "model.init_from_teacher", e);
    *map = arena_alloc(a, (size_t)s->L * sizeof **map, e);
    if (!*map) return false;
    if (!layer_map(*map, s->L, t->L, c->init_from_teacher.layers, e))
        return at_key(doc, "model.init_from_teacher.layers", e);
    unsigned char *sliding = arena_alloc(a, (size_t)s->L, e);
    for (long i = 0; sliding && i < s->L; i++) sliding[i] = spec_sliding(t, (*map)[i]);
    if (t->window > 0) s->layer_sliding = sliding;
    return sliding != NULL;
}

/* ---- values ------------------------------------------------------------------------------------------ */
typedef enum { AX_PLAIN, AX_DIM, AX_HEADS, AX_KV, AX_QKV } Axis;

static long dim_of(long j, const ModelSpec *s, const ModelSpec *t)
{
    const long half = s->D / 2;
    if (s->family->learned_pos) return j;
    return j < half ? j : t->D / 2 + j - half;
}

/* Where element i of the student's axis lies on the teacher's. */
static long source(Axis axis, long i, const ModelSpec *s, const ModelSpec *t)
{
    const long head = i / s->D, rs = s->H / s->Hkv, rt = t->H / t->Hkv;
    switch (axis) {
    case AX_DIM: return dim_of(i, s, t);
    case AX_KV: return head * t->D + dim_of(i % s->D, s, t);
    case AX_HEADS: return (head / rs * rt + head % rs) * t->D + dim_of(i % s->D, s, t);
    case AX_QKV: return i / s->C * t->C + source(AX_HEADS, i % s->C, s, t);
    default: return i;
    }
}

/* Is this parameter the one of the template, of whatever layer? */
static bool is_one(const char *name, const char *fmt, long layer)
{
    char want[NAME_LEN];
    if (!fmt) return false;
    int n = snprintf(want, sizeof want, template_of(fmt), (int)layer);
    return n > 0 && !strncmp(name, want, (size_t)n) && name[n] == '.' && !strchr(name + n + 1, '.');
}

static void axes(const ModelSpec *s, const char *name, long layer, Axis *row, Axis *col)
{
    const FamilyNames *n = &s->family->name;
    *row = *col = AX_PLAIN;
    if (is_one(name, n->q, layer)) *row = AX_HEADS;
    else if (is_one(name, n->k, layer) || is_one(name, n->v, layer)) *row = AX_KV;
    else if (is_one(name, n->qkv, layer)) *row = AX_QKV;
    else if (is_one(name, n->q_norm, layer) || is_one(name, n->k_norm, layer)) *row = AX_DIM;
    else if (is_one(name, n->o, layer) && strstr(name, ".weight")) *col = AX_HEADS;
}

/* The layer in a name, -1 outside of layers; where its digits begin and end. */
static long layer_of(const char *name, int *from, int *to)
{
    for (const char *p = strchr(name, '.'); p; p = strchr(p + 1, '.')) {
        char *end;
        long v = strtol(p + 1, &end, 10);
        if (end == p + 1 || *end != '.') continue;
        *from = (int)(p + 1 - name);
        *to = (int)(end - name);
        return v;
    }
    return -1;
}

static void copy_values(Param *to, const Param *from, const ModelSpec *s, const ModelSpec *t, long layer,
                        size_t real)
{
    Axis row, col;
    axes(s, to->name, layer, &row, &col);
    const long rows = to->w.dim[0], cols = to->w.ndim > 1 ? to->w.dim[1] : 1;
    const long wide = from->w.ndim > 1 ? from->w.dim[1] : 1;
    for (long i = 0; i < rows; i++) {
        const char *src = (const char *)from->w.data + (size_t)(source(row, i, s, t) * wide) * real;
        char *dst = (char *)to->w.data + (size_t)(i * cols) * real;
        for (long j = 0; j < cols; j++)
            memcpy(dst + (size_t)j * real, src + (size_t)source(col, j, s, t) * real, real);
    }
}

bool model_from_teacher(Model *m, const Model *teacher, const long *map, bool embeddings, Err *e)
{
    const FamilyNames *n = &m->spec.family->name;
    for (int i = 0; i < m->params.n && !e->code; i++) {
        Param *p = m->params.p[i];
        int from = 0, to = 0;
        long layer = layer_of(p->name, &from, &to);
        bool table = is_one(p->name, n->embed, 0) || is_one(p->name, n->pos, 0) ||
                     is_one(p->name, n->head, 0);
        if (p->aux || (table && !embeddings)) continue;
        const char *name = p->name;
        if (layer >= 0) name = arena_printf(m->run, e, "%.*s%ld%s", from, p->name, map[layer], p->name + to);
        const Param *q = name ? params_find(&teacher->params, name) : NULL;
        if (!q && layer < 0 && is_one(p->name, n->head, 0))
            q = params_find(&teacher->params, m->params.p[0]->name);
        if (!q || (is_one(p->name, n->pos, 0) && p->w.dim[0] > q->w.dim[0]))
            return err_set(e, ERR_USAGE,
                           "model.init_from_teacher: the teacher has no %s as large as the student's",
                           name ? name : p->name);
        copy_values(p, q, &m->spec, &teacher->spec, layer, m->params.k->real);
    }
    return !e->code;
}
