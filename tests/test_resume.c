/* tests/test_resume.c: a run that is stopped, killed, damaged or out of disk and then goes on ends with the
 * bits of a run that nothing disturbed: parameters, moments, counters, data order, metrics. */
#define _GNU_SOURCE
#include "tests/pare_impl.h"
#include <dirent.h>
#include <sys/ptrace.h>

#define LAST "run/checkpoints/step_00000012.h5"

static const char *const no_more[] = {NULL};

/* train c.yaml in dir with these overrides (and --resume when again). */
static Pare train(const char *dir, const char *const *more)
{
    const char *args[32] = {"train", "c.yaml"};
    for (int i = 0; more[i]; i++) args[i + 2] = more[i];
    return pare_run(&(PareOptions){.dir = dir, .args = args});
}

static char *in(const char *dir, const char *name) { return text_of("%s/%s", dir, name); }

static void copy(const char *from, const char *to)
{
    size_t n;
    char *s = get_file(from, &n);
    ASSERT_MSG(s != NULL, "%s is missing", from);
    put_file(to, s, n);
    free(s);
}

/* Tensors, moments, counters of the last checkpoint, and the events of training and evaluation. */
static void same_run(const char *a, const char *b)
{
    same_state(in(a, LAST), in(b, LAST));
    char *ma = in(a, "run/metrics.jsonl"), *mb = in(b, "run/metrics.jsonl");
    ASSERT_STR(events(mb, "train"), events(ma, "train"));
    ASSERT_STR(events(mb, "eval"), events(ma, "eval"));
}

static int checkpoints(const char *dir, bool temporary)
{
    DIR *d = opendir(in(dir, "run/checkpoints"));
    int n = 0;
    if (!d) return 0;
    for (struct dirent *x; (x = readdir(d));) {
        bool tmp = strstr(x->d_name, ".tmp") != NULL;
        if (tmp == temporary && (tmp || strstr(x->d_name, ".h5"))) n++;
    }
    closedir(d);
    return n;
}

/* ---- N, checkpoint, resume, M ------------------------------------------------------------------------ */

static void from_each_checkpoint(const char *const *more)
{
    char *a = tiny_dir("a");
    const char *args[32];
    int n = 0;
    for (; more[n]; n++) args[n] = more[n];
    args[n] = "checkpoint.keep_last=9";
    args[n + 1] = NULL;
    Pare p = train(a, args);
    ASSERT_RAN(p, 0);
    ASSERT_EQ(checkpoints(a, false), 4);
    for (int step = 3; step < 12; step += 3) {
        char *b = tiny_dir(text_of("b%d", step)), *name = text_of("run/checkpoints/step_%08d.h5", step);
        ASSERT(!mkdir(in(b, "run"), 0700) && !mkdir(in(b, "run/checkpoints"), 0700));
        copy(in(a, name), in(b, name));
        copy(in(a, "run/metrics.jsonl"), in(b, "run/metrics.jsonl"));
        args[n + 1] = step == 6 ? "device.threads=2" : NULL;
        args[n + 2] = NULL;
        p = train(b, args);
        ASSERT_RAN(p, 0);
        ASSERT_CONTAINS(p.err, text_of("resuming at step %d from", step));
        same_run(a, b);
        ASSERT(exists(in(b, "run/metrics.jsonl.bak")));
        args[n + 1] = NULL;
    }
    /* the same configuration makes the same file, byte for byte, wherever it ran */
    size_t na, nb;
    char *x = get_file(in(a, LAST), &na), *y = get_file(in(tiny_dir("b3"), LAST), &nb);
    ASSERT_EQ(na, nb);
    ASSERT_BYTES(x, y, na);
}

TEST(resume, equals_unbroken)
{
    from_each_checkpoint((const char *const[]){"model.dropout=0.1", "train.gradient_accumulation_steps=2",
                                               "train.clip_grad_norm=0.5", NULL});
}

TEST(resume, equals_unbroken_sgd)
{
    from_each_checkpoint((const char *const[]){"optim.name=sgd", "optim.momentum=0.9", "schedule.name=wsd",
                                               "data.shuffle=false", NULL});
}

