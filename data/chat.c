/* data/chat.c: which chat template a model has, by the hash of its Jinja text, and a conversation as the
 * parts that the template makes of it. The templates are data: chat_templates.def. */
#include "data/chat_impl.h"
#include "data/utf8_impl.h"
#include <jansson.h>
#include <string.h>

#define B CHAT_BOS
#define E CHAT_EOS
#define BOS CHAT_PUT_BOS
#define TRIM CHAT_TRIM
#define ALTERNATE CHAT_ALTERNATE
#define SYSTEM_IN_USER CHAT_SYSTEM_IN_USER
#define NO_SYSTEM CHAT_NO_SYSTEM
#define TRIM_WHOLE CHAT_TRIM_WHOLE
#define LEAD CHAT_LEAD
#define CHAT_SPECIAL(s)
#define CHAT_TEMPLATE(name, hash, models)
#define CHAT_STYLE(name, flags, def, s0, s1, u0, u1, a0, end, tail)                                          \
    {name, flags, def, {s0, s1}, {u0, u1}, a0, end, tail},
static const ChatStyle styles[] = {
#include "data/chat_templates.def"
};
#undef CHAT_STYLE
#undef CHAT_TEMPLATE
#define CHAT_STYLE(...)
#define CHAT_TEMPLATE(name, hash, models) {name, hash},
static const char *const templates[][2] = {
#include "data/chat_templates.def"
};
#undef CHAT_TEMPLATE
#undef CHAT_SPECIAL
#define CHAT_TEMPLATE(name, hash, models)
#define CHAT_SPECIAL(s) s,
static const char *const specials[] = {
#include "data/chat_templates.def"
};
#undef B
#undef E
enum { N_TEMPLATE = (int)(sizeof templates / sizeof *templates) };

/* ---- the hash of a template --------------------------------------------------------------------------- */
static bool white(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

/* Inside a tag white space outside of strings has no effect; between tags it is text, but where a tag's `-`
 * takes it away and around the whole. A newline in a string and its escape are the same. */
bool chat_template_hash(char out[33], const char *text, size_t n, Arena *a, Err *e)
{
    while (n > 0 && white(text[n - 1])) n--;
    while (n > 0 && white(*text)) text++, n--;
    char *s = arena_alloc(a, n + 1, e), quote = 0;
    if (!s) return false;
    size_t m = 0;
    bool tag = false, eat = false;
    for (size_t i = 0; i < n; i++) {
        const char c = text[i], next = i + 1 < n ? text[i + 1] : 0;
        if (!tag && c == '{' && (next == '{' || next == '%' || next == '#')) {
            if (i + 2 < n && text[i + 2] == '-')
                while (m > 0 && white(s[m - 1])) m--;
            tag = true;
            s[m++] = c;
            s[m++] = next;
            i++;
            continue;
        }
        if (!tag && (c == '\r' || (eat && white(c)))) continue;
        eat = false;
        if (tag && quote) {
            if (c == '\\' && next == 'n') {
                s[m++] = '\n';
                i++;
                continue;
            }
            if (c == '\\' && next) s[m++] = c, i++;
            else if (c == quote) quote = 0;
            s[m++] = text[i];
            continue;
        }
        if (tag && white(c)) continue;
        if (tag && (c == '"' || c == '\'')) quote = c;
        if (tag && (c == '}' || c == '%' || c == '#') && next == '}') {
            tag = false;
            eat = m > 0 && s[m - 1] == '-';
            s[m++] = c;
            i++;
            s[m++] = '}';
            continue;
        }
        s[m++] = c;
    }
    hash128_hex(out, s, m);
    return true;
}

/* ---- finding the template ----------------------------------------------------------------------------- */
static const ChatStyle *by_name(const char *name)
{
    for (size_t i = 0; i < sizeof styles / sizeof *styles; i++)
        if (strcmp(styles[i].name, name) == 0) return &styles[i];
    return NULL;
}

static const char *style_names(Arena *a, Err *e)
{
    const char *all = "";
    for (size_t i = 0; i < sizeof styles / sizeof *styles && all; i++)
        all = arena_printf(a, e, "%s%s%s", all, i ? ", " : "", styles[i].name);
    return all ? all : "";
}

static const ChatStyle *by_text(const char *text, const char *where, Arena *a, Err *e)
{
    char hash[33];
    if (!chat_template_hash(hash, text, strlen(text), a, e)) return NULL;
    for (int i = 0; i < N_TEMPLATE; i++)
        if (strcmp(templates[i][1], hash) == 0) return by_name(templates[i][0]);
    err_set(
        e, ERR_USAGE,
        "the chat template of %s (hash %s) is not among those known: set data.chat_template to the one it "
        "stands for (%s), or to `none` with prompt_field and response_field for the two texts as they are",
        where, hash, style_names(a, e));
    return NULL;
}

/* The template in a parsed tokenizer_config.json: a text, or a list with the name `default`. */
static const char *in_config(const json_t *o)
{
    const json_t *t = json_object_get(o, "chat_template"), *v;
    size_t i;
    json_array_foreach(t, i, v)
    {
        const char *name = json_string_value(json_object_get(v, "name"));
        if (name && strcmp(name, "default") == 0) return json_string_value(json_object_get(v, "template"));
    }
    return json_string_value(t);
}

/* Beside the tokenizer: chat_template.jinja, else tokenizer_config.json's. NULL: none. */
static const char *beside(const char *path, Arena *a, Err *e)
{
    const char *slash = strrchr(path, '/');
    const char *dir = slash ? arena_strndup(a, path, (size_t)(slash - path), e) : ".";
    const char *jinja = dir ? path_join(a, dir, "chat_template.jinja", e) : NULL;
    const char *config = dir ? path_join(a, dir, "tokenizer_config.json", e) : NULL;
    size_t n;
    if (!config || !jinja) return NULL;
    if (file_exists(jinja)) return file_read(a, jinja, &n, e);
    if (!file_exists(config)) return NULL;
    const char *text = file_read(a, config, &n, e);
    json_error_t je;
    json_t *o = text ? json_loadb(text, n, 0, &je) : NULL;
    if (text && !o) err_set(e, ERR_CORRUPT, "%s:%d: no valid JSON: %s", config, je.line, je.text);
    const char *found = in_config(o), *copy = found ? arena_strdup(a, found, e) : NULL;
    json_decref(o);
    return copy;
}

static const ChatStyle *choose(const char *how, const Tokenizer *tk, Arena *a, Err *e)
{
    size_t n;
    if (how && strcmp(how, "none") == 0) return NULL;
    if (how && strcmp(how, "auto") != 0) {
        const ChatStyle *s = by_name(how);
        if (s) return s;
        if (file_exists(how)) {
            const char *text = file_read(a, how, &n, e);
            return text ? by_text(text, how, a, e) : NULL;
        }
        err_set(e, ERR_USAGE, "data.chat_template: `%s` is neither a file nor one of auto, none, %s", how,
                style_names(a, e));
        return NULL;
    }
    const char *text = tokenizer_chat_template(tk);
    if (!text) text = beside(tokenizer_path(tk), a, e);
    return text ? by_text(text, tokenizer_path(tk), a, e) : NULL;
}

static bool uses(const ChatStyle *s, const char *part)
{
    const char *const all[] = {s->system[0], s->system[1], s->user[0], s->user[1],
                               s->assistant, s->end,       s->tail};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strstr(all[i], part)) return true;
    return false;
}

