/* train/setup.c: from a config to a run that can start: models, tokenizer, data, graph, optimizer. Nothing is
 * written. */
#include "train/run_impl.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool run_tokenizer(Run *r, Err *e)
{
    Config *c = r->c;
    const char *path = c->tokenizer.path;
    if (!path && r->has_teacher) path = r->teacher.tokenizer_path;
    if (!path) path = r->model.tokenizer_path;
    if (!path) return true;
    r->tk = model_tokenizer(path, &c->tokenizer, r->a, e);
    return r->tk != NULL;
}

bool same_vocabulary(const Model *t, const Model *s, const Tokenizer *tk, const TokenizerConfig *how,
                     Arena *a, Err *e)
{
    if (t->spec.V != s->spec.V)
        return err_set(e, ERR_USAGE,
                       "teacher %s has %ld tokens, the student %ld: a distillation needs one vocabulary",
                       t->path, t->spec.V, s->spec.V);
    if ((how && !how->must_match_teacher) || !t->tokenizer_path || !tk) return true;
    if (!strcmp(t->tokenizer_path, tokenizer_path(tk))) return true;
    Tokenizer *tt = model_tokenizer(t->tokenizer_path, how, a, e);
    if (!tt) return false;
    if (strcmp(tokenizer_hash(tt), tokenizer_hash(tk)))
        return err_set(
            e, ERR_USAGE,
            "the teacher's tokenizer %s and the student's %s differ in content: they read different "
            "tokens (tokenizer.must_match_teacher: false overrides)",
            t->tokenizer_path, tokenizer_path(tk));
    return true;
}

/* Whether the teacher is computed: with a cache only for what is not in it. */
static bool needs_teacher(const Config *c)
{
    if (strcmp(c->run.recipe, "distill")) return false;
    if (c->caching || !c->teacher.cache || c->distill.features.n || c->model.has_teacher) return true;
    return c->teacher.path && c->eval.compare_teacher && config_was_set(c->doc, "eval.compare_teacher");
}

static bool open_teachers(Run *r, Err *e)
{
    const Config *c = r->c;
    if (!needs_teacher(c)) return true;
    const int n = c->teachers.n ? c->teachers.n : 1;
    for (int i = 0; i < n; i++) {
        const TeacherEntry *t = c->teachers.n ? &c->teachers.v[i] : NULL;
        if (!teacher_open(i ? &r->more[i - 1] : &r->teacher, t ? t->path : c->teacher.path,
                          t ? t->dtype : c->teacher.dtype, t ? t->quantize : c->teacher.quantize, r->k, r->a,
                          e))
            return err_prefix(e, "teacher");
        r->has_teacher = true;
        r->n_more = i;
    }
    return true;
}

/* A student cut out of its teacher (model.init_from_teacher). */
static bool cut_student(Run *r, Err *e)
{
    const Config *c = r->c;
    ModelSpec s;
    Model file; /* the teacher's own values, whatever the run keeps of them */
    long *map = NULL;
    Arena tmp = {.name = "teacher"};
    bool ok = spec_from_teacher(&s, &r->teacher.spec, &c->model, c->doc, &map, r->a, e) &&
              model_fresh(&r->model, &s, (uint64_t)c->run.seed, r->k, r->a, e);
    if (ok && (ok = model_open_frozen(&file, r->teacher.path, r->k, &tmp, e))) {
        ok = model_from_teacher(&r->model, &file, map, c->model.init_from_teacher.embeddings, e);
        model_close(&file);
    }
    arena_free(&tmp);
    return ok;
}

static bool one_vocabulary(Run *r, const Model *teacher, Err *e)
{
    Err why = {0};
    if (same_vocabulary(teacher, &r->model, r->tk, &r->c->tokenizer, r->a, &why)) return true;
    return why.code == ERR_USAGE ? run_key_error(r, e, "teacher.path", "%s", why.msg)
                                 : err_set(e, why.code, "%s", why.msg);
}