/* A projector is part of the state although it is no part of the model. */
TEST(resume, equals_unbroken_distillation)
{
    const char *teacher = text_of("teacher.path=%s", repo("tests/data/hf-tiny-llama"));
    from_each_checkpoint((const char *const[]){
        "run.recipe=distill", teacher, "model.init.vocab_size=97", "distill.temperature=2",
        "distill.features=[{student: layers.1.out, teacher: layers.1.out, projector: linear}]", NULL});
}

/* One thread and two: the same bits, unbroken. */
TEST(resume, threads_do_not_matter)
{
    char *a = tiny_dir("a"), *b = tiny_dir("b");
    Pare p = train(a, (const char *const[]){"device.threads=1", NULL});
    ASSERT_RAN(p, 0);
    p = train(b, (const char *const[]){"device.threads=2", NULL});
    ASSERT_RAN(p, 0);
    same_run(a, b);
}

/* ---- kill -9 ----------------------------------------------------------------------------------------- */

/* Killed at random moments until it gets through; each start begins on the other number of threads. */
TEST(resume, killed_at_random_moments)
{
    char *a = tiny_dir("a"), *b = tiny_dir("b");
    const char *args[] = {"train.max_steps=24", "checkpoint.every_steps=1", "eval.every_steps=5", NULL, NULL};
    Pare p = train(a, args);
    ASSERT_RAN(p, 0);
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    uint32_t seed = (uint32_t)t.tv_nsec;
    int kills = 0;
    fprintf(stderr, "seed %u\n", seed);
    for (int start = 0; !exists(in(b, "run/DONE")); start++) {
        const char *go[] = {"train",
                            "c.yaml",
                            "--resume",
                            args[0],
                            args[1],
                            args[2],
                            start % 2 ? "device.threads=2" : "device.threads=1",
                            NULL};
        p = pare_start(&(PareOptions){.dir = b, .args = go});
        seed = seed * 1664525u + 1013904223u;
        /* the first are surely too early to get through, the last surely late enough */
        nap((start < 6 ? 0.02 : 0.05 * start) + 0.1 * (double)(seed >> 8) / (double)(1 << 24));
        kill(p.pid, SIGKILL);
        pare_wait(&p);
        ASSERT_MSG(p.signal == SIGKILL || p.rc == 0, "start %d: exit status %d\n%s", start, p.rc, p.err);
        kills += p.signal == SIGKILL;
        ASSERT(start < 60);
    }
    fprintf(stderr, "%d kills\n", kills);
    ASSERT(kills > 0);
    same_state(in(a, "run/checkpoints/step_00000024.h5"), in(b, "run/checkpoints/step_00000024.h5"));
    ASSERT_STR(events(in(b, "run/metrics.jsonl"), "train"), events(in(a, "run/metrics.jsonl"), "train"));
    ASSERT_STR(events(in(b, "run/metrics.jsonl"), "eval"), events(in(a, "run/metrics.jsonl"), "eval"));
    ASSERT_EQ(checkpoints(b, true), 0);
}

typedef struct Saver {
    Arena a;
    Err e;
    Model m;
    OptimConfig oc;
    ScheduleConfig sc;
    CheckpointConfig cc;
    Optim *o;
    TrainState s;
} Saver;

static void saver_open(Saver *v)
{
    *v = (Saver){.a = {.name = "saver"},
                 .oc = {.name = "adamw"},
                 .cc = {.keep_last = 2, .save_optimizer = true},
                 .s = {.seed = 3, .data_hash = "hash", .best = NAN, .val = NAN}};
    ASSERT(model_open(&v->m, "tests/data/hf-tiny-qwen3", kernels_ref_f32(), &v->a, &v->e));
    v->o = optim_new(&v->oc, &v->sc, 0, &v->m.params, &v->a, &v->e);
    ASSERT_OK(v->e);
}