Chat *chat_open(const char *how, const Tokenizer *tk, Arena *a, Err *e)
{
    const ChatStyle *s = choose(how, tk, a, e);
    Chat *c = s ? arena_alloc(a, sizeof *c, e) : NULL;
    if (!c) return NULL;
    *c = (Chat){.style = s, .tk = tk};
    if (uses(s, CHAT_EOS) && tokenizer_eos(tk) < 0) {
        err_set(e, ERR_USAGE, "chat template %s ends a turn with the end token, and %s has none", s->name,
                tokenizer_path(tk));
        return NULL;
    }
    /* A token of the vocabulary is one id; what is more stands as text, as it would for transformers. */
    for (size_t i = 0; i < sizeof specials / sizeof *specials; i++) {
        TokenBuf ids = {0};
        if (!tokenizer_encode(tk, specials[i], strlen(specials[i]), false, &ids, a, e)) return NULL;
        if (ids.n != 1) continue;
        c->special[c->n_special] = specials[i];
        c->special_id[c->n_special++] = ids.id[0];
    }
    if (strcmp(s->end, "<|im_end|>") == 0 || strcmp(s->end, "<|eot_id|>") == 0 ||
        strcmp(s->end, "<end_of_turn>") == 0) {
        bool has = false;
        for (int i = 0; i < c->n_special; i++) has = has || strcmp(c->special[i], s->end) == 0;
        if (!has)
            log_warn("%s has no token %s: the ends of chat template %s are plain text to it",
                     tokenizer_path(tk), s->end, s->name);
    }
    return c;
}

const char *chat_name(const Chat *c) { return c->style->name; }

/* ---- a conversation as parts -------------------------------------------------------------------------- */
typedef struct Parts {
    ChatPart *v;
    size_t n;
    unsigned flags;
    Arena *a;
    Err *e;
} Parts;

static void literal(Parts *p, const char *s, bool trained)
{
    if (*s) p->v[p->n++] = (ChatPart){s, strlen(s), true, trained};
}

static void text(Parts *p, const char *s, size_t n, bool trained)
{
    if (p->flags & CHAT_TRIM) utf8_strip(&s, &n);
    if (n > 0) p->v[p->n++] = (ChatPart){s, n, false, trained};
}

