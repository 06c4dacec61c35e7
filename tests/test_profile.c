/* tests/test_profile.c: log.profile: trace.json holds the steps asked for, entry by entry of the schedule,
 * and the run's numbers are those of a run that is not looked at. */
#define _GNU_SOURCE
#include "tests/pare_impl.h"

#define STATE "%s/run/checkpoints/step_00000012.h5"
#define PROFILE "log.profile={start: 2, steps: 3}"

static const char *text_of_key(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    ASSERT_MSG(s != NULL, "no string \"%s\"", key);
    return s;
}

static json_t *trace(const char *dir)
{
    char *text = get_file(text_of("%s/run/trace.json", dir), NULL);
    ASSERT_MSG(text != NULL, "no trace.json");
    json_t *all = json_object_get(json_line(text), "traceEvents");
    ASSERT(json_is_array(all));
    return all;
}

/* Events of a kind, and their microseconds together. */
static int count(const json_t *all, const char *name, const char *phase, double *us)
{
    int n = 0;
    size_t i;
    json_t *o;
    *us = 0;
    json_array_foreach(all, i, o)
    {
        if (strcmp(text_of_key(o, "name"), name) || strcmp(text_of_key(o, "cat"), phase)) continue;
        *us += field(o, "dur");
        n++;
    }
    return n;
}

TEST(profile, steps_asked_for_entry_by_entry)
{
    char *d = tiny_dir("a");
    Pare p = PARE(.dir = d, ARGS("train", "c.yaml", PROFILE, "train.gradient_accumulation_steps=2"));
    ASSERT_RAN(p, 0);
    json_t *all = trace(d), *o;
    double step, data, update, us, sum = 0, last = -1;
    ASSERT_EQ(count(all, "step", "run", &step), 3);
    ASSERT_EQ(count(all, "data", "run", &data), 3 * 2);
    ASSERT_EQ(count(all, "optimizer", "run", &update), 3);
    /* two layers of one attention and two norms, and the last norm; two micro-batches a step */
    ASSERT_EQ(count(all, "attention", "forward", &us), 3 * 2 * 2);
    ASSERT_EQ(count(all, "attention", "backward", &us), 3 * 2 * 2);
    ASSERT_EQ(count(all, "rmsnorm", "forward", &us), 3 * 2 * 5);
    ASSERT_EQ(count(all, "lm_loss", "backward", &us), 3 * 2);
    ASSERT_EQ(count(all, "attention", "again", &us), 0);
    size_t i;
    json_array_foreach(all, i, o)
    {
        ASSERT_STR(text_of_key(o, "ph"), "X");
        ASSERT(field(o, "ts") >= 0 && field(o, "dur") >= 0);
        ASSERT_EQ(field(o, "pid"), 0.0);
        ASSERT(text_of_key(json_object_get(o, "args"), "tensor")[0]);
        if (!strcmp(text_of_key(o, "name"), "step")) continue;
        ASSERT(field(o, "ts") >= last); /* one after the other, none inside another */
        last = field(o, "ts") + field(o, "dur") - 0.01;
        sum += field(o, "dur");
    }
    ASSERT(sum <= step && sum > 0.2 * step);
    ASSERT_CONTAINS(p.err, "profile of 3 steps");
    ASSERT_CONTAINS(get_file(text_of("%s/run/run.log", d), NULL), "\n  attention      backward ");
}

TEST(profile, changes_nothing_and_ends_with_the_run)
{
    char *a = tiny_dir("a"), *b = tiny_dir("b"), *c = tiny_dir("c");
    double us;
    Pare p = PARE(.dir = a, ARGS("train", "c.yaml"));
    ASSERT_RAN(p, 0);
    ASSERT(!exists(text_of("%s/run/trace.json", a)));
    p = PARE(.dir = b, ARGS("train", "c.yaml", "log.profile={start: 10, steps: 50}"));
    ASSERT_RAN(p, 0);
    ASSERT_EQ(count(trace(b), "step", "run", &us), 2);
    same_state(text_of(STATE, a), text_of(STATE, b));
    p = PARE(.dir = c, ARGS("train", "c.yaml", "model.activation_checkpointing=block", PROFILE));
    ASSERT_RAN(p, 0);
    ASSERT_EQ(count(trace(c), "attention", "again", &us), 3 * 2);
    p = PARE(.dir = c, ARGS("validate", "c.yaml", "log.profile={start: -1, steps: 1001}"));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "log.profile.start");
    ASSERT_CONTAINS(p.err, "log.profile.steps");
    p = PARE(.dir = c, ARGS("validate", "c.yaml", "log.profile={start: 12, steps: 1}"));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "log.profile.start: 12, but the run has 12 steps: none is traced");
}
