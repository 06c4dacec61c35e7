/* tests/test_config.c: documents accepted and refused with exact places, the resolved text read back, random
 * damage. */
#include <math.h>

#include "tests/config_load_impl.h"
#include "tests/config_good_impl.h"
#include "tests/config_bad_impl.h"

TEST(config, good_documents_are_accepted)
{
    ASSERT(CFG_COUNT(good) >= 60);
    for (int i = 0; i < CFG_COUNT(good); i++) {
        Loaded l;
        load(&l, good[i], 0, NULL);
        if (!l.c) test_fail(__FILE__, __LINE__, "good document %d refused:\n%s\n%s", i, good[i], l.e.msg);
        arena_free(&l.a);
    }
}

TEST(config, bad_documents_are_refused_at_the_place)
{
    ASSERT(CFG_COUNT(bad) >= 120);
    int failed = 0;
    for (int i = 0; i < CFG_COUNT(bad); i++) {
        Loaded l;
        load(&l, bad[i].text, 0, NULL);
        const char *text = l.doc ? config_error_text(l.doc) : l.e.msg;
        bool ok = !l.c && l.e.code == ERR_USAGE && has_line(text, l.path, bad[i].where, bad[i].message) &&
                  count_lines(text) == bad[i].n;
        if (!ok) {
            failed++;
            fprintf(stderr, "bad document %d:\n%swanted %d lines, one `%s...%s`, got\n%s\n\n", i, bad[i].text,
                    bad[i].n, bad[i].where, bad[i].message, text);
        }
        arena_free(&l.a);
    }
    ASSERT_EQ(failed, 0);
}

TEST(config, values_and_defaults_arrive)
{
    Loaded l;
    load(&l,
         DOC "optim: {lr: 3e-4, betas: [0.8, 0.99], groups: [{match: [a, 'no'], lr_scale: 2}]}\n"
             "run: {seed: 1_000, overwrite: on}\ntrain: {max_steps: 64k, tokens_per_step: 16Ki}\n",
         0, NULL);
    ASSERT(l.c != NULL);
    ASSERT_EQ(l.c->optim.learning_rate, 3e-4);
    ASSERT_EQ(l.c->optim.betas.n, 2);
    ASSERT_EQ(l.c->optim.betas.v[1], 0.99);
    ASSERT_EQ(l.c->optim.groups.n, 1);
    ASSERT_STR(l.c->optim.groups.v[0].match.v[1], "no");
    ASSERT_EQ(l.c->optim.groups.v[0].lr_scale, 2.0);
    ASSERT(isnan(l.c->optim.groups.v[0].weight_decay));
    ASSERT_EQ(l.c->optim.weight_decay, 0.1);
    ASSERT_EQ(l.c->run.seed, 1000);
    ASSERT_EQ(l.c->eval.generate.seed, 1000);
    ASSERT(l.c->run.overwrite);
    ASSERT_EQ(l.c->train.max_steps, 64000);
    ASSERT_EQ(l.c->train.gradient_accumulation_steps, 2);
    ASSERT_STR(l.c->run.recipe, "finetune");
    ASSERT_STR(l.c->run.name, "c");
    ASSERT_STR(l.c->run.output_dir, "outputs/c");
    ASSERT(isnan(l.c->model.dropout));
    ASSERT_EQ(l.c->distill.ce_weight, 0.5);
    ASSERT(config_was_set(l.doc, "optim.learning_rate"));
    ASSERT(!config_was_set(l.doc, "optim.eps") && !config_was_set(l.doc, "run.name"));
    ASSERT_STR(config_node(l.doc, "optim.groups[0].match[0]")->text, "a");
    arena_free(&l.a);
}

TEST(config, fresh_models_get_their_derived_sizes)
{
    Loaded l;
    load(&l,
         FRESH "model: {init: {arch: gpt2, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4,\n"
               "  residual_init_scale: auto}}\n",
         0, NULL);
    ASSERT(l.c != NULL);
    const ModelInitConfig *m = &l.c->model.init;
    ASSERT(l.c->model.has_init && m->tie_word_embeddings && isnan(m->residual_init_scale));
    ASSERT_EQ(m->head_dim, 16);
    ASSERT_EQ(m->num_key_value_heads, 4);
    ASSERT_EQ(m->intermediate_size, 256);
    ASSERT_EQ(m->max_position_embeddings, 64);
    arena_free(&l.a);
}

TEST(config, all_errors_are_listed_at_once)
{
    Loaded l;
    load(&l,
         DOC "optim: {lrr: 1, eps: -1}\nrun: {recipe: distil}\ntrian: {}\nlora: {bias: all}\n"
             "schedule: {warmup_steps: 5, warmup_ratio: 0.1}\n",
         0, NULL);
    ASSERT(!l.c && l.doc);
    const char *text = config_error_text(l.doc);
    ASSERT_EQ(config_error_count(l.doc), 6);
    ASSERT_STR(l.e.msg, text);
    const char *order[] = {":4:9: optim.lrr: ", ":4:22: optim.eps: ", ":5:15: run.recipe: ",
                           ":6:1: trian: ",     ":7:14: lora.bias: ", ":8:43: schedule.warmup_ratio: "};
    for (int i = 0; i < CFG_COUNT(order); i++) {
        text = strstr(text, order[i]);
        ASSERT(text != NULL);
    }
    arena_free(&l.a);
}