/* The first user's content with the system text in it. */
static bool user_with_system(Parts *p, const ChatStyle *st, const Message *sys, const Message *user)
{
    const size_t n0 = strlen(st->system[0]), n1 = strlen(st->system[1]);
    const char *body = user->text;
    size_t n = user->bytes;
    if ((p->flags & CHAT_TRIM) && !(p->flags & CHAT_TRIM_WHOLE)) utf8_strip(&body, &n);
    char *s = arena_alloc(p->a, n0 + sys->bytes + n1 + n + 1, p->e);
    if (!s) return false;
    memcpy(s, st->system[0], n0);
    memcpy(s + n0, sys->text, sys->bytes);
    memcpy(s + n0 + sys->bytes, st->system[1], n1);
    memcpy(s + n0 + sys->bytes + n1, body, n);
    const char *all = s;
    size_t total = n0 + sys->bytes + n1 + n;
    if (p->flags & CHAT_TRIM_WHOLE) utf8_strip(&all, &total);
    if (total > 0) p->v[p->n++] = (ChatPart){all, total, false, false};
    return true;
}

static bool one_message(Parts *p, const ChatStyle *st, const Message *m, const Message *sys, bool open)
{
    if (strcmp(m->role, "assistant") == 0) {
        literal(p, st->assistant, (st->flags & CHAT_LEAD) != 0);
        text(p, m->text, m->bytes, true);
        literal(p, st->end, true);
        literal(p, st->tail, false);
        return true;
    }
    const char *const *w = strcmp(m->role, "system") == 0 ? st->system : st->user;
    literal(p, w[0], false);
    if (sys && open) {
        if (!user_with_system(p, st, sys, m)) return false;
    } else {
        text(p, m->text, m->bytes, false);
    }
    literal(p, w[1], false);
    return true;
}

static bool in_turn(const ChatStyle *st, const Message *m, size_t i, Err *e)
{
    const bool user = strcmp(m->role, "user") == 0, system = strcmp(m->role, "system") == 0;
    if (!(st->flags & CHAT_ALTERNATE)) return true;
    if (!system && user == (i % 2 == 0)) return true;
    return err_set(
        e, ERR_CORRUPT,
        "chat template %s: user and assistant must take turns, the user first; here is %s where %s "
        "should be",
        st->name, m->role, i % 2 ? "assistant" : "user");
}

bool chat_parts(const ChatStyle *st, const Message *m, size_t n, ChatPart **part, size_t *n_part, Arena *a,
                Err *e)
{
    Parts p = {.v = arena_alloc(a, (4 * n + 8) * sizeof *p.v, e), .flags = st->flags, .a = a, .e = e};
    if (!p.v) return false;
    const bool system = n > 0 && strcmp(m[0].role, "system") == 0;
    const Message *inside = NULL;
    const Message def = {"system", st->default_system, st->default_system ? strlen(st->default_system) : 0};
    if (st->flags & CHAT_PUT_BOS) literal(&p, CHAT_BOS, false);
    if (system && (st->flags & CHAT_NO_SYSTEM))
        return err_set(e, ERR_CORRUPT, "chat template %s has no system turn", st->name);
    if (system && (st->flags & CHAT_SYSTEM_IN_USER)) {
        inside = m++;
        n--;
        if (n == 0) return err_set(e, ERR_CORRUPT, "chat template %s: a system text alone", st->name);
    } else if (!system && st->default_system && !one_message(&p, st, &def, NULL, false)) {
        return false;
    }
    for (size_t i = 0; i < n; i++)
        if (!in_turn(st, &m[i], i, e) || !one_message(&p, st, &m[i], inside, i == 0)) return false;
    *part = p.v;
    *n_part = p.n;
    return true;
}

char *chat_render(const Chat *c, const Message *m, size_t n, const char *bos, const char *eos, Arena *a,
                  Err *e)
{
    ChatPart *part;
    size_t n_part, total = 0, at = 0;
    if (!chat_parts(c->style, m, n, &part, &n_part, a, e)) return NULL;
    for (size_t i = 0; i < n_part; i++)
        total += part[i].n * (part[i].literal ? 1 + strlen(bos) + strlen(eos) : 1);
    char *s = arena_alloc(a, total + 1, e);
    for (size_t i = 0; s && i < n_part; i++)
        for (size_t k = 0; k < part[i].n; k++) {
            const char b = part[i].s[k];
            const char *word = !part[i].literal   ? NULL
                               : b == CHAT_BOS[0] ? bos
                               : b == CHAT_EOS[0] ? eos
                                                  : NULL;
            if (word) memcpy(s + at, word, strlen(word));
            else s[at] = b;
            at += word ? strlen(word) : 1;
        }
    return s;
}