static bool open_models(Run *r, Err *e)
{
    Config *c = r->c;
    if (!open_teachers(r, e)) return false;
    if (c->model.path && !(c->lora.enabled ? lora_base_open(&r->model, c->model.path, &c->lora, r->k, r->a, e)
                                           : model_open(&r->model, c->model.path, r->k, r->a, e)))
        return err_prefix(e, "model");
    if (!run_tokenizer(r, e)) return false;
    if (c->model.has_teacher) {
        if (!cut_student(r, e)) return false;
    } else if (!c->model.path) {
        ModelSpec s;
        long vocab = r->tk ? tokenizer_vocab(r->tk) : r->has_teacher ? r->teacher.spec.V : 0;
        if (!spec_from_init(&s, &c->model.init, vocab, (long)c->data.seq_len, e)) return false;
        if (r->tk) {
            s.bos = tokenizer_bos(r->tk);
            s.eos = tokenizer_eos(r->tk);
        }
        if (!model_fresh(&r->model, &s, (uint64_t)c->run.seed, r->k, r->a, e)) return false;
    }
    if (r->tk) r->model.tokenizer_path = tokenizer_path(r->tk); /* what the run reads text by goes with it */
    if (!isnan(c->model.dropout)) {
        ModelSpec *s = &r->model.spec;
        s->dropout = s->embed_dropout = s->attn_dropout = c->model.dropout;
    }
    if (r->tk && tokenizer_vocab(r->tk) > r->model.spec.V)
        return run_key_error(r, e, c->tokenizer.path ? "tokenizer.path" : "model.path",
                             "tokenizer %s has %d tokens, the model's vocabulary only %ld",
                             tokenizer_path(r->tk), tokenizer_vocab(r->tk), r->model.spec.V);
    if (r->tk && tokenizer_vocab(r->tk) < r->model.spec.V / 2)
        log_warn("tokenizer %s has %d tokens, less than half of the model's %ld: is it this model's own?",
                 tokenizer_path(r->tk), tokenizer_vocab(r->tk), r->model.spec.V);
    for (int i = 0; i < c->model.freeze.n; i++) {
        char key[64];
        snprintf(key, sizeof key, "model.freeze[%d]", i);
        if (!model_freeze(&r->model, c->model.freeze.v[i]))
            return run_no_match(r, e, key, c->model.freeze.v[i]);
    }
    if (r->has_teacher && !one_vocabulary(r, &r->teacher, e)) return false;
    for (int i = 0; i < r->n_more; i++)
        if (!one_vocabulary(r, &r->more[i], e)) return false;
    return true;
}

bool tokens_of_sources(Tokens *out, const SourceConfig *list, int n, const DataConfig *d, const Tokenizer *tk,
                       int vocab, Arena *a, Err *e)
{
    tokens_h5_enable();
    for (int i = 0; i < n; i++) {
        Tokens t;
        if (!tokens_load(&t, &list[i], d, tk, vocab, a, e)) return false;
        if (!i) *out = t;
        else if (!tokens_join(out, &t, a, e)) return false;
    }
    return n > 0;
}

bool run_val(Run *r, Err *e)
{
    const DataConfig *d = &r->c->data;
    if (!d->val.n) return true;
    r->has_val = tokens_of_sources(&r->val, d->val.v, d->val.n, d, r->tk, (int)r->model.spec.V, r->a, e);
    return r->has_val || err_prefix(e, "data.val");
}

static bool open_data(Run *r, Err *e)
{
    Config *c = r->c;
    for (int i = 0; i < r->n_more; i++)
        if (!run_fits(r, &r->more[i], r->more[i].path, e)) return false;
    if (!run_fits(r, &r->model, "model", e) || (r->has_teacher && !run_fits(r, &r->teacher, "teacher", e)))
        return false;
    LoaderOptions o = {.data = &c->data,
                       .source = c->data.train.v,
                       .n_source = c->data.train.n,
                       .seq_len = r->T,
                       .vocab = (int)r->model.spec.V,
                       .seed = (uint64_t)c->run.seed,
                       .shuffle = c->data.shuffle};
    tokens_h5_enable();
    if (!c->data.chat_template) c->data.chat_template = c->tokenizer.chat_template;
    r->loader = loader_open(&o, r->tk, r->a, e);
    if (!r->loader) return err_prefix(e, "data.train");
    r->prefetch = prefetch_open(r->loader, r->B, (int)c->data.workers, r->a, e);
    if (!r->prefetch) return false;
    return run_val(r, e);
}