/* The whole state is a function of the step, so that a mixture is seen. */
static void saver_set(Saver *v, int64_t step)
{
    for (int i = 0; i < v->m.params.n; i++) {
        Param *p = v->m.params.p[i];
        for (long j = 0; j < t_numel(&p->w); j++) {
            ((float *)p->w.data)[j] = (float)(step * 1000 + i);
            if (p->m) ((float *)p->m)[j] = (float)(step * 1000 + 500 + i);
            if (p->v) ((float *)p->v)[j] = (float)(step * 1000 + 250 + i);
        }
    }
    v->s.step = step;
    v->s.samples_seen = 8 * step;
    optim_set_updates(v->o, step);
}

static bool saver_save(Saver *v, const char *dir)
{
    return checkpoint_save(dir, &v->cc, &v->m, v->o, &v->s, &v->a, &v->e);
}

static bool all_equal(const float *v, long n, int64_t want)
{
    for (long i = 0; i < n; i++)
        if (v[i] < (float)want || v[i] > (float)want) return false;
    return true;
}

/* Loads what resuming would find; it must be one of the two states, all of it. */
static int64_t saver_check(Saver *v, const char *dir)
{
    Err e = {0};
    Arena a = {.name = "check"};
    const char *path = checkpoint_find(dir, &a, &e);
    ASSERT_OK(e);
    ASSERT(path != NULL);
    saver_set(v, 0);
    ASSERT_MSG(checkpoint_load(path, &v->m, v->o, &v->s, &a, &e), "%s", e.msg);
    int64_t step = v->s.step;
    ASSERT_EQ(v->s.samples_seen, 8 * step);
    ASSERT_EQ(optim_updates(v->o), step);
    for (int i = 0; i < v->m.params.n; i++) {
        const Param *p = v->m.params.p[i];
        bool whole = all_equal(p->w.data, t_numel(&p->w), step * 1000 + i);
        if (p->m) whole = whole && all_equal(p->m, t_numel(&p->w), step * 1000 + 500 + i);
        if (p->v) whole = whole && all_equal(p->v, t_numel(&p->w), step * 1000 + 250 + i);
        ASSERT_MSG(whole, "%s of %s is not that of step %lld", p->name, path, (long long)step);
    }
    v->s.data_hash = "hash"; /* the loaded one lies in the arena */
    v->s.run_yaml = v->s.tokenizer_path = NULL;
    arena_free(&a);
    return step;
}

static void empty_dir(const char *dir)
{
    DIR *d = opendir(dir);
    for (struct dirent *x; d && (x = readdir(d));)
        if (x->d_name[0] != '.') unlink(in(dir, x->d_name));
    if (d) closedir(d);
}

/* Saves step 2 in another process and kills it at its n-th stop at a system call. False: it got through. */
static bool kill_at_call(Saver *v, const char *dir, long n)
{
    pid_t pid = fork();
    ASSERT(pid >= 0);
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL)) _exit(3);
        raise(SIGSTOP);
        saver_set(v, 2);
        _exit(saver_save(v, dir) ? 0 : 1);
    }
    int status;
    for (long i = -1; i < n; i++) {
        ASSERT_EQ(waitpid(pid, &status, 0), pid);
        if (WIFEXITED(status)) {
            if (WEXITSTATUS(status) == 3) SKIP("this machine does not let a process trace its child");
            ASSERT_EQ(WEXITSTATUS(status), 0);
            return false;
        }
        ASSERT(WIFSTOPPED(status));
        if (ptrace(PTRACE_SYSCALL, pid, NULL, NULL)) test_fail(__FILE__, __LINE__, "%s", strerror(errno));
    }
    kill(pid, SIGKILL);
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* A save is cut off before and after each of its system calls: the old state or the new one is there, whole.
 * Nothing of the dead writer is left after the next save. */
