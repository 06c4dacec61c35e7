/* autograd/run.c: walks the schedule. Kernels run here and nowhere else. */
#include "autograd/graph_impl.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static bool finite_all(const Graph *g, const void *x, long n)
{
    if (g->opt.k->real == sizeof(double)) {
        for (long i = 0; i < n; i++)
            if (!isfinite(((const double *)x)[i])) return false;
    } else {
        for (long i = 0; i < n; i++)
            if (!isfinite(((const float *)x)[i])) return false;
    }
    return true;
}

static void check_step(Graph *g, const Step *s)
{
    if (g->state.first_bad) return;
    if (s->act != ACT_BACKWARD && !finite_all(g, s->n->out->data, t_numel(s->n->out)))
        g->state.first_bad = s->n->out->name;
    for (int j = 0; s->act == ACT_BACKWARD && j < s->n->op->n_in; j++) {
        const Tensor *t = s->n->in[j];
        if (t && t->grad && !finite_all(g, t->grad, t_numel(t))) {
            g->state.first_bad = t->name;
            return;
        }
    }
}

static const char *const act_name[] = {"forward", "again", "backward"};

static void run(Graph *g, const Schedule *sch, bool first)
{
    for (int i = 0; i < sch->n; i++) {
        const Step *s = &sch->s[i];
        Node *n = s->n;
        if (s->out_data) n->out->data = s->out_data;
        if (s->stat) n->stat = s->stat;
        const double start = g->state.watch ? time_now() : 0;
        if (s->act == ACT_BACKWARD) {
            n->first = n->first_act | (first ? n->first_param : 0u);
            n->op->backward(n, g->opt.k);
        } else {
            n->op->forward(n, g->opt.k);
        }
        if (g->state.watch) g->state.watch(g->state.watch_ctx, n, act_name[s->act], start, time_now());
        if (g->state.check_finite) check_step(g, s);
    }
}

/* A parameter no backward of this graph writes to keeps a gradient of zero. */
static void zero_unwritten(Graph *g)
{
    for (int i = 0; i < g->n_tensor; i++) {
        Tensor *t = g->tensor[i];
        if (!(t->flags & T_PARAM) || !t->grad || !t_wants_grad(t)) continue;
        bool written = false;
        const Schedule *both[] = {&g->micro, &g->weight_bwd};
        for (int b = 0; b < 2 && !written; b++)
            for (int k = 0; k < both[b]->n && !written; k++)
                for (int j = 0; both[b]->s[k].act == ACT_BACKWARD && j < both[b]->s[k].n->op->n_in; j++)
                    written = written || both[b]->s[k].n->in[j] == t;
        if (!written) memset(t->grad, 0, t_bytes(g, t));
    }
}

void graph_forward(Graph *g)
{
    run(g, &g->weight_fwd, true);
    for (int i = 0; i < g->micro.n; i++) {
        if (g->micro.s[i].act != ACT_FORWARD) break;
        const Schedule one = {&g->micro.s[i], 1};
        run(g, &one, true);
    }
}

void graph_step_begin(Graph *g)
{
    run(g, &g->weight_fwd, true);
    zero_unwritten(g);
    g->micro_count = 0;
}

void graph_micro(Graph *g) { run(g, &g->micro, g->micro_count++ == 0); }
void graph_step_end(Graph *g) { run(g, &g->weight_bwd, true); }

int graph_loss_parts(Graph *g, LossPart *out, int cap)
{
    int m = 0;
    for (int i = 0; i < g->n_loss && m < cap; i++) {
        const Node *n = g->loss[i].n;
        if (n->op->parts) m += n->op->parts(n, out + m, cap - m);
        else out[m++] = (LossPart){g->loss[i].label, n->op->value(n)};
    }
    return m;
}

double graph_loss_total(Graph *g)
{
    double sum = 0;
    for (int i = 0; i < g->n_loss; i++) sum += g->loss[i].weight * g->loss[i].n->op->value(g->loss[i].n);
    return sum;
}

char *graph_print(const Graph *g, Arena *a, Err *e)
{
    char *text = arena_strdup(a, "", e);
    const Schedule *all[] = {&g->weight_fwd, &g->micro, &g->weight_bwd};
    const char *phase[] = {"weights", "micro", "weights"};
    for (int b = 0; b < 3; b++)
        for (int i = 0; i < all[b]->n && text; i++)
            text = arena_printf(a, e, "%s%4d %-8s %-8s %-10s %s\n", text, i, phase[b],
                                act_name[all[b]->s[i].act], all[b]->s[i].n->op->name,
                                all[b]->s[i].n->out->name);
    return text;
}

char *graph_memory_table(const Graph *g, Arena *a, Err *e)
{
    size_t by_kind[4] = {0};
    static const char *kind[] = {"activation", "recomputed", "statistics", "gradient"};
    char *text = arena_strdup(a, "", e);
    bool *shown = arena_alloc(a, (size_t)g->n_buffer + 1, e);
    for (int i = 0; i < g->n_buffer; i++)
        for (int k = 0; k < 4; k++)
            if (!strcmp(g->buffer[i].what, kind[k])) by_kind[k] += g->buffer[i].bytes;
    for (int r = 0; r < 5 && shown && text; r++) {
        int best = -1;
        for (int i = 0; i < g->n_buffer; i++)
            if (!shown[i] && (best < 0 || g->buffer[i].bytes > g->buffer[best].bytes)) best = i;
        if (best < 0) break;
        shown[best] = true;
        text = arena_printf(a, e, "%s    %10.2f MB  %s (%s)\n", text, (double)g->buffer[best].bytes / 1e6,
                            g->buffer[best].name, g->buffer[best].what);
    }
    return text
               ? arena_printf(
                     a, e,
                     "  step arena %14.2f MB  (activations %.2f, gradients %.2f, statistics %.2f, recomputed "
                     "%.2f MB share it)\n  scratch    %14.2f MB\n%s",
                     (double)g->step_bytes / 1e6, (double)by_kind[0] / 1e6, (double)by_kind[3] / 1e6,
                     (double)by_kind[2] / 1e6, (double)by_kind[1] / 1e6, (double)g->scratch_bytes / 1e6, text)
               : NULL;
}