/* What scores are measured on, when the section names a text of its own. */
static bool open_calibration(Run *r, Err *e)
{
    const PruneConfig *p = &r->c->prune;
    if (!p->enabled || !prune_needs_data(p) || !p->calibration.data.path) return true;
    return calibration_open(&r->calibration, &p->calibration, &r->c->data, r->tk, &r->model, "prune", r->a,
                            e);
}

static Tensor *input(Run *r, const char *name)
{
    return graph_input(r->g, name, DT_I32, 2, (long[]){r->B, r->T});
}

/* The inputs that a cached teacher fills. */
static void record_cache(Run *r, LmLossAttr *at, Tensor **in)
{
    at->cached = true;
    const long k = teacher_cache_about(r->cache)->k;
    r->top_index = graph_input(r->g, "teacher.topk_index", DT_I32, 3, (long[]){r->B, r->T, k});
    r->top_logp = graph_input(r->g, "teacher.topk_logprob", DT_F32, 3, (long[]){r->B, r->T, k});
    r->top_rest = graph_input(r->g, "teacher.rest_logsumexp", DT_F32, 2, (long[]){r->B, r->T});
    in[3] = r->top_index;
    in[4] = r->top_logp;
    in[5] = r->top_rest;
}

/* Hidden states and head of teacher i, without gradients: teacher., teacher1., ... */
static void record_teacher(Run *r, int i, Tensor **out, Err *e)
{
    Model *m = i ? &r->more[i - 1] : &r->teacher;
    const char *prefix = i ? arena_printf(r->a, e, "teacher%d.", i) : "teacher.";
    graph_scope_nograd(r->g, true);
    graph_prefix(r->g, prefix ? prefix : "teacher.");
    out[0] = model_hidden(r->g, m, &(ModelInputs){.ids = r->ids, .pos = r->pos, .seg = r->seg});
    out[1] = model_head(r->g, m);
    graph_scope_nograd(r->g, false);
}

/* Weights that add up to 1, and each teacher's soft-cap. */
static void teacher_shares(const Run *r, LmLossAttr *at)
{
    double sum = 0;
    const Config *c = r->c;
    for (int i = 0; i < c->teachers.n; i++) sum += c->teachers.v[i].weight;
    for (int i = 0; i < c->teachers.n; i++) {
        at->weight[i] = c->teachers.v[i].weight / sum;
        at->cap[i] = (i ? &r->more[i - 1] : &r->teacher)->spec.final_softcap;
    }
}

/* Teacher first: its interior is dead before the student starts, so both share the step arena. What no loss
 * reads of it (all of it where alpha is 0 and no feature is matched) is planned out of the step. */
