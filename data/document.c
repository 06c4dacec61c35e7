/* data/document.c: what a record of a source says, as tokens.
 *
 *   text           the document's text                                  all trained
 *   field          the string under data.train[].field                  all trained
 *   prompt         prompt_field and response_field                      the response and its end are trained
 *   alpaca         instruction, input, output
 *   chat           messages [{role, content}] or conversations [{from, value}]: the assistant's turns
 *
 * With a chat template the last three are conversations of it (chat.c). Without one, prompt and response
 * stand as they are, an Alpaca record in Alpaca's own words, each behind BOS and before EOS where the
 * tokenizer has them, encoded apart; a chat needs a template. A field name may go down: `instances.0.output`.
 */
#include "data/source_impl.h"
#include <jansson.h>
#include <string.h>

/* ---- fields ------------------------------------------------------------------------------------------- */
/* The value under a name, or under its parts between dots. */
static const json_t *find(const json_t *o, const char *name)
{
    const json_t *v = json_object_get(o, name);
    while (!v && o && *name) {
        const size_t n = strcspn(name, ".");
        if (json_is_array(o)) {
            size_t index = 0;
            for (size_t i = 0; i < n; i++) {
                if (name[i] < '0' || name[i] > '9' || index > 1000000) return NULL;
                index = 10 * index + (size_t)(name[i] - '0');
            }
            o = json_array_get(o, index);
        } else {
            o = json_object_getn(o, name, n);
        }
        name += n + (name[n] == '.');
        if (!*name) v = o;
    }
    return v;
}

static const char *kind_of(const json_t *v)
{
    static const char *const names[] = {"an object", "an array", "a string", "a number",
                                        "a number",  "true",     "false",    "null"};
    return v ? names[json_typeof(v)] : "missing";
}

static bool at_field(const Rule *r, const Piece *p, Err *e, const char *field, const char *what)
{
    return err_set(e, ERR_CORRUPT, "%s:%lld: field `%s`: %s", r->paths->v[p->file], (long long)p->line, field,
                   what);
}

static bool get_text(const Rule *r, const Piece *p, const json_t *o, const char *field, Message *m, Err *e)
{
    const json_t *v = find(o, field);
    if (!json_is_string(v))
        return err_set(e, ERR_CORRUPT, "%s:%lld: field `%s` is %s, must be a string", r->paths->v[p->file],
                       (long long)p->line, field, kind_of(v));
    m->text = json_string_value(v);
    m->bytes = json_string_length(v);
    return true;
}

/* ---- plain texts -------------------------------------------------------------------------------------- */
static bool put_text(Stream *out, const Rule *r, const Message *m, bool first, bool last, Arena *a, Err *e)
{
    const int32_t eos = tokenizer_eos(r->tk);
    TokenBuf ids = {0};
    if (!tokenizer_encode(r->tk, m->text, m->bytes, first && r->before, &ids, a, e)) return false;
    if (!stream_put(out, ids.id, NULL, ids.n, a, e)) return false;
    return !last || !r->after || eos < 0 || stream_put(out, &eos, NULL, 1, a, e);
}

static bool put_marked(Stream *out, const Rule *r, const Message *m, bool bos, uint8_t trained, Arena *a,
                       Err *e)
{
    TokenBuf ids = {0};
    if (!tokenizer_encode(r->tk, m->text, m->bytes, bos, &ids, a, e)) return false;
    uint8_t *mark = arena_alloc(a, ids.n + 1, e);
    if (!mark) return false;
    memset(mark, trained, ids.n);
    return stream_put(out, ids.id, mark, ids.n, a, e);
}

