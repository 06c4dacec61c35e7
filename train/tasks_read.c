/* train/tasks_read.c: the examples of a task from its file.
 *
 *   hellaswag        text: six lines an example (context, label 0-3, four endings), as llama.cpp reads it; or
 *   the data set's
 *                    own jsonl (activity_label, ctx_a, ctx_b, endings, label), cleaned as
 *                    lm-evaluation-harness does
 *   lambada          jsonl with `text`: the last word (behind the last space) is what must follow
 *   multiple_choice  jsonl with question|context|query, choices|endings, answer|label|gold (index or letter)
 */
#include "train/tasks_impl.h"
#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

typedef struct Reader {
    const TaskOptions *o;
    Arena *a;
    Err *e;
    char *at;
    long line;
} Reader;

static bool wrong(Reader *r, const char *what)
{
    return err_set(r->e, ERR_CORRUPT, "%s:%ld: %s", r->o->path, r->line, what);
}

/* The next line without its end, NULL at the end of the file. */
static char *next_line(Reader *r)
{
    if (!*r->at) return NULL;
    char *line = r->at, *end = strchr(line, '\n');
    r->line++;
    r->at = end ? end + 1 : line + strlen(line);
    if (end) *end = 0;
    size_t n = strlen(line);
    if (n && line[n - 1] == '\r') line[n - 1] = 0;
    return line;
}

static const char *spaced(Reader *r, const char *text) { return arena_printf(r->a, r->e, " %s", text); }

static bool hellaswag_text(Reader *r, Example *x, char *context)
{
    char *label = next_line(r);
    if (!label || strlen(label) != 1 || *label < '0' || *label > '3')
        return wrong(r, "the line after a HellaSwag context is its label, 0 to 3");
    *x = (Example){.context = context, .n = 4, .label = *label - '0', .line = r->line - 1};
    for (int i = 0; i < 4; i++) {
        char *ending = next_line(r);
        if (!ending) return wrong(r, "the file ends inside an example (context, label, four endings)");
        x->choice[i] = spaced(r, ending);
    }
    return !r->e->code;
}

/* lm-evaluation-harness, hellaswag/utils.py: strip, " [title]" to ". ", bracketed notes out, double spaces
 * once. */
static char *cleaned(Reader *r, const char *text)
{
    while (isspace((unsigned char)*text)) text++;
    size_t n = strlen(text), k = 0;
    while (n && isspace((unsigned char)text[n - 1])) n--;
    char *s = arena_alloc(r->a, 2 * n + 1, r->e), *t = arena_alloc(r->a, 2 * n + 1, r->e);
    if (!s || !t) return NULL;
    for (size_t i = 0; i < n;) {
        if (n - i >= 8 && !memcmp(text + i, " [title]", 8)) {
            memcpy(s + k, ". ", 2);
            k += 2;
            i += 8;
        } else s[k++] = text[i++];
    }
    s[k] = 0;
    size_t m = 0;
    for (size_t i = 0; i < k;) {
        const char *close = s[i] == '[' ? memchr(s + i, ']', k - i) : NULL;
        const char *newline = close ? memchr(s + i, '\n', (size_t)(close - (s + i))) : NULL;
        if (close && !newline) i = (size_t)(close - s) + 1;
        else t[m++] = s[i++];
    }
    t[m] = 0;
    size_t j = 0;
    for (size_t i = 0; i < m; i++) {
        s[j++] = t[i];
        if (t[i] == ' ' && t[i + 1] == ' ') i++;
    }
    s[j] = 0;
    return s;
}

static const char *string_of(Reader *r, const json_t *o, const char *const *key)
{
    for (int i = 0; key[i]; i++)
        if (json_is_string(json_object_get(o, key[i])))
            return arena_strdup(r->a, json_string_value(json_object_get(o, key[i])), r->e);
    return NULL;
}

static bool endings_of(Reader *r, const json_t *list, Example *x, bool clean)
{
    x->n = (int)json_array_size(list);
    if (x->n < 2 || x->n > MAX_CHOICES) return wrong(r, "2 to 32 choices are needed, as a list of strings");
    for (int i = 0; i < x->n; i++) {
        const char *s = json_string_value(json_array_get(list, (size_t)i));
        if (!s) return wrong(r, "a choice is not a string");
        const char *text = clean ? cleaned(r, s) : s;
        x->choice[i] = text ? spaced(r, text) : NULL;
    }
    return !r->e->code;
}

/* An index, its digits, or a letter. */
static bool label_of(Reader *r, const json_t *v, Example *x)
{
    const char *s = json_string_value(v);
    x->label = -1;
    if (json_is_integer(v)) x->label = (int)json_integer_value(v);
    else if (s && s[0] && !s[1]) x->label = isdigit((unsigned char)*s) ? *s - '0' : *s - 'A';
    if (x->label < 0 || x->label >= x->n) return wrong(r, "the answer is no index (or letter) of a choice");
    return true;
}

