/* main.c: the command line, the only file that names stdout and that exits.
 *
 *   pare [-v|-q] VERB [options] [CONFIG] [key=value ...]
 *
 * The verbs are in train/verbs.c; --help is made from their tables. Results go to stdout, everything for
 * people to stderr. Exit codes: core/core.h, ErrCode. */
#include "train/train.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fail(const Err *e)
{
    if (e->code == ERR_USAGE && strchr(e->msg, '\n')) fprintf(stderr, "%s\n", e->msg);
    else fprintf(stderr, "pare: %s\n", e->msg);
    return e->code ? (int)e->code : 1;
}

static volatile sig_atomic_t stop_signal; /* the first one that asked to stop, or 0 */

static void on_signal(int sig)
{
    if (sig == SIGUSR1) {
        train_signal |= 1;
        return;
    }
    if (train_signal & 2) _exit(128 + sig); /* the second one does not wait */
    stop_signal = sig;
    train_signal |= 2;
}

static void catch_signals(void)
{
    struct sigaction s = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&s.sa_mask);
    sigaction(SIGINT, &s, NULL);
    sigaction(SIGTERM, &s, NULL);
    sigaction(SIGUSR1, &s, NULL);
}

static int usage(FILE *f)
{
    fprintf(f, "pare: trains transformers and makes them small\n"
               "usage: pare [-v|-q] VERB [options] [CONFIG] [key=value ...]\n\n");
    for (int i = 0; i < n_verb_table; i++)
        fprintf(f, "  %-9s %-24s %s\n", verb_table[i].name, verb_table[i].args, verb_table[i].help);
    fprintf(f, "\n`pare VERB --help` lists a verb's options; `pare config schema` every key of a config.\n"
               "exit: 0 ok, 1 failure, 2 usage or config, 3 damaged data, 4 out of memory, 5 no device,\n"
               "      130 interrupted after saving (143 by SIGTERM)\n");
    return 0;
}

static int verb_help(const Verb *v)
{
    printf("usage: pare %s %s\n%s\n\n", v->name, v->args, v->help);
    for (const Option *o = v->opt; o->name; o++) {
        char left[64];
        char letter[8] = "";
        if (o->letter) snprintf(letter, sizeof letter, ", -%c", o->letter);
        snprintf(left, sizeof left, "--%s%s%s%s", o->name, letter,
                 o->value ? (*o->value == '?' ? "[=PATH]" : " ") : "",
                 o->value && *o->value != '?' ? o->value : "");
        printf("  %-28s  %s\n", left, o->help);
    }
    return 0;
}

/* section.key=value, +section.key=value or ~section.key, written as a key can be. */
static bool is_override(const char *s)
{
    const bool reset = s[0] == '~';
    s += s[0] == '~' || s[0] == '+';
    const size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.[]");
    return n > 0 && s[n] == (reset ? 0 : '=');
}

static bool has_option(const Verb *v, const char *name)
{
    for (const Option *o = v->opt; o->name; o++)
        if (!strcmp(o->name, name)) return true;
    return false;
}

static bool is_help(const char *s) { return !strcmp(s, "--help") || !strcmp(s, "-h"); }

/* --name, --name VALUE, --name=VALUE, -x, -x VALUE. value "?" = optional, only with =. */
static bool take_option(Args *x, const Verb *v, int argc, char **argv, int *i)
{
    const char *s = argv[*i];
    bool is_long = s[1] == '-';
    const char *name = s + (is_long ? 2 : 1), *eq = is_long ? strchr(name, '=') : NULL;
    size_t n = eq ? (size_t)(eq - name) : strlen(name);
    const char *names[64];
    int n_names = 0;
    for (const Option *o = v->opt; o->name; o++) {
        names[n_names++] = o->name;
        bool match = is_long ? strlen(o->name) == n && !strncmp(o->name, name, n)
                             : n == 1 && o->letter == name[0];
        if (!match) continue;
        const char *value = eq ? eq + 1 : NULL;
        if (!o->value && eq) return err_set(x->e, ERR_USAGE, "--%s takes no value", o->name);
        if (o->value && *o->value != '?' && !value) {
            if (*i + 1 >= argc) return err_set(x->e, ERR_USAGE, "%s needs a value (%s)", s, o->value);
            value = argv[++*i];
        }
        if (!strcmp(o->name, "set")) {
            if (!is_override(value))
                return err_set(x->e, ERR_USAGE, "--set %s: write it as section.key=value", value);
            x->set[x->n_set++] = arena_strdup(x->a, value, x->e);
            return !x->e->code;
        }
        x->opt[x->n_opt] = o->name;
        x->value[x->n_opt++] = value;
        return true;
    }
    const char *best = is_long ? nearest_name(name, names, n_names) : NULL;
    return err_set(x->e, ERR_USAGE, "%s: unknown option of `pare %s`%s%s%s; see `pare %s --help`", s, v->name,
                   best ? " (did you mean --" : "", best ? best : "", best ? "?)" : "", v->name);
}