TEST(resume, killed_inside_a_save)
{
    Saver v;
    saver_open(&v);
    char *dir = in_dir("run"), *points = in_dir("run/checkpoints");
    long old = 0, new = 0;
    /* The list is long: a prime stride until a save gets through, then back, and call by call where the
     * renames are. */
    for (long n = 0, stride = 41;; n += stride) {
        empty_dir(points);
        saver_set(&v, 1);
        ASSERT(saver_save(&v, dir));
        const bool through = !kill_at_call(&v, dir, n);
        int64_t step = saver_check(&v, dir);
        ASSERT(step == 1 || step == 2);
        old += step == 1;
        new += step == 2;
        ASSERT(!through || step == 2);
        if (through && stride == 1) break;
        if (through) n -= 3 * stride, stride = 1;
    }
    fprintf(stderr, "%ld old, %ld new\n", old, new);
    ASSERT(old > 10 && new > 2);
    put_text(in_dir("run/checkpoints/step_00000002.h5.tmp.1"), "dead");
    put_text(in_dir("run/checkpoints/latest.tmp-1-0"), "dead");
    put_text(in_dir("run/checkpoints/mine.tmp"), "not ours");
    saver_set(&v, 3);
    ASSERT(saver_save(&v, dir));
    ASSERT(!exists(in_dir("run/checkpoints/step_00000002.h5.tmp.1")));
    ASSERT(!exists(in_dir("run/checkpoints/latest.tmp-1-0")));
    ASSERT(exists(in_dir("run/checkpoints/mine.tmp")));
    arena_free(&v.a);
}

/* Every size at which the disk may be full: the old state stays, the message names file and reason. */
TEST(resume, disk_full_inside_a_save)
{
    Saver v;
    saver_open(&v);
    char *dir = in_dir("run");
    signal(SIGXFSZ, SIG_IGN);
    saver_set(&v, 1);
    ASSERT(saver_save(&v, dir));
    struct stat st;
    ASSERT_EQ(stat(in_dir("run/checkpoints/step_00000001.h5"), &st), 0);
    int failed = 0;
    for (long limit = 1; limit < 2 * st.st_size; limit += st.st_size / 9) {
        pid_t pid = fork();
        int status;
        if (pid == 0) {
            setrlimit(RLIMIT_FSIZE, &(struct rlimit){(rlim_t)limit, (rlim_t)limit});
            saver_set(&v, 2);
            if (saver_save(&v, dir)) _exit(0);
            bool good = strstr(v.e.msg, "step_00000002.h5") && strstr(v.e.msg, "checkpoint at step 2") &&
                        strstr(v.e.msg, "too large") && v.e.code == ERR_FAIL;
            if (!good) fprintf(stderr, "limit %ld: %s\n", limit, v.e.msg);
            _exit(good ? 1 : 2);
        }
        ASSERT_EQ(waitpid(pid, &status, 0), pid);
        ASSERT_MSG(WIFEXITED(status) && WEXITSTATUS(status) < 2, "limit %ld: status %x", limit,
                   (unsigned)status);
        failed += WEXITSTATUS(status) == 1;
        ASSERT_EQ(saver_check(&v, dir), WEXITSTATUS(status) == 1 ? 1 : 2);
        ASSERT_EQ(exists(in_dir("run/checkpoints/step_00000002.h5")), WEXITSTATUS(status) == 0);
        unlink(in_dir("run/checkpoints/step_00000002.h5"));
        put_text(in_dir("run/checkpoints/latest"), "step_00000001.h5\n");
        DIR *d = opendir(in_dir("run/checkpoints"));
        for (struct dirent *x; (x = readdir(d));)
            ASSERT_MSG(!strstr(x->d_name, ".tmp"), "%s was left by a write that failed", x->d_name);
        closedir(d);
    }
    ASSERT(failed > 6);
    arena_free(&v.a);
}

