/* data/prefetch.c: batches made by threads before the step asks for them.
 *
 * A ring of DEPTH slots; batch k of a run of batches lies in slot k mod DEPTH. A worker takes the next number
 * that no one has, waits until its slot is free (the step is done with batch k - DEPTH), fills it and says
 * so. A batch is a function of its first sample alone, so neither workers nor depth show in the bits.
 */
#include "data/data.h"
#include <pthread.h>

enum { DEPTH = 8 };
typedef struct Slot {
    BatchRows rows;
    int64_t batch; /* the batch that lies here, -1 = none */
    Err err;       /* of filling it */
} Slot;
struct Prefetch {
    const Loader *l;
    long B, T;
    int n_worker, started;
    pthread_t *worker;
    pthread_mutex_t lock;
    pthread_cond_t ready, room;
    Slot slot[DEPTH];
    int64_t first;       /* sample of batch 0 */
    int64_t next, asked; /* next batch to make, batch that the step reads */
    int busy;            /* workers filling a slot */
    bool stop;
};

static void fill(const Prefetch *p, Slot *s, int64_t first)
{
    BatchRows *r = &s->rows;
    s->err = (Err){0};
    r->counted = 0;
    for (long b = 0; b < p->B && !s->err.code; b++) {
        const long at = b * p->T;
        r->counted += loader_fill(p->l, first + b, r->ids + at, r->targets + at, r->pos + at,
                                  r->seg ? r->seg + at : NULL, &s->err);
    }
}

static void *work(void *arg)
{
    Prefetch *p = arg;
    pthread_mutex_lock(&p->lock);
    while (!p->stop) {
        if (p->next >= p->asked + DEPTH) {
            pthread_cond_wait(&p->room, &p->lock);
            continue;
        }
        const int64_t k = p->next++, first = p->first + k * p->B;
        Slot *s = &p->slot[k % DEPTH];
        s->batch = -1;
        p->busy++;
        pthread_mutex_unlock(&p->lock);
        fill(p, s, first);
        pthread_mutex_lock(&p->lock);
        s->batch = k;
        p->busy--;
        pthread_cond_broadcast(&p->ready);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static bool make_slots(Prefetch *p, Arena *a, Err *e)
{
    const size_t n = (size_t)(p->B * p->T);
    for (int i = 0; i < (p->n_worker ? DEPTH : 1); i++) {
        BatchRows *r = &p->slot[i].rows;
        int32_t **const row[] = {&r->ids, &r->targets, &r->pos, &r->seg};
        for (int k = 0; k < (loader_segments(p->l) ? 4 : 3); k++)
            if (!(*row[k] = arena_alloc(a, n * sizeof **row[k], e))) return false;
        p->slot[i].batch = -1;
    }
    return true;
}

Prefetch *prefetch_open(const Loader *l, long B, int workers, Arena *a, Err *e)
{
    Prefetch *p = arena_alloc(a, sizeof *p, e);
    if (!p) return NULL;
    *p = (Prefetch){.l = l, .B = B, .T = loader_seq_len(l), .n_worker = workers < DEPTH ? workers : DEPTH};
    p->worker = arena_alloc(a, (size_t)(p->n_worker + 1) * sizeof *p->worker, e);
    if (!p->worker || !make_slots(p, a, e)) return NULL;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->ready, NULL);
    pthread_cond_init(&p->room, NULL);
    return p;
}

/* From sample `first` on, with nothing made yet. Held: the lock. */
static void restart(Prefetch *p, int64_t first)
{
    p->next = INT64_MAX / 2;
    while (p->busy > 0) pthread_cond_wait(&p->ready, &p->lock);
    for (int i = 0; i < DEPTH; i++) p->slot[i].batch = -1;
    p->first = first;
    p->next = p->asked = 0;
    pthread_cond_broadcast(&p->room);
}

static bool start(Prefetch *p, Err *e)
{
    while (p->started < p->n_worker) {
        if (pthread_create(&p->worker[p->started], NULL, work, p) != 0)
            return err_set(e, ERR_FAIL, "data.workers: cannot start thread %d", p->started + 1);
        p->started++;
    }
    return true;
}

const BatchRows *prefetch_get(Prefetch *p, int64_t first, double *waited, Err *e)
{
    const double t = time_now();
    Slot *s = &p->slot[0];
    if (p->n_worker == 0) {
        fill(p, s, first);
    } else {
        pthread_mutex_lock(&p->lock);
        const int64_t next = p->asked + 1;
        if (p->started > 0 && first == p->first + next * p->B) {
            p->asked = next;
            pthread_cond_broadcast(&p->room);
        } else if (p->started == 0 || first != p->first + p->asked * p->B) {
            restart(p, first);
        }
        if (!start(p, e)) {
            pthread_mutex_unlock(&p->lock);
            return NULL;
        }
        s = &p->slot[p->asked % DEPTH];
        while (s->batch != p->asked) pthread_cond_wait(&p->ready, &p->lock);
        pthread_mutex_unlock(&p->lock);
    }
    if (waited) *waited += time_now() - t;
    if (s->err.code) {
        *e = s->err;
        return NULL;
    }
    return &s->rows;
}

void prefetch_close(Prefetch *p)
{
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->room);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->started; i++) pthread_join(p->worker[i], NULL);
    p->started = 0;
    p->n_worker = 0;
}
