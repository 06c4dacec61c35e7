/* tests/test_config_names.c: nearness of names, globs, numbers as people write them, and the tables
 * themselves. */
#include <string.h>

#include "tests/test.h"
#include "train/config_impl.h"

TEST(config, names_globs_numbers)
{
    static const char *const names[] = {"learning_rate", "lr", "eps", "betas"};
    int64_t i;
    double x;
    ASSERT_EQ(edit_distance("kitten", "sitting"), 3);
    ASSERT_EQ(edit_distance("ab", "ba"), 1);
    ASSERT_EQ(edit_distance("", "abc"), 3);
    ASSERT_EQ(edit_distance("abc", "abc"), 0);
    ASSERT_STR(nearest_name("laerning_rate", names, 4), "learning_rate");
    ASSERT_STR(nearest_name("beta", names, 4), "betas");
    ASSERT(nearest_name("zzz", names, 4) == NULL && nearest_name("x", names, 4) == NULL);
    ASSERT(glob_match("model.*.weight", "model.layers.0.q.weight") && glob_match("*", "") &&
           glob_match("a?c", "abc"));
    ASSERT(!glob_match("model.*.weight", "model.layers.0.q.bias") && !glob_match("a", "ab") &&
           !glob_match("?", ""));
    ASSERT(glob_match("*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaab") &&
           !glob_match("*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaa"));
    ASSERT(config_parse_int("64Ki", &i) && i == 65536);
    ASSERT(config_parse_int("-1_000", &i) && i == -1000);
    ASSERT(config_parse_int("9223372036854775807", &i) && i == INT64_MAX);
    ASSERT(!config_parse_int("9223372036854775808", &i) && !config_parse_int("9300000000G", &i));
    ASSERT(!config_parse_int("_1", &i) && !config_parse_int("1_", &i) && !config_parse_int("", &i) &&
           !config_parse_int("k", &i));
    ASSERT(config_parse_int("1e3", &i) && i == 1000 && !config_parse_int("1e-3", &i) &&
           !config_parse_int("1e30", &i));
    ASSERT(config_parse_float(".5", &x) && x == 0.5 && config_parse_float("1_0.e-1", &x) && x == 1.0);
    ASSERT(!config_parse_float(".", &x) && !config_parse_float("1e", &x) && !config_parse_float("1 ", &x));
    ASSERT_EQ(config_seconds("1h30m"), 5400.0);
    ASSERT_EQ(config_seconds("90"), 90.0);
    ASSERT_EQ(config_seconds("1x"), -1.0);
}

/* Every key of the tables is in the help; every alias of a section leads to one of its keys. */
static void check_section(const ConfigSection *s, const char *help)
{
    for (int i = 0; i < s->n; i++) {
        const ConfigField *f = &s->field[i];
        ASSERT(strstr(help, f->name) && f->help && f->help[0]);
        for (int k = 0; k < i; k++) ASSERT(strcmp(f->name, s->field[k].name) != 0);
        if (f->sub) check_section(f->sub(), help);
    }
    for (int i = 0; i < s->n_alias; i++) {
        bool found = false;
        for (int k = 0; k < s->n; k++) {
            found = found || strcmp(s->alias[i][1], s->field[k].name) == 0;
            ASSERT(strcmp(s->alias[i][0], s->field[k].name) != 0);
        }
        ASSERT(found);
    }
}

TEST(config, tables_are_whole)
{
    Arena a = {.name = "test"};
    Err e = {0};
    char *help = config_help(config_section(), &a, &e);
    ASSERT(help != NULL);
    check_section(config_section(), help);
    arena_free(&a);
}