static bool put_pair(Stream *out, const Rule *r, const Message *prompt, const Message *response, Arena *a,
                     Err *e)
{
    const int32_t eos = tokenizer_eos(r->tk);
    if (r->chat) {
        const Message m[2] = {{"user", prompt->text, prompt->bytes},
                              {"assistant", response->text, response->bytes}};
        return chat_encode(r->chat, m, 2, r->mask, out, a, e);
    }
    return put_marked(out, r, prompt, tokenizer_document_bos(r->tk, true), !r->mask, a, e) &&
           put_marked(out, r, response, false, 1, a, e) &&
           (eos < 0 || stream_put(out, &eos, (const uint8_t[]){1}, 1, a, e));
}

/* ---- Alpaca ------------------------------------------------------------------------------------------- */
#define ALPACA_WITH                                                                                          \
    "Below is an instruction that describes a task, paired with an input that provides further context. "    \
    "Write a response that appropriately completes the request.\n\n"
#define ALPACA_ALONE                                                                                         \
    "Below is an instruction that describes a task. Write a response that appropriately completes the "      \
    "request.\n\n"

static bool put_alpaca(Stream *out, const Rule *r, const Piece *p, const json_t *o, size_t *text, Arena *a,
                       Err *e)
{
    Message ask = {0}, input = {0}, answer = {0}, prompt = {0};
    if (!get_text(r, p, o, "instruction", &ask, e) || !get_text(r, p, o, "output", &answer, e)) return false;
    if (json_object_get(o, "input") && !get_text(r, p, o, "input", &input, e)) return false;
    const char *const plain[] = {ALPACA_ALONE "### Instruction:\n", "", "\n\n### Response:\n"};
    const char *const both[] = {ALPACA_WITH "### Instruction:\n", "\n\n### Input:\n", "\n\n### Response:\n"};
    const char *const chat[] = {"", input.bytes ? "\n" : "", ""};
    const char *const *w = r->chat ? chat : input.bytes ? both : plain;
    const size_t n0 = strlen(w[0]), n1 = strlen(w[1]), n2 = strlen(w[2]);
    char *s = arena_alloc(a, n0 + ask.bytes + n1 + input.bytes + n2 + 1, e);
    if (!s) return false;
    prompt.text = s;
    prompt.bytes = n0 + ask.bytes + n1 + input.bytes + n2;
    memcpy(s, w[0], n0);
    memcpy(s += n0, ask.text, ask.bytes);
    memcpy(s += ask.bytes, w[1], n1);
    if (input.bytes) memcpy(s + n1, input.text, input.bytes);
    memcpy(s + n1 + input.bytes, w[2], n2);
    *text = ask.bytes + input.bytes + answer.bytes;
    if (answer.bytes == 0) return at_field(r, p, e, "output", "is empty: nothing to learn");
    return put_pair(out, r, &prompt, &answer, a, e);
}

/* ---- chat --------------------------------------------------------------------------------------------- */
static const char *role_of(const char *s)
{
    static const char *const same[][2] = {{"human", "user"},    {"gpt", "assistant"},
                                          {"user", "user"},     {"model", "assistant"},
                                          {"system", "system"}, {"assistant", "assistant"}};
    for (size_t i = 0; s && i < sizeof same / sizeof *same; i++)
        if (strcmp(s, same[i][0]) == 0) return same[i][1];
    return NULL;
}

static bool read_message(const Rule *r, const Piece *p, const json_t *o, size_t i, Message *m, Err *e)
{
    const char *role = json_string_value(json_object_get(o, "role")), *key = "content";
    if (!role) role = json_string_value(json_object_get(o, "from"));
    const json_t *v = json_object_get(o, "content");
    if (!v) v = json_object_get(o, key = "value");
    *m = (Message){.role = role_of(role)};
    if (!json_is_string(v)) {
        return err_set(e, ERR_CORRUPT, "%s:%lld: field `%s.%zu.%s` is %s, must be a string",
                       r->paths->v[p->file], (long long)p->line, r->messages, i, v ? key : "content",
                       kind_of(v));
    }
    m->text = json_string_value(v);
    m->bytes = json_string_length(v);
    if (m->role) return true;
    return err_set(
        e, ERR_CORRUPT,
        "%s:%lld: field `%s.%zu.role` is `%s`; system, user and assistant (human and gpt) are known",
        r->paths->v[p->file], (long long)p->line, r->messages, i, role ? role : "missing");
}