static bool record(Run *r, Err *e)
{
    Config *c = r->c;
    size_t memory = (size_t)sysconf(_SC_AVPHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    r->g = graph_new(&(GraphOptions){.k = r->k,
                                     .train = true,
                                     .run = r->a,
                                     .memory_limit = memory,
                                     .recompute = !strcmp(c->model.activation_checkpointing, "block")},
                     e);
    if (!r->g) return false;
    r->ids = input(r, "ids");
    r->targets = input(r, "targets");
    r->pos = input(r, "pos");
    if (loader_segments(r->loader)) r->seg = input(r, "seg");
    Tensor *in[3 + 2 * MAX_TEACHER] = {NULL};
    for (int i = 0; r->has_teacher && i <= r->n_more; i++) record_teacher(r, i, &in[3 + 2 * i], e);
    graph_prefix(r->g, "student.");
    const ModelInputs inputs = {.ids = r->ids, .pos = r->pos, .seg = r->seg, .train = true};
    lora_train(&r->lora, true);
    Tensor *h = model_hidden(r->g, &r->model, &inputs);
    Tensor *w = model_head(r->g, &r->model);
    lora_train(&r->lora, false);
    if (r->has_teacher && !distill_features(&r->distill, r->g, r->targets, r->seg, e)) return false;
    if (c->distill.alpha > 0 && (r->has_teacher || r->cache)) {
        LmLossAttr at = distill_loss(&c->distill, c->train.label_smoothing, c->train.z_loss);
        model_loss_caps(&at.a, &r->model, r->has_teacher ? &r->teacher : NULL);
        in[0] = h;
        in[1] = w;
        in[2] = r->targets;
        if (r->cache) record_cache(r, &at, in);
        else teacher_shares(r, &at);
        r->distill.lm = graph_record(r->g, &op_lm_loss, &at, r->cache ? 6 : 5 + 2 * r->n_more, in);
        r->lm = r->distill.lm;
    } else {
        LmLossAttr at = {.a = {.ce_weight = 1,
                               .temperature = 1,
                               .label_smoothing = c->train.label_smoothing,
                               .z_loss = c->train.z_loss},
                         .chunk = c->distill.chunk_tokens};
        model_loss_caps(&at.a, &r->model, NULL);
        if (r->has_teacher || r->cache) at.a.ce_weight = c->distill.ce_weight;
        r->lm = OP_ATTR(r->g, lm_loss, at, h, w, r->targets);
    }
    graph_loss(r->g, r->lm, 1.0, "lm");
    *graph_state(r->g) = (RunState){.seed = (uint64_t)c->run.seed};
    if (!graph_plan(r->g, e)) return false;
    return true;
}

/* Forward and backward of one token: 6 per weight that multiplies, 4 where the weight itself rests, 12 per
 * attention score (causal: half), teacher 2. */
static void count_flops(Run *r)
{
    const bool teaches = r->has_teacher && (r->c->distill.alpha > 0 || r->distill.n > 0);
    for (int i = 0; i < (teaches ? 2 + r->n_more : 1); i++) {
        const Model *m = i > 1 ? &r->more[i - 2] : i ? &r->teacher : &r->model;
        double n = 0;
        for (int j = 0; j < m->n_site; j++) {
            const Param *w = m->site[j].w;
            n += (i ? 2 : w->frozen ? 4 : 6) * (double)t_numel(&w->w);
        }
        const ModelSpec *s = &m->spec;
        double attn = (double)(s->L * s->H * s->D * r->T);
        r->flops_per_token += n + (i ? 2 : 6) * attn;
    }
    for (int i = 0; i < r->lora.n; i++)
        r->flops_per_token += 6 * (double)(t_numel(&r->lora.item[i].a->w) + t_numel(&r->lora.item[i].b->w));
}

static bool count_steps(Run *r, Err *e)
{
    Config *c = r->c;
    r->B = (long)c->train.batch_size;
    r->T = (long)c->data.seq_len;
    r->accum = (long)c->train.gradient_accumulation_steps;
    if (c->train.tokens_per_step) r->accum = (long)(c->train.tokens_per_step / (r->B * r->T));
    if (r->accum < 1) r->accum = 1;
    r->step_tokens = (int64_t)r->B * r->T * r->accum;
    return !e->code;
}

const Kernels *device_kernels(const DeviceConfig *d, Err *e)
{
    threads_init((int)d->threads);
    const Kernels *k = !strcmp(d->precision, "float64") ? kernels_ref_f64()
                       : strcmp(d->blas, "auto")        ? kernels_isa_f32((int)cpu_isa(), d->blas)
                                                        : kernels_cpu_f32();
    if (!k) err_set(e, ERR_DEVICE, "device.blas: %s is not available in this build", d->blas);
    return k;
}

bool run_open(Run *r, Config *c, Arena *a, Err *e)
{
    *r = (Run){.c = c, .a = a, .dir = c->run.output_dir, .started = time_now()};
    r->st = (TrainState){.best = NAN, .val = NAN, .evaluated = -1, .seed = (uint64_t)c->run.seed};
    r->k = device_kernels(&c->device, e);
    if (!r->k) return false;
    return count_steps(r, e) && open_models(r, e) && open_data(r, e);
}

int64_t run_steps(const Run *r)
{
    const Config *c = r->c;
    const int64_t per_step = r->B * r->accum, samples = loader_samples(r->loader);
    const double by_epochs = floor(c->train.epochs * (double)samples / (double)per_step);
    const int64_t n = by_epochs < 1 ? 1 : by_epochs > 0x1p53 ? (int64_t)1 << 53 : (int64_t)by_epochs;
    const bool limit = c->train.max_steps < n || !config_was_set(c->doc, "train.epochs");
    return c->train.max_steps && limit ? c->train.max_steps : n;
}

/* Opened last of what is read: it must fit models and data. */
static bool open_cache(Run *r, Err *e)
{
    const Config *c = r->c;
    if (strcmp(c->run.recipe, "distill") || !c->teacher.cache) return true;
    r->cache = teacher_cache_open(c->teacher.cache, r->a, e);
    r->distill.c = &c->distill; /* its schedule holds, whoever teaches */
    return r->cache && teacher_cache_check(r->cache, r, e);
}

bool run_setup(Run *r, Config *c, Arena *a, Err *e)
{
    if (!run_open(r, c, a, e) || !open_cache(r, e)) return false;
    if (r->has_teacher &&
        !distill_open(&r->distill, &c->distill, &r->model, &r->teacher, (uint64_t)c->run.seed, c->doc, e))
        return false;
    if (!prune_open(&r->prune, &c->prune, &r->model, (uint64_t)c->run.seed, c->doc, e)) return false;
    r->st.prune = &r->prune;
    r->prune.again = c->at_stage >= 0 && c->stage[c->at_stage].own_prune;
    if (!qat_open(&r->qat, &c->qat, &r->model, c->doc, e)) return false;
    r->st.qat = &r->qat;
    if (!lora_open(&r->lora, &c->lora, &r->model, (uint64_t)c->run.seed, c->doc, e)) return false;
    r->st.lora = &r->lora;
    if (!run_check(r, e)) return false;
    if (!open_calibration(r, e)) return false;
    r->st.n_steps = run_steps(r);
    if (c->at_stage >= 0 && !c->stage[c->at_stage].trains) r->st.n_steps = 0;
    r->st.data_hash = loader_hash(r->loader);
    if (!prune_steps(&r->prune, r->st.n_steps, c->doc, e)) return false;
    if (!params_alloc_grads(&r->model.params, e) || !record(r, e)) return false;
    r->opt = optim_new(&c->optim, &c->schedule, c->train.clip_grad_norm, &r->model.params, a, e);
    if (!r->opt) return false;
    /* step sizes are a hundredth of the weights: a tenth of the rate (algorithms 5.11) */
    optim_set_lr(r->opt, "qat.*", 0.1 * c->optim.learning_rate);
    lora_rates(&r->lora, r->opt, c->optim.learning_rate);
    optim_set_lr(r->opt, "prune.*", c->prune.score_learning_rate);
    if (!isnan(c->distill.projector_learning_rate))
        optim_set_lr(r->opt, "projector.*", c->distill.projector_learning_rate);
    if (r->has_val) {
        long B = c->eval.batch_size ? (long)c->eval.batch_size : r->B;
        bool against = r->has_teacher && c->eval.compare_teacher;
        r->ev = evaluator_new(&r->model, against ? &r->teacher : NULL, B, r->T, a, e);
    }
    if (r->has_teacher && c->distill.on_policy > 0) r->on_policy = on_policy_open(r, e);
    count_flops(r);
    return !e->code;
}

void run_free(Run *r)
{
    prefetch_close(r->prefetch);
    loader_close(r->loader);
    evaluator_free(r->ev);
    graph_free(r->g);
    model_close(&r->teacher);
    teacher_cache_close(r->cache);
    on_policy_close(r->on_policy);
    for (int i = 0; i < r->n_more; i++) model_close(&r->more[i]);
    model_close(&r->model);
    if (r->metrics) metrics_close(r->metrics);
}

char *memory_report(const Config *c, Arena *a, Err *e)
{
    Arena run = {.name = "run"};
    Run r;
    char *text = NULL;
    Config copy = *c;
    if (run_setup(&r, &copy, &run, e)) {
        char *table = graph_memory_table(r.g, &run, e);
        double free_bytes = (double)sysconf(_SC_AVPHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
        if (table)
            text = arena_printf(a, e,
                                "%s: ok\n  steps      %lld of %lld tokens\n  parameters %lld (%lld trained)\n"
                                "  run arena  %14.2f MB  (parameters, gradients, moments, data)\n"
                                "%s  free memory %13.2f MB",
                                c->path ? c->path : "config", (long long)r.st.n_steps,
                                (long long)r.step_tokens, (long long)params_count(&r.model.params, false),
                                (long long)params_count(&r.model.params, true), (double)run.used / 1e6, table,
                                free_bytes / 1e6);
    }
    run_free(&r);
    arena_free(&run);
    return text;
}
