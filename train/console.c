/* train/console.c: what a person sees of a run, and the run's folder: header, progress, samples, exports. */
#include "train/run_impl.h"
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static double gib(double bytes) { return bytes / 1073741824.0; }

void run_header(const Run *r)
{
    const Config *c = r->c;
    Arena tmp = {.name = "header"};
    Err e = {0};
    log_plain("| %-18s | %s", "run", r->dir);
    log_plain("| %-18s | %s, seed %lld", "recipe", c->run.recipe, (long long)c->run.seed);
    log_plain("| %-18s | %s, %lld parameters, %lld trained", "model", r->model.spec.family->arch,
              (long long)params_count(&r->model.params, false),
              (long long)params_count(&r->model.params, true));
    if (r->lora.n)
        log_plain("| %-18s | %d modules, r %ld, scale %.4g%s%s; base %s", "lora", r->lora.n, r->lora.r,
                  r->lora.item[0].scale, r->lora.dora ? ", DoRA" : "", r->lora.rslora ? ", rsLoRA" : "",
                  strcmp(c->lora.base_quant, "none") ? c->lora.base_quant : "as it is");
    if (r->has_teacher)
        log_plain(
            "| %-18s | %s, %lld parameters as %s (%.2f MB); T %g, alpha %g, ce_weight %g, %d feature terms",
            "teacher", r->teacher.path, (long long)params_count(&r->teacher.params, false),
            cache_storage(c, &tmp, &e), (double)model_held(&r->teacher) / 1e6, c->distill.temperature,
            c->distill.alpha, c->distill.ce_weight, r->distill.n);
    log_plain("| %-18s | cpu, %d threads, kernels %s", "device", threads_count(), r->k->name);
    if (r->peak_flops > 0)
        log_plain("| %-18s | %.1f GFLOP/s measured = 100 %% of MFU", "peak (GEMM)", r->peak_flops / 1e9);
    if (kernels_blas_warning()) log_warn("%s", kernels_blas_warning());
    log_plain("| %-18s | %lld samples of %ld, %lld tokens", "data", (long long)loader_samples(r->loader),
              r->T, (long long)loader_tokens(r->loader));
    log_plain("| %-18s | %lld x (%ld x %ld x %ld = %lld tokens)", "steps", (long long)r->st.n_steps, r->accum,
              r->B, r->T, (long long)r->step_tokens);
    log_plain("| %-18s | %s, lr %g, %s, weight decay %g, clip %g", "optimizer", c->optim.name,
              c->optim.learning_rate, c->schedule.name, c->optim.weight_decay, c->train.clip_grad_norm);
    log_plain("| %-18s | parameters, gradients and moments, inputs %.2f MB", "memory",
              (double)r->a->used / 1e6);
    char *table = graph_memory_table(r->g, &tmp, &e);
    if (table) log_plain("%s", table);
    arena_free(&tmp);
}

void run_progress(const Run *r, const StepInfo *s, double dt, bool line)
{
    char t[512];
    size_t n = 0;
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
#define ADD_TEXT(...) n += (size_t)snprintf(t + n, n < sizeof t ? sizeof t - n : 0, __VA_ARGS__)
    ADD_TEXT("step %lld/%lld %.1f%% | loss %.4f", (long long)r->st.step, (long long)r->st.n_steps,
             100 * (double)r->st.step / (double)r->st.n_steps, r->loss);
    for (int i = 0; i < r->n_part && r->n_part > 1 && n < sizeof t; i++) {
        const char *name = r->part[i].label + (strncmp(r->part[i].label, "loss/", 5) ? 0 : 5);
        ADD_TEXT("%s%s %.3f", i ? " " : " (", name, r->part[i].value);
    }
    if (r->n_part > 1 && n < sizeof t) ADD_TEXT(")");
    if (r->has_eval && n < sizeof t) ADD_TEXT(" | ppl %.2f", r->eval.perplexity);
    double tok = (double)r->step_tokens / dt, eta = dt * (double)(r->st.n_steps - r->st.step);
    if (n < sizeof t)
        ADD_TEXT(" | lr %.2e | gnorm %.2f | %.0f ms | %.1fk tok/s", s->lr, s->grad_norm, dt * 1e3, tok / 1e3);
    if (r->peak_flops > 0 && n < sizeof t)
        ADD_TEXT(" | MFU %.1f%%", 100 * r->flops_per_token * tok / r->peak_flops);
    if (n < sizeof t) ADD_TEXT(" | mem %.2fG", gib((double)u.ru_maxrss * 1024));
    if (r->prune.n && n < sizeof t) ADD_TEXT(" | sparsity %.3f", r->sparsity);
    if (n < sizeof t) ADD_TEXT(" | eta %dm%02ds", (int)(eta / 60), (int)fmod(eta, 60));
#undef ADD_TEXT
    if (strcmp(r->c->log.console, "quiet")) {
        if (line) log_progress(t);
    }
}