/* The same through the program: exit 1, the message, the last good state, and a restart that finishes. */
TEST(resume, disk_full_in_a_run)
{
    char *a = tiny_dir("a"), *b = tiny_dir("b");
    Pare p = train(a, no_more);
    ASSERT_RAN(p, 0);
    struct stat st;
    ASSERT_EQ(stat(in(a, LAST), &st), 0);
    p = PARE(.dir = b, ARGS("train", "c.yaml", "train.max_steps=3"));
    ASSERT_RAN(p, 0);
    p = PARE(.dir = b, .file_limit = (long)st.st_size / 2, ARGS("train", "c.yaml"));
    ASSERT_RAN(p, 1);
    ASSERT_CONTAINS(p.err, "pare: checkpoint at step 6");
    ASSERT_CONTAINS(p.err, "run/checkpoints/step_00000006.h5");
    ASSERT_CONTAINS(p.err, "File too large");
    ASSERT_CONTAINS(get_file(in(b, "run/FAILED"), NULL), "checkpoint at step 6");
    ASSERT_EQ(checkpoints(b, false), 1);
    ASSERT_EQ(checkpoints(b, true), 0);
    p = train(b, no_more);
    ASSERT_RAN(p, 0);
    ASSERT(exists(in(b, "run/DONE")) && !exists(in(b, "run/FAILED")));
}

/* ---- damage ------------------------------------------------------------------------------------------ */

static void damage(const char *path, int kind)
{
    size_t n;
    char *s = get_file(path, &n);
    if (kind == 0) n = n / 2;           /* truncated */
    else if (kind == 1) s[n / 2] ^= 16; /* a bit in the payload */
    else if (kind == 2) s[40] ^= 1;     /* a bit in the envelope */
    else if (kind == 3) n = 0;          /* empty */
    else memset(s, 0, n < 8192 ? n : 8192);
    put_file(path, s, n);
    free(s);
}

TEST(resume, damaged_newest_is_skipped)
{
    char *a = tiny_dir("a");
    Pare p = train(a, no_more);
    ASSERT_RAN(p, 0);
    for (int kind = 0; kind < 5; kind++) {
        char *b = tiny_dir(text_of("b%d", kind));
        ASSERT(!mkdir(in(b, "run"), 0700) && !mkdir(in(b, "run/checkpoints"), 0700));
        static const char *const file[] = {LAST, "run/checkpoints/step_00000009.h5", "run/metrics.jsonl"};
        for (int i = 0; i < 3; i++) copy(in(a, file[i]), in(b, file[i]));
        damage(in(b, LAST), kind);
        p = train(b, no_more);
        ASSERT_RAN(p, 0);
        ASSERT_CONTAINS(p.err, "skipping a damaged checkpoint");
        ASSERT_CONTAINS(p.err, "run/checkpoints/step_00000012.h5");
        ASSERT_CONTAINS(p.err, "resuming at step 9");
        same_run(a, b);
    }
}

/* Asked for by name, or nothing whole left: exit 3, and every file is still there. */
TEST(resume, damage_without_a_way_out)
{
    char *b = tiny_dir("b");
    Pare p = train(b, no_more);
    ASSERT_RAN(p, 0);
    damage(in(b, LAST), 1);
    char *before = get_file(in(b, "run/metrics.jsonl"), NULL);
    p = PARE(.dir = b, ARGS("train", "c.yaml", "--resume=" LAST));
    ASSERT_RAN(p, 3);
    ASSERT_CONTAINS(p.err, LAST);
    damage(in(b, "run/checkpoints/step_00000009.h5"), 0);
    p = train(b, no_more);
    ASSERT_RAN(p, 3);
    ASSERT_CONTAINS(p.err, "none of the 2 checkpoints is whole");
    ASSERT_CONTAINS(p.err, "--overwrite");
    ASSERT_EQ(checkpoints(b, false), 2);
    ASSERT_STR(get_file(in(b, "run/metrics.jsonl"), NULL), before);
    p = PARE(.dir = b, ARGS("train", "c.yaml", "--overwrite"));
    ASSERT_RAN(p, 0);
    ASSERT_EQ(checkpoints(b, false), 2);
}