static bool put_chat(Stream *out, const Rule *r, const Piece *p, const json_t *o, size_t *text, Arena *a,
                     Err *e)
{
    const json_t *list = find(o, r->messages);
    const size_t n = json_array_size(list);
    bool answers = false;
    if (!json_is_array(list))
        return err_set(e, ERR_CORRUPT, "%s:%lld: field `%s` is %s, must be an array of messages",
                       r->paths->v[p->file], (long long)p->line, r->messages, kind_of(list));
    Message *m = arena_alloc(a, (n + 1) * sizeof *m, e);
    for (size_t i = 0; m && i < n; i++) {
        if (!read_message(r, p, json_array_get(list, i), i, &m[i], e)) return false;
        answers = answers || strcmp(m[i].role, "assistant") == 0;
        *text += m[i].bytes;
    }
    if (!m) return false;
    if (n == 0) return true;
    if (!answers) return at_field(r, p, e, r->messages, "has no assistant turn: nothing to learn");
    return chat_encode(r->chat, m, n, r->mask, out, a, e) ||
           err_prefix(e, "%s:%lld: field `%s`", r->paths->v[p->file], (long long)p->line, r->messages);
}

/* ---- the rule ----------------------------------------------------------------------------------------- */
static json_t *parse(const Paths *paths, const Piece *p, Err *e)
{
    json_error_t je;
    json_t *o = json_loadb(p->s, p->n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &je);
    const long long line = (long long)p->line + (je.line > 1 ? je.line - 1 : 0);
    if (!o) {
        err_set(e, ERR_CORRUPT, "%s:%lld: no valid JSON: %s (column %d)", paths->v[p->file], line, je.text,
                je.column);
    } else if (!json_is_object(o)) {
        err_set(e, ERR_CORRUPT, "%s:%lld: a record is %s, must be an object", paths->v[p->file],
                (long long)p->line, kind_of(o));
        json_decref(o);
        o = NULL;
    }
    return o;
}

static bool encode_record(const Rule *r, const Piece *p, const json_t *o, Stream *out, size_t *text, Arena *a,
                          Err *e)
{
    Message x = {0}, y = {0};
    switch (r->shape) {
    case DOC_CHAT: return put_chat(out, r, p, o, text, a, e);
    case DOC_ALPACA: return put_alpaca(out, r, p, o, text, a, e);
    case DOC_PAIR:
        if (!get_text(r, p, o, r->prompt, &x, e) || !get_text(r, p, o, r->response, &y, e)) return false;
        *text = x.bytes + y.bytes;
        if (*text == 0) return true;
        if (y.bytes == 0) return at_field(r, p, e, r->response, "is empty: nothing to learn");
        return put_pair(out, r, &x, &y, a, e);
    default:
        if (!get_text(r, p, o, r->field, &x, e)) return false;
        *text = x.bytes;
        return x.bytes == 0 || put_text(out, r, &x, true, true, a, e);
    }
}

bool rule_encode(const Rule *r, const Piece *p, Stream *out, size_t *text, Arena *a, Err *e)
{
    if (r->shape == DOC_TEXT) {
        *text = p->n;
        return put_text(out, r, &(Message){NULL, p->s, p->n}, p->first, p->last, a, e);
    }
    json_t *o = parse(r->paths, p, e);
    const bool ok = o && encode_record(r, p, o, out, text, a, e);
    json_decref(o);
    return ok;
}

bool rule_masks(const Rule *r) { return r->shape >= DOC_PAIR; }