/* One continuation, or the answer to a question in the chat template's words. */
static bool sample_one(Run *r, Model *m, const char *prompt, const SampleOptions *o, Generation *out,
                       Arena *a, Err *e)
{
    const GenerateConfig *g = &r->c->eval.generate;
    const long n = (long)g->max_new_tokens;
    if (!g->chat) return generate(out, m, r->tk, prompt, n, o, a, e);
    TokenBuf ids = {0};
    int stop = -1;
    Err why = {0};
    if (chat_prompt(r->tk, r->c->data.chat_template, NULL, prompt, &ids, &stop, a, &why))
        return generate_ids(out, m, r->tk, ids.id, (long)ids.n, stop, n, o, a, e);
    return why.code == ERR_USAGE ? run_key_error(r, e, "eval.generate.chat", "%s", why.msg)
                                 : err_set(e, why.code, "%s", why.msg);
}

bool run_samples(Run *r, Model *m, const char **text, Err *e)
{
    const GenerateConfig *g = &r->c->eval.generate;
    if (!r->tk || !g->prompts.n) return true;
    SampleOptions o = {g->temperature,        g->top_k,         g->top_p, g->min_p,
                       g->repetition_penalty, (uint64_t)g->seed};
    Arena tmp = {.name = "samples"};
    char *all = arena_strdup(&tmp, "", e);
    for (int i = 0; all && i < g->prompts.n && !e->code; i++) {
        Generation out;
        if (!sample_one(r, m, g->prompts.v[i], &o, &out, &tmp, e)) break;
        all = arena_printf(&tmp, e, "%s%s%s\n", all, i ? "\n---\n" : "", out.text);
        if (!i && text) *text = arena_strdup(r->a, out.text, e);
    }
    if (!e->code && !text && r->c->log.samples) {
        const char *dir = path_join(&tmp, r->dir, "samples", e);
        const char *path = dir ? arena_printf(&tmp, e, "%s/step_%lld.txt", dir, (long long)r->st.step) : NULL;
        if (path && dir_make(dir, e)) file_write_atomic(path, all, strlen(all), e);
        metrics_write(r->metrics, "sample", r->st.step, NULL, 0);
    }
    arena_free(&tmp);
    return !e->code;
}

#define FIRST_FILE "config.resolved.yaml"

/* A folder holds something when it has an entry besides . and .. and what a run leaves that was killed while
 * it wrote its first file. */
static bool has_entries(const char *dir)
{
    static const char begun[] = FIRST_FILE ".tmp-"; /* file_write_atomic's name */
    DIR *d = opendir(dir);
    if (!d) return false;
    bool any = false;
    for (struct dirent *x; !any && (x = readdir(d));)
        any = strcmp(x->d_name, ".") && strcmp(x->d_name, "..") &&
              strncmp(x->d_name, begun, sizeof begun - 1) != 0;
    closedir(d);
    return any;
}

static bool write_text(Run *r, const char *name, const char *text, Err *e)
{
    const char *path = path_join(r->a, r->dir, name, e);
    return path && file_write_atomic(path, text, strlen(text), e);
}

/* How an earlier start of this run ended says nothing about this one. */
static bool marks_clear(Run *r, Err *e)
{
    static const char *const mark[] = {"DONE", "FAILED"};
    for (int i = 0; i < 2; i++) {
        const char *path = path_join(r->a, r->dir, mark[i], e);
        if (path && file_exists(path) && unlink(path))
            return err_set(e, ERR_FAIL, "%s: cannot be removed", path);
    }
    return !e->code;
}