TEST(config, many_errors_fit_the_message_by_whole_lines)
{
    char text[8192] = DOC "optim:\n";
    for (int i = 0; i < 100; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "  unknown_name_%d: 1\n", i);
    Loaded l;
    load(&l, text, 0, NULL);
    ASSERT(!l.c);
    ASSERT_EQ(config_error_count(l.doc), 100);
    ASSERT_EQ(count_lines(config_error_text(l.doc)), 100);
    ASSERT(strstr(l.e.msg, "\nand ") && strstr(l.e.msg, " more"));
    arena_free(&l.a);
}

/* The resolved text of every good document, read again, gives the same resolved text: all fields, every
 * value. */
TEST(config, resolved_text_reads_back_to_the_same)
{
    for (int i = 0; i < CFG_COUNT(good); i++) {
        Loaded l;
        load(&l, good[i], 0, NULL);
        ASSERT(l.c != NULL);
        char *first = config_resolved(l.doc, config_section(), l.c, &l.a, &l.e);
        ASSERT(first != NULL);
        Loaded again;
        load(&again, first, 0, NULL);
        if (!again.c)
            test_fail(__FILE__, __LINE__, "resolved document %d refused:\n%s\n%s", i, again.e.msg, first);
        ASSERT_STR(config_resolved(again.doc, config_section(), again.c, &again.a, &again.e), first);
        ASSERT_EQ(again.c->optim.learning_rate, l.c->optim.learning_rate);
        ASSERT_EQ(again.c->optim.groups.n, l.c->optim.groups.n);
        ASSERT_EQ(again.c->n_arm, l.c->n_arm);
        arena_free(&again.a);
        arena_free(&l.a);
    }
}

TEST(config, resolved_text_keeps_odd_texts_and_numbers)
{
    Loaded l;
    load(&l,
         DOC "run: {name: \"a\\\"b\\\\c\\td\\n${env:NO_SUCH_NAME,$} ünï $${x} # no: 'q'\"}\n"
             "optim: {lr: 0.1234567890123456789, eps: 1e-300}\nrun-x: null\n",
         0, NULL);
    ASSERT(!l.c); /* run-x */
    arena_free(&l.a);
    load(&l,
         DOC "run: {name: \"a\\\"b\\\\c\\td\\ne ünï $${x} # no: 'q'\"}\noptim: {lr: 0.1234567890123456789, "
             "eps: 1e-300}\n",
         0, NULL);
    if (!l.c) test_fail(__FILE__, __LINE__, "%s", l.e.msg);
    ASSERT_STR(l.c->run.name, "a\"b\\c\td\ne ünï ${x} # no: 'q'");
    Loaded again;
    load(&again, config_resolved(l.doc, config_section(), l.c, &l.a, &l.e), 0, NULL);
    if (!again.c) test_fail(__FILE__, __LINE__, "%s", again.e.msg);
    ASSERT_STR(again.c->run.name, l.c->run.name);
    ASSERT_EQ(again.c->optim.learning_rate, l.c->optim.learning_rate);
    ASSERT_EQ(again.c->optim.eps, 1e-300);
    arena_free(&again.a);
    arena_free(&l.a);
}

/* Damage: bytes replaced, removed, doubled, at places from Philox. Refused or accepted, never a crash. */
TEST(config, two_thousand_mutations_do_no_harm)
{
    static const char letters[] = "{}[]:,-&*!|>'\"%@`#?~$ \n\tabz019_.\xff\xc3\0";
    const char *seed_text = DOC
        "run: {recipe: distill, name: &n \"x${env:A,b}\", output_dir: *n}\nteacher: {path: t}\n"
        "optim:\n  lr: 3e-4\n  groups:\n    - {match: [a.*, b], lr_scale: 0.1}\n  betas: [0.9, 0.95]\n"
        "arms:\n  a: {optim: {lr: 1}}\neval: {generate: {prompts: [\"one\", 'two']}}\n";
    size_t n = strlen(seed_text);
    int refused = 0;
    for (uint32_t i = 0; i < 2000; i++) {
        char text[1024];
        snprintf(text, sizeof text, "%s", seed_text);
        uint32_t edits = 1 + i % 4;
        for (uint32_t k = 0; k < edits; k++) {
            RngKey key = {.seed = 7, .step = i, .stream = rng_stream("mutation")};
            uint32_t r = rng_u32(key, 3 * k), at = rng_u32(key, 3 * k + 1) % (uint32_t)n;
            char c = letters[rng_u32(key, 3 * k + 2) % (sizeof letters - 1)];
            if (r % 3 == 0) text[at] = c;
            else if (r % 3 == 1) memmove(text + at, text + at + 1, strlen(text + at));
            else {
                memmove(text + at + 1, text + at, strlen(text + at) + 1);
                text[at] = c;
            }
            if (at >= strlen(text)) break;
        }
        Loaded l;
        load(&l, text, 0, NULL);
        ASSERT(l.c ? l.e.code == ERR_OK : l.e.code == ERR_USAGE && l.e.msg[0]);
        refused += !l.c;
        arena_free(&l.a);
    }
    ASSERT(refused > 1000 && refused < 2000);
}