/* *help: --help stands where an option can; what is behind it does not matter. */
static bool parse(Args *x, const Verb *v, int argc, char **argv, bool *help)
{
    bool plain = false, set = has_option(v, "set");
    const char *stray = NULL;
    for (int i = 0; i < argc && !x->e->code; i++) {
        if (x->n_pos + x->n_set + x->n_opt > MAX_ARGS - 8)
            return err_set(x->e, ERR_USAGE, "too many arguments");
        if (!plain && is_help(argv[i])) return *help = true;
        if (!plain && !strcmp(argv[i], "--")) plain = true;
        else if (!plain && argv[i][0] == '-' && argv[i][1]) take_option(x, v, argc, argv, &i);
        else if (set && is_override(argv[i]) && !file_exists(argv[i])) x->set[x->n_set++] = argv[i];
        else {
            if (is_override(argv[i]) && !file_exists(argv[i])) stray = argv[i];
            x->pos[x->n_pos++] = argv[i];
        }
    }
    if (!x->e->code && stray && x->n_pos > v->max_pos)
        err_set(x->e, ERR_USAGE, "%s: `pare %s` reads no config and takes no overrides", stray, v->name);
    if (!x->e->code && (x->n_pos < v->min_pos || x->n_pos > v->max_pos))
        err_set(x->e, ERR_USAGE, "usage: pare %s %s", v->name, v->args);
    return !x->e->code;
}

static int command(int argc, char **argv)
{
    int i = 1;
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (!strcmp(argv[i], "-v")) log_set_level(LOG_DEBUG);
        else if (!strcmp(argv[i], "-q")) log_set_level(LOG_WARN);
        else if (!strncmp(argv[i], "--color=", 8)) {
            if (!strcmp(argv[i] + 8, "never")) setenv("NO_COLOR", "1", 1);
            else if (strcmp(argv[i] + 8, "auto")) {
                fprintf(stderr, "pare: %s: auto and never are known\n", argv[i]);
                return ERR_USAGE;
            }
        } else if (is_help(argv[i])) return usage(stdout);
        else if (!strcmp(argv[i], "--version")) {
            printf("%s\n", pare_version());
            return 0;
        } else {
            fprintf(stderr, "pare: %s: unknown option; see `pare --help`\n", argv[i]);
            return ERR_USAGE;
        }
    }
    if (i == argc) {
        usage(stderr);
        return ERR_USAGE;
    }
    const char *names[64];
    const Verb *v = NULL;
    for (int k = 0; k < n_verb_table; k++) {
        names[k] = verb_table[k].name;
        if (!strcmp(verb_table[k].name, argv[i])) v = &verb_table[k];
    }
    if (!v) {
        const char *best = nearest_name(argv[i], names, n_verb_table);
        fprintf(stderr, "pare: %s: no such verb%s%s%s; see `pare --help`\n", argv[i],
                best ? " (did you mean " : "", best ? best : "", best ? "?)" : "");
        return ERR_USAGE;
    }
    tokens_h5_enable();
    Arena a = {.name = "program"};
    Err e = {0};
    Args x = {.verb = v->name, .in = stdin, .out = stdout, .a = &a, .e = &e};
    if (v->long_run) catch_signals();
    bool help = false;
    int rc = parse(&x, v, argc - i - 1, argv + i + 1, &help) && !help ? v->run(&x) : 1;
    if (help) rc = verb_help(v);
    else if (e.code) rc = fail(&e);
    else if (rc == ERR_INTERRUPTED && stop_signal == SIGTERM) rc = 128 + SIGTERM; /* as a shell reports it */
    arena_free(&a);
    return rc;
}

/* A result that did not reach its file is a failure, whichever verb wrote it. */
int main(int argc, char **argv)
{
    signal(SIGXFSZ, SIG_IGN); /* a file at its limit is a full disk: an error of write, with a message */
    int rc = command(argc, argv);
    bool lost = fflush(stdout) != 0 || ferror(stdout);
    if (lost && !rc) fprintf(stderr, "pare: writing to standard output failed\n");
    return rc ? rc : lost ? 1 : 0;
}