bool run_folder(Run *r, const TrainOptions *o, bool resuming, Err *e)
{
    Config *c = r->c;
    if (!resuming && !o->overwrite && !c->run.overwrite && has_entries(r->dir) &&
        strcmp(o->resume ? o->resume : c->run.resume, "auto"))
        return err_set(e, ERR_USAGE, "%s is not empty: give another run.output_dir, --resume, or --overwrite",
                       r->dir);
    if (!resuming && has_entries(r->dir) && !o->overwrite && !c->run.overwrite) {
        const char *m = path_join(r->a, r->dir, FIRST_FILE, e);
        if (m && !file_exists(m))
            return err_set(e, ERR_USAGE,
                           "%s is not empty and holds no run: give another run.output_dir, or --overwrite",
                           r->dir);
    }
    if (!dir_make(r->dir, e) || !marks_clear(r, e) || (!resuming && !checkpoint_clear(r->dir, e)))
        return false;
    char *yaml = config_resolved(c->doc, config_section(), c, r->a, e);
    if (!yaml) return false;
    r->st.run_yaml = yaml;
    write_text(r, FIRST_FILE, yaml, e);
    if (c->path) {
        size_t bytes;
        char *given = file_read(r->a, c->path, &bytes, e);
        if (given) write_text(r, "config.yaml", given, e);
    }
    if (o->n_override) {
        char *all = arena_strdup(r->a, "", e);
        for (int i = 0; all && i < o->n_override; i++)
            all = arena_printf(r->a, e, "%s%s\n", all, o->override[i]);
        if (all) write_text(r, "overrides.txt", all, e);
    }
    char *env = arena_printf(
        r->a, e,
        "{\"cpu\": \"%s\", \"kernels\": \"%s\", \"gemm\": \"%s\", \"threads\": %d, \"compiler\": \"%s\"}\n",
        cpu_features(), r->k->name, kernels_blas_name(), threads_count(), __VERSION__);
    if (env) write_text(r, "env.json", env, e);
    const char *log = path_join(r->a, r->dir, "run.log", e);
    return log && log_open(log, resuming, e);
}

static DType export_type(const char *name)
{
    return !strcmp(name, "bfloat16") ? DT_BF16 : !strcmp(name, "float16") ? DT_F16 : DT_F32;
}

/* The sparsity that is reported is the file's. */
static void count_zeros(Run *r, const char *path, const OutModel *effective, Err *e)
{
    PruneCount n;
    if (!prune_verify(&r->prune, path, effective, &n, e)) return;
    r->sparsity = (double)n.zeros / (double)n.entries;
    log_info("%s: %lld of %lld entries of %d masked tensors are zero, sparsity %.6f", path,
             (long long)n.zeros, (long long)n.entries, r->prune.n, r->sparsity);
    const Metric m[3] = {
        {"sparsity", r->sparsity}, {"zeros", (double)n.zeros}, {"entries", (double)n.entries}};
    metrics_write(r->metrics, "prune", r->st.step, m, 3);
}

bool run_export(Run *r, Err *e)
{
    for (int i = 0; i < r->c->export.n && !e->code; i++) {
        const ExportConfig *x = &r->c->export.v[i];
        const char *dir = path_join(r->a, r->dir, "export", e);
        const char *path = !x->path ? NULL : x->path[0] == '/' ? x->path : path_join(r->a, dir, x->path, e);
        if (!path) return err_set(e, ERR_USAGE, "export[%d]: path is required", i);
        bool rounded;
        if (!dir_make(dir, e) || !run_export_rounded(r, i, path, &rounded, e)) return false;
        if (rounded) continue;
        OutModel m;
        const bool peft = !strcmp(x->format, "peft");
        if (peft || !strcmp(x->format, "adapter")) {
            if (!r->lora.n)
                return err_set(e, ERR_USAGE, "export[%d]: %s needs lora.enabled: true", i, x->format);
            if (dir_make(dir, e) &&
                (peft ? lora_write_peft(&r->lora, path, e) : lora_write_h5(&r->lora, path, e)))
                log_info("exported %s (%s)", path, x->format);
            continue;
        }
        if (!dir_make(dir, e) || !model_out(&r->model, &m, export_type(x->dtype), r->a, e)) return false;
        m.run_yaml = r->st.run_yaml;
        m.step = r->st.step;
        const OutModel effective = m;
        const bool hdf5 = !strcmp(x->format, "hdf5"), packed = hdf5 || !strcmp(x->format, "safetensors");
        if (packed && r->qat.n && !qat_pack(&r->qat, &r->model, &m, r->a, e)) return false;
        if (hdf5 && r->prune.n && !prune_pack(&r->prune, &m, r->a, e)) return false;
        if (hdf5) formats_write_h5(path, &m, e);
        else if (!strcmp(x->format, "hf")) formats_write_hf(path, &m, (int64_t)(x->shard_gb * 1e9), e);
        else if (!strcmp(x->format, "llama2c")) formats_write_llama2c(path, &m, e);
        else formats_write_safetensors(path, &m, e);
        if (!e->code && m.n_group && r->qat.n) packed_verify(path, &effective, e);
        if (!e->code && r->prune.n) count_zeros(r, path, &effective, e);
        if (!e->code) log_info("exported %s (%s)", path, x->format);
    }
    return !e->code;
}