/* Resuming refuses what would not be the same run, by name, and changes nothing. */
TEST(resume, refuses_another_run)
{
    static const struct {
        const char *change, *says;
        int rc;
    } bad[] = {
        {"run.seed=4", "run.seed is 4, the checkpoint's run had 3", 2},
        {"model.init.hidden_size=32", "does not have the shape", 2},
        {"data.train[0].split='train[:50%]'", "was trained on other data", 2},
        {"run.resume=nowhere.h5", "nowhere.h5", 1},
    };
    char *b = tiny_dir("b");
    Pare p = PARE(.dir = b, ARGS("train", "c.yaml", "train.max_steps=6"));
    ASSERT_RAN(p, 0);
    size_t n, m;
    char *before = get_file(in(b, "run/checkpoints/step_00000006.h5"), &n);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        p = PARE(.dir = b, ARGS("train", "c.yaml", bad[i].change));
        ASSERT_RAN(p, bad[i].rc);
        ASSERT_CONTAINS(p.err, bad[i].says);
        ASSERT_EQ(checkpoints(b, false), 2);
        char *after = get_file(in(b, "run/checkpoints/step_00000006.h5"), &m);
        ASSERT(n == m && !memcmp(before, after, n));
        ASSERT(exists(in(b, "run/DONE")));
    }
}

/* ---- generations ------------------------------------------------------------------------------------- */

TEST(resume, generations)
{
    char *b = tiny_dir("b");
    Pare p = PARE(.dir = b, ARGS("train", "c.yaml", "checkpoint.every_steps=1", "eval.every_steps=100"));
    ASSERT_RAN(p, 0);
    ASSERT_EQ(checkpoints(b, false), 2);
    ASSERT(exists(in(b, LAST)) && exists(in(b, "run/checkpoints/step_00000011.h5")));
    ASSERT_STR(get_file(in(b, "run/checkpoints/latest"), NULL), "step_00000012.h5\n");
    /* starting over takes the old run's states away: they would be found as newer than its own */
    p = PARE(.dir = b, ARGS("train", "c.yaml", "--overwrite", "train.max_steps=4", "checkpoint.keep_every=2",
                            "checkpoint.keep_last=1", "checkpoint.every_steps=1"));
    ASSERT_RAN(p, 0);
    ASSERT_EQ(checkpoints(b, false), 2);
    ASSERT(exists(in(b, "run/checkpoints/step_00000002.h5")));
    ASSERT_STR(get_file(in(b, "run/checkpoints/latest"), NULL), "step_00000004.h5\n");
    p = PARE(.dir = b, ARGS("train", "c.yaml", "--resume", "train.max_steps=5"));
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.err, "resuming at step 4");
}

/* The best is the checkpoint whose own step was evaluated so, and it outlives the generations. */
TEST(resume, best_is_kept)
{
    char *b = tiny_dir("b");
    Pare p = PARE(.dir = b, ARGS("train", "c.yaml", "checkpoint.every_steps=2", "eval.every_steps=2",
                                 "checkpoint.keep_last=1", "train.max_steps=6"));
    ASSERT_RAN(p, 0);
    p = PARE(.dir = b, ARGS("train", "c.yaml", "checkpoint.every_steps=2", "eval.every_steps=2",
                            "checkpoint.keep_last=1", "optim.learning_rate=1", "train.clip_grad_norm=0"));
    ASSERT_RAN(p, 0);
    char *all = events(in(b, "run/metrics.jsonl"), "eval");
    double least = INFINITY;
    int best = 0;
    for (char *at = all, *line; (line = next_line(&at));) {
        json_t *o = json_line(line);
        if (field(o, "loss") >= least) continue;
        least = field(o, "loss");
        best = (int)field(o, "step");
    }
    int step;
    double value;
    ASSERT_EQ(sscanf(get_file(in(b, "run/checkpoints/best"), NULL), "step_%d.h5 %lf", &step, &value), 2);
    ASSERT_EQ(step, best);
    ASSERT_CLOSE(value, least, 1e-8, 0);
    ASSERT(best < 12);
    ASSERT(exists(in(b, text_of("run/checkpoints/step_%08d.h5", best))));
    ASSERT_EQ(checkpoints(b, false), 2);
}

/* Killed while it wrote the first file of its folder: there is nothing yet that could be overwritten. */
TEST(resume, killed_in_its_first_file)
{
    char *b = tiny_dir("b");
    ASSERT_EQ(mkdir(in(b, "run"), 0700), 0);
    put_text(in(b, "run/config.resolved.yaml.tmp-77-0"), "version");
    Pare p = PARE(.dir = b, ARGS("train", "c.yaml", "--resume", "train.max_steps=1"));
    ASSERT_RAN(p, 0);
    char *other = tiny_dir("other");
    ASSERT_EQ(mkdir(in(other, "run"), 0700), 0);
    put_text(in(other, "run/notes.txt"), "mine");
    p = PARE(.dir = other, ARGS("train", "c.yaml", "--resume", "train.max_steps=1"));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "holds no run");
}