static bool hellaswag_json(Reader *r, Example *x, const json_t *o)
{
    const char *activity = json_string_value(json_object_get(o, "activity_label")),
               *a = json_string_value(json_object_get(o, "ctx_a")),
               *b = json_string_value(json_object_get(o, "ctx_b"));
    if (!activity || !a || !b) return wrong(r, "a HellaSwag line needs activity_label, ctx_a and ctx_b");
    char *second = arena_strdup(r->a, b, r->e); /* Python's capitalize: first letter up, the others down */
    for (char *p = second; p && *p; p++)
        *p = (char)(p == second ? toupper((unsigned char)*p) : tolower((unsigned char)*p));
    char *joined = second ? arena_printf(r->a, r->e, "%s: %s %s", activity, a, second) : NULL;
    x->context = joined ? cleaned(r, joined) : NULL;
    return x->context && endings_of(r, json_object_get(o, "endings"), x, true) &&
           label_of(r, json_object_get(o, "label"), x);
}

static bool lambada(Reader *r, Example *x, const json_t *o)
{
    char *text = (char *)string_of(r, o, (const char *const[]){"text", NULL});
    char *space = text ? strrchr(text, ' ') : NULL;
    if (!space) return wrong(r, "a LAMBADA line needs `text` of at least two words");
    x->n = 1;
    x->choice[0] = arena_strdup(r->a, space, r->e);
    *space = 0;
    x->context = text;
    return !r->e->code;
}

static bool multiple_choice(Reader *r, Example *x, const json_t *o)
{
    static const char *const question[] = {"question", "context", "query", NULL};
    const json_t *list = json_object_get(o, "choices"), *answer = json_object_get(o, "answer");
    if (!list) list = json_object_get(o, "endings");
    if (!answer) answer = json_object_get(o, "label");
    if (!answer) answer = json_object_get(o, "gold");
    x->context = string_of(r, o, question);
    if (!x->context) return wrong(r, "a line needs question, context or query as a string");
    return endings_of(r, list, x, false) && label_of(r, answer, x);
}

static bool read_json(Reader *r, Example *x, const char *text)
{
    json_error_t je;
    json_t *o = json_loads(text, 0, &je);
    *x = (Example){.line = r->line};
    bool ok = json_is_object(o) ? !strcmp(r->o->name, "hellaswag") ? hellaswag_json(r, x, o)
                                  : !strcmp(r->o->name, "lambada") ? lambada(r, x, o)
                                                                   : multiple_choice(r, x, o)
                                : wrong(r, o ? "not a JSON object" : je.text);
    json_decref(o);
    return ok;
}

static bool settle_protocol(Examples *x, const TaskOptions *o, bool json, Err *e)
{
    static const char *const known[] = {"llm.c", "llama.cpp", "lm-eval"};
    bool ok = false;
    x->protocol = o->protocol ? o->protocol : json || strcmp(o->name, "hellaswag") ? "lm-eval" : "llm.c";
    for (int i = 0; i < 3; i++) ok = ok || !strcmp(known[i], x->protocol);
    if (!ok)
        return err_set(e, ERR_USAGE, "--protocol %s: a task is scored by llm.c, llama.cpp or lm-eval",
                       x->protocol);
    if (strcmp(o->name, "hellaswag") && strcmp(x->protocol, "lm-eval"))
        return err_set(e, ERR_USAGE, "task %s is scored by lm-eval only, not by %s", o->name, x->protocol);
    return true;
}

bool examples_read(Examples *x, const TaskOptions *o, Arena *a, Err *e)
{
    *x = (Examples){0};
    if (strcmp(o->name, "hellaswag") && strcmp(o->name, "lambada") && strcmp(o->name, "multiple_choice"))
        return err_set(e, ERR_USAGE, "--task %s: hellaswag, lambada and multiple_choice are known", o->name);
    size_t bytes;
    char *text = file_read(a, o->path, &bytes, e);
    if (!text) return false;
    if (strlen(text) != bytes)
        return err_set(e, ERR_CORRUPT, "%s: holds a zero byte; not a text file", o->path);
    const bool json = text[strspn(text, " \t\r\n")] == '{';
    if (!json && strcmp(o->name, "hellaswag"))
        return err_set(e, ERR_USAGE, "%s: task %s reads JSON lines", o->path, o->name);
    if (!settle_protocol(x, o, json, e)) return false;
    size_t lines = 1;
    for (const char *p = text; *p; p++) lines += *p == '\n';
    x->v = arena_alloc(a, lines * sizeof *x->v, e);
    Reader r = {o, a, e, text, 0};
    char *line;
    while (x->v && !e->code && (!o->limit || x->n < o->limit) && (line = next_line(&r)) != NULL) {
        if (!line[strspn(line, " \t")]) continue;
        if (json ? read_json(&r, &x->v[x->n], line) : hellaswag_text(&r, &x->v[x->n], line)) x->n++;
    }
    if (!e->code && !x->n) err_set(e, ERR_USAGE, "%s: holds no examples", o->path);
    return !e->code;
}