static const char *keys_of(const json_t *o, Arena *a, Err *e)
{
    const char *key, *all = "", *glue = "";
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)o, key, v)
    {
        all = arena_printf(a, e, "%s%s%.40s", all, glue, key);
        glue = ", ";
        if (!all) return "";
    }
    return all;
}

/* By the keys of the first record, where the source names none. */
static bool guess(Rule *r, const json_t *o, const Piece *p, Arena *a, Err *e)
{
    static const char *const chats[] = {"messages", "conversations"};
    if (json_is_string(find(o, r->field))) return true;
    for (int i = 0; i < 2; i++)
        if (json_is_array(json_object_get(o, chats[i]))) {
            r->messages = chats[i];
            r->shape = DOC_CHAT;
            return true;
        }
    r->shape = DOC_ALPACA;
    if (json_is_string(json_object_get(o, "instruction")) && json_is_string(json_object_get(o, "output")))
        return true;
    r->shape = DOC_PAIR;
    r->prompt = "prompt";
    r->response = json_object_get(o, "response") ? "response" : "completion";
    if (json_is_string(json_object_get(o, "prompt")) && json_is_string(json_object_get(o, r->response)))
        return true;
    return err_set(e, ERR_USAGE,
                   "%s:%lld: no field `%s`, and neither messages nor instruction and output; its fields are "
                   "%s: name one as `field`, two as `prompt_field` and `response_field`, or `messages_field`",
                   r->paths->v[p->file], (long long)p->line, r->field, keys_of(o, a, e));
}

/* The first record that can be read, for the guess. */
static bool look(Rule *r, const Reader *reader, bool skip, Arena *a, Err *e)
{
    Reader own = *reader;
    own.scratch = (Arena){.name = "first record"};
    own.at = (ReaderAt){0};
    own.lo = 0;
    own.hi = UINT64_MAX;
    Piece p;
    bool ok = true;
    while (reader_next(&own, &p, e)) {
        Err bad = {0};
        json_t *o = parse(r->paths, &p, skip ? &bad : e);
        if (!o && skip) continue;
        ok = o && guess(r, o, &p, a, e);
        json_decref(o);
        break;
    }
    arena_free(&own.scratch);
    return ok && !e->code;
}

bool rule_open(Rule *r, const Reader *reader, const SourceConfig *s, const DataConfig *d, Arena *a, Err *e)
{
    *r = (Rule){.shape = reader->kind == FILE_JSON ? DOC_FIELD : DOC_TEXT,
                .tk = reader->tk,
                .paths = &reader->paths,
                .field = s->field ? s->field : "text",
                .before = tokenizer_document_bos(reader->tk, strcmp(d->eot, "prepend") == 0),
                .after = strcmp(d->eot, "append") == 0,
                .mask = d->mask_prompt};
    if (r->shape == DOC_TEXT) return true;
    if (!s->prompt_field != !s->response_field)
        return err_set(e, ERR_USAGE, "%s: prompt_field and response_field go together", s->path);
    if (s->prompt_field) {
        *r = (Rule){DOC_PAIR,          r->tk, NULL,      r->paths, r->field, s->prompt_field,
                    s->response_field, NULL,  r->before, r->after, r->mask};
    } else if (s->messages_field) {
        r->shape = DOC_CHAT;
        r->messages = s->messages_field;
    } else if (!look(r, reader, strcmp(d->on_bad_line, "skip") == 0, a, e)) {
        return false;
    }
    if (r->shape == DOC_FIELD) return true;
    r->chat = chat_open(d->chat_template, r->tk, a, e);
    if (e->code) return err_prefix(e, "%s", s->path);
    if (r->shape == DOC_CHAT && !r->chat)
        return err_set(e, ERR_USAGE,
                       "%s: a chat (`%s`) needs a template and %s has none: set data.chat_template: chatml "
                       "(or another of docs/data.md), or name two of its fields as prompt_field and "
                       "response_field",
                       s->path, r->messages, tokenizer_path(r->tk));
    return true;
}
