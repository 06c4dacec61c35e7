/* bench/steps.c: where a training step's time goes: the graph's schedule of the shapes A, L and B2, entry by
 * entry, summed by operator and direction; the rest is the optimizer and the batch. Medians over steps.
 */
#include "bench/bench.h"
#include "autograd/graph_impl.h"
#include "train/run_impl.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_ROW = 64, MAX_TIMED = 32 };
typedef struct Row {
    const char *op, *act;
    double flops;        /* of linear layers, per step */
    double s[MAX_TIMED]; /* seconds in step i */
} Row;
typedef struct Table {
    Row row[MAX_ROW];
    int n, step;
} Table;

static Row *row_of(Table *t, const char *op, const char *act)
{
    for (int i = 0; i < t->n; i++)
        if (!strcmp(t->row[i].op, op) && !strcmp(t->row[i].act, act)) return &t->row[i];
    if (t->n == MAX_ROW) return &t->row[MAX_ROW - 1];
    t->row[t->n] = (Row){.op = op, .act = act};
    return &t->row[t->n++];
}

static double linear_flops(const Node *n, Act act)
{
    if (n->op == &op_linear) {
        int products = act == ACT_BACKWARD ? (n->in[0]->grad != NULL) + (n->in[1]->grad != NULL) : 1;
        return 2.0 * products * (double)t_rows(n->in[0]) * (double)t_numel(n->in[1]);
    }
    if (n->op == &op_lm_loss) return 6.0 * (double)t_rows(n->in[0]) * (double)t_numel(n->in[1]);
    return 0;
}

/* One schedule as graph_micro and its neighbours run it, with a clock around every entry. */
static void timed(Table *t, const Graph *g, const Schedule *sch)
{
    static const char *const act[] = {"fwd", "again", "bwd"};
    for (int i = 0; i < sch->n; i++) {
        const Step *s = &sch->s[i];
        Node *n = s->n;
        if (s->out_data) n->out->data = s->out_data;
        if (s->stat) n->stat = s->stat;
        Row *r = row_of(t, n->op->name, act[s->act]);
        double start = bench_now();
        if (s->act == ACT_BACKWARD) {
            n->first = n->first_act | n->first_param;
            n->op->backward(n, g->opt.k);
        } else {
            n->op->forward(n, g->opt.k);
        }
        r->s[t->step] += bench_now() - start;
        if (!t->step) r->flops += linear_flops(n, s->act);
    }
}

static void one_step(Table *t, Run *r, Err *e)
{
    double start = bench_now();
    for (long i = 0; i < r->B; i++)
        loader_fill(r->loader, t->step * r->B + i, (int32_t *)r->ids->data + i * r->T,
                    (int32_t *)r->targets->data + i * r->T, NULL, NULL, e);
    row_of(t, "batch", "")->s[t->step] = bench_now() - start;
    timed(t, r->g, &r->g->weight_fwd);
    timed(t, r->g, &r->g->micro);
    timed(t, r->g, &r->g->weight_bwd);
    start = bench_now();
    optim_step(r->opt, t->step, r->st.n_steps, 1.0 / (double)(r->B * r->T));
    row_of(t, "optimizer", "")->s[t->step] = bench_now() - start;
    t->step++;
}

static void print_table(const Bench *b, const char *shape, Table *t, const Run *r)
{
    double median[MAX_ROW], total = 0, v[MAX_TIMED];
    int n = t->step - 1; /* the first step warms up */
    for (int i = 0; i < t->n; i++) {
        memcpy(v, t->row[i].s + 1, (size_t)n * sizeof *v);
        total += median[i] = bench_stat(v, n).median;
    }
    double flops = r->flops_per_token * (double)(r->B * r->T);
    bench_title("step %s: %.0f ms, %.1f GFLOP/s of the model's products, %.0f %% of FMA (n %d)", shape,
                1e3 * total, flops / total / 1e9, 100 * flops / total / b->c->fma, n);
    for (;;) {
        int best = -1;
        for (int i = 0; i < t->n; i++)
            if (median[i] >= 0 && (best < 0 || median[i] > median[best])) best = i;
        if (best < 0) break;
        const Row *row = &t->row[best];
        char rate[48] = "";
        if (row->flops > 0)
            snprintf(rate, sizeof rate, "%8.1f GFLOP/s, %3.0f %% of FMA", row->flops / median[best] / 1e9,
                     100 * row->flops / median[best] / b->c->fma);
        if (median[best] > 0.002 * total)
            printf("  %-10s %-5s %9.2f ms %5.1f %%  %s\n", row->op, row->act, 1e3 * median[best],
                   100 * median[best] / total, rate);
        bench_line(b,
                   "{\"part\": \"steps\", \"shape\": \"%s\", \"op\": \"%s\", \"dir\": \"%s\", \"ms\": %.3f, "
                   "\"share\": %.4f, \"gflops\": %.1f, \"n\": %d}",
                   shape, row->op, row->act, 1e3 * median[best], median[best] / total,
                   row->flops / median[best] / 1e9, n);
        median[best] = -1;
    }
    fflush(stdout);
}

static bool measure(const Bench *b, const char *shape, const char *config)
{
    Arena a = {.name = "bench"};
    Err e = {0};
    Run r = {0};
    Table *t = arena_alloc(&a, sizeof *t, &e);
    char *one[] = {(char[]){"device.threads=1"}};
    Config *c = config_load(&a, config, b->cpu_time, one, NULL, &e);
    if (t && c && run_setup(&r, c, &a, &e)) {
        for (int i = 0; i < (b->quick ? 4 : 12); i++) one_step(t, &r, &e);
        print_table(b, shape, t, &r);
    }
    run_free(&r);
    arena_free(&a);
    return bench_ok(&e, config);
}

bool bench_steps(const Bench *b)
{
    log_set_level(LOG_WARN);
    bench_threads(b);
    if (!bench_tokens("build/bench/tokens-50257.bin", 50257, 300000) ||
        !bench_tokens("build/bench/tokens-32000.bin", 32000, 300000))
        return false;
    bool ok = measure(b, "A", "bench/shape-a.yaml");
    ok = measure(b, "L", "bench/shape-l.yaml") && ok;
    return measure(b, "B2", "bench/shape-b2.yaml") && ok;
}