/* Ended between its last state and the mark that it is done: the evaluation stands once. */
TEST(resume, finished_run_repeats_no_event)
{
    char *b = tiny_dir("b"), *metrics = in(b, "run/metrics.jsonl");
    Pare p = PARE(.dir = b, ARGS("train", "c.yaml", "train.max_steps=6"));
    ASSERT_RAN(p, 0);
    char *once = events(metrics, "eval");
    ASSERT_EQ(unlink(in(b, "run/DONE")), 0);
    p = PARE(.dir = b, ARGS("train", "c.yaml", "train.max_steps=6"));
    ASSERT_RAN(p, 0);
    ASSERT(exists(in(b, "run/DONE")));
    ASSERT_STR(events(metrics, "eval"), once);
}

/* A run that goes back: what it saves from there on is found, not the later states of the first try. */
TEST(resume, from_an_earlier_checkpoint)
{
    char *a = tiny_dir("a");
    Pare p = train(a, (const char *const[]){"checkpoint.keep_last=9", NULL});
    ASSERT_RAN(p, 0);
    p = PARE(.dir = a, ARGS("train", "c.yaml", "--resume=run/checkpoints/step_00000003.h5",
                            "train.max_steps=6", "checkpoint.keep_last=9"));
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.err, "resuming at step 3");
    ASSERT_STR(get_file(in(a, "run/checkpoints/latest"), NULL), "step_00000006.h5\n");
    ASSERT_EQ(checkpoints(a, false), 4);
    p = PARE(.dir = a, ARGS("train", "c.yaml", "train.max_steps=7", "checkpoint.keep_last=2"));
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.err, "resuming at step 6");
    ASSERT(exists(in(a, LAST)));
    ASSERT(!exists(in(a, "run/checkpoints/step_00000003.h5")));
}

/* ---- signals ----------------------------------------------------------------------------------------- */

/* Waits until the run has logged its first step. */
static bool running(const char *dir)
{
    for (int i = 0; i < 2000; i++, nap(0.005)) {
        char *s = get_file(in(dir, "run/metrics.jsonl"), NULL);
        bool yes = s && strstr(s, "\"train\"");
        free(s);
        if (yes) return true;
    }
    return false;
}

static void stopped_by(int sig, int rc)
{
    char *a = tiny_dir(text_of("a%d", sig)), *b = tiny_dir(text_of("b%d", sig));
    const char *steps = "train.max_steps=100000", *rare = "checkpoint.every_steps=0",
               *flat = "schedule.name=constant", *none = "eval.every_steps=1000000";
    Pare p = START(.dir = b, ARGS("train", "c.yaml", "--json", steps, rare, flat, none));
    ASSERT(running(b));
    kill(p.pid, sig);
    pare_wait(&p);
    ASSERT_RAN(p, rc);
    json_t *o = one_object(p.out);
    ASSERT_STR(json_string_value(json_object_get(o, "status")), "interrupted");
    int step = (int)field(o, "step");
    ASSERT(step > 0);
    ASSERT_EQ(checkpoints(b, false), 1);
    ASSERT(!exists(in(b, "run/DONE")) && !exists(in(b, "run/FAILED")));
    /* goes on to two steps more, as a run that nothing stopped */
    const char *end = text_of("train.max_steps=%d", step + 2);
    p = PARE(.dir = b, ARGS("train", "c.yaml", end, rare, flat, none));
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.err, text_of("resuming at step %d ", step));
    p = PARE(.dir = a, ARGS("train", "c.yaml", end, rare, flat, none));
    ASSERT_RAN(p, 0);
    char *last = text_of("run/checkpoints/step_%08d.h5", step + 2);
    same_state(in(a, last), in(b, last));
    ASSERT_STR(events(in(b, "run/metrics.jsonl"), "train"), events(in(a, "run/metrics.jsonl"), "train"));
}

TEST(resume, interrupt) { stopped_by(SIGINT, 130); }
TEST(resume, terminate) { stopped_by(SIGTERM, 143); }

TEST(resume, signal_to_save_goes_on)
{
    char *b = tiny_dir("b");
    Pare p = START(.dir = b, ARGS("train", "c.yaml", "train.max_steps=100000", "checkpoint.every_steps=0",
                                  "eval.every_steps=1000000"));
    ASSERT(running(b));
    kill(p.pid, SIGUSR1);
    for (int i = 0; i < 2000 && !exists(in(b, "run/checkpoints/latest")); i++) nap(0.005);
    ASSERT(exists(in(b, "run/checkpoints/latest")));
    int status;
    ASSERT_EQ(waitpid(p.pid, &status, WNOHANG), 0);
    kill(p.pid, SIGINT);
    pare_wait(&p);
    ASSERT_RAN(p, 130);
    ASSERT_EQ(checkpoints(b, false), 2);
}

/* A step that had an evaluation coming when the signal came gets it when the run goes on. */
TEST(resume, evaluation_a_signal_left_out)
{
    char *a = tiny_dir("a"), *b = tiny_dir("b");
    const char *every = "eval.every_steps=1";
    Pare p = PARE(.dir = a, ARGS("train", "c.yaml", every));
    ASSERT_RAN(p, 0);
    for (int i = 0; i < 3; i++) {
        /* the flag set before the loop: one step, no evaluation, a checkpoint */
        pid_t pid = fork();
        if (pid == 0) {
            Arena run = {.name = "run"};
            Err e = {0};
            RunResult r;
            if (chdir(b)) _exit(9);
            Config *c = config_load(&run, "c.yaml", 1, (char *[]){(char *)(uintptr_t)every}, NULL, &e);
            train_signal = 2;
            bool ok = c && train_run(c, &(TrainOptions){0}, &r, &run, &e);
            if (!ok) fprintf(stderr, "%s\n", e.msg);
            _exit(ok && !strcmp(r.status, "interrupted") ? 0 : 1);
        }
        int status;
        ASSERT_EQ(waitpid(pid, &status, 0), pid);
        ASSERT_EQ(status, 0);
    }
    p = PARE(.dir = b, ARGS("train", "c.yaml", every));
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.err, "resuming at step 3");
    same_run(a, b);
}

/* ---- metrics.jsonl ----------------------------------------------------------------------------------- */

/* A line cut off by the kill and lines behind the resumed step go; the old file stays beside. */
TEST(resume, metrics_are_cut_to_the_step)
{
    char *a = tiny_dir("a"), *b = tiny_dir("b");
    Pare p = train(a, no_more);
    ASSERT_RAN(p, 0);
    p = train(b, no_more);
    ASSERT_RAN(p, 0);
    ASSERT_EQ(unlink(in(b, LAST)), 0);
    FILE *f = fopen(in(b, "run/metrics.jsonl"), "a");
    ASSERT(f != NULL);
    fprintf(f, "{\"t\": 1.0, \"event\": \"train\", \"st");
    fclose(f);
    p = train(b, no_more);
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.err, "resuming at step 9");
    same_run(a, b);
    ASSERT_CONTAINS(get_file(in(b, "run/metrics.jsonl.bak"), NULL), "\"st");
    /* --resume without any checkpoint starts at step 0 with an empty file */
    char *c = tiny_dir("c");
    ASSERT(!mkdir(in(c, "run"), 0700));
    put_text(in(c, "run/config.resolved.yaml"), "");
    put_text(in(c, "run/metrics.jsonl"), "{\"event\": \"old\", \"step\": 1}\n");
    p = PARE(.dir = c, ARGS("train", "c.yaml", "--resume"));
    ASSERT_RAN(p, 0);
    ASSERT(!strstr(get_file(in(c, "run/metrics.jsonl"), NULL), "old"));
    same_run(a, c);
}
