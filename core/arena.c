/* core/arena.c: the only malloc of the library. An arena is a chain of blocks, the newest at `head`; an
 * allocation bumps an offset in the head block, a release pops blocks.
 *
 *   block  = small (>= 1 MiB, from calloc) or mapped (allocations >= 4 MiB: a mapping of whole 2 MiB pages,
 *            huge pages asked for; the slack behind the allocation serves the next small ones)
 *   zeroed = fresh memory is zero from the system; a block used before remembers how far (`dirty`) and is
 *            cleared only where it is handed out again
 *   spare  = released blocks, so a step that marks, allocates and releases maps memory once, not once a step
 *
 * Under AddressSanitizer what is not handed out is poisoned and every allocation is followed by 64 poisoned
 * bytes.
 */
#include "core/core.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN 1
#endif
#endif
#ifdef ARENA_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
enum { RED_ZONE = 64 };
#else
#define POISON(p, n) ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
enum { RED_ZONE = 0 };
#endif

enum { ALIGN = 64 };
static const size_t SMALL_BLOCK = (size_t)1 << 20;
static const size_t MAP_FROM = (size_t)4 << 20;
static const size_t MAP_UNIT = (size_t)2 << 20; /* the huge page of x86-64 and arm64 */
static const size_t MAX_BYTES = (size_t)1 << 62;

struct ArenaBlock {
    ArenaBlock *next;
    unsigned char *base; /* ALIGN-aligned, `capacity` bytes */
    size_t capacity, used;
    size_t dirty; /* bytes from base that may be non-zero */
    void *raw;    /* what calloc or mmap gave */
    size_t raw_bytes;
    bool mapped;
};

static atomic_long fail_countdown, alloc_count;

long arena_fail_at(long n)
{
    atomic_store(&fail_countdown, n > 0 ? n : 0);
    return atomic_exchange(&alloc_count, 0);
}

static bool fails_now(void)
{
    atomic_fetch_add(&alloc_count, 1);
    return atomic_load(&fail_countdown) > 0 && atomic_fetch_sub(&fail_countdown, 1) == 1;
}

static size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

/* The block's header lies in front of its bytes, in the same piece of memory. */
static ArenaBlock *block_new(size_t need)
{
    const size_t front = round_up(sizeof(ArenaBlock), ALIGN);
    bool mapped = need >= MAP_FROM;
    size_t total = mapped ? round_up(need + front, MAP_UNIT) : round_up(need + front + ALIGN, SMALL_BLOCK);
    void *raw;
    if (mapped) {
        raw = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (raw == MAP_FAILED) return NULL;
#ifdef MADV_HUGEPAGE
        madvise(raw, total, MADV_HUGEPAGE); /* a wish: without it only speed is lost */
#endif
    } else {
        raw = calloc(1, total);
        if (!raw) return NULL;
    }
    unsigned char *start = (unsigned char *)raw;
    start += (ALIGN - (uintptr_t)start % ALIGN) % ALIGN;
    ArenaBlock *b = (ArenaBlock *)(void *)start;
    *b = (ArenaBlock){.base = start + front, .raw = raw, .raw_bytes = total, .mapped = mapped};
    b->capacity = (size_t)((unsigned char *)raw + total - b->base);
    POISON(b->base, b->capacity);
    return b;
}

static void block_free(Arena *a, ArenaBlock *b)
{
    a->reserved -= b->raw_bytes;
    UNPOISON(b->base, b->capacity);
    if (b->mapped) munmap(b->raw, b->raw_bytes);
    else free(b->raw);
}

/* The smallest spare block that holds `need`, taken off the list; NULL if none does. */
static ArenaBlock *spare_take(Arena *a, size_t need)
{
    ArenaBlock **best = NULL;
    for (ArenaBlock **p = &a->spare; *p; p = &(*p)->next)
        if ((*p)->capacity >= need && (!best || (*p)->capacity < (*best)->capacity)) best = p;
    if (!best) return NULL;
    ArenaBlock *b = *best;
    *best = b->next;
    return b;
}

/* Before a larger mapping is made: the largest mapped spare, too small by now, goes back to the system. */
static void spare_drop_largest(Arena *a)
{
    ArenaBlock **best = NULL;
    for (ArenaBlock **p = &a->spare; *p; p = &(*p)->next)
        if ((*p)->mapped && (!best || (*p)->capacity > (*best)->capacity)) best = p;
    if (!best) return;
    ArenaBlock *b = *best;
    *best = b->next;
    block_free(a, b);
}

static bool head_add(Arena *a, size_t need)
{
    ArenaBlock *b = spare_take(a, need);
    if (!b) {
        if (need >= MAP_FROM) spare_drop_largest(a);
        b = block_new(need);
        if (!b) return false;
        a->reserved += b->raw_bytes;
    }
    b->next = a->head;
    a->head = b;
    return true;
}

static void *out_of_memory(const Arena *a, size_t bytes, Err *e)
{
    err_set(e, ERR_MEMORY,
            "out of memory: arena '%s' wants %zu bytes more, holds %zu (%.1f MiB reserved); "
            "use a smaller batch, sequence or model, or recompute",
            a->name ? a->name : "unnamed", bytes, a->used, (double)a->reserved / (1 << 20));
    return NULL;
}

void *arena_alloc(Arena *a, size_t bytes, Err *e)
{
    if (e && e->code != ERR_OK) return NULL;
    if (bytes > MAX_BYTES || fails_now()) return out_of_memory(a, bytes, e);
    size_t room = round_up(bytes ? bytes : 1, ALIGN) + RED_ZONE;
    if (!a->head || a->head->capacity - a->head->used < room)
        if (!head_add(a, room)) return out_of_memory(a, bytes, e);
    ArenaBlock *b = a->head;
    unsigned char *p = b->base + b->used;
    UNPOISON(p, bytes);
    if (b->dirty > b->used) {
        size_t old = b->dirty - b->used;
        memset(p, 0, old < bytes ? old : bytes);
    }
    b->used += room;
    if (b->used > b->dirty) b->dirty = b->used;
    a->used += room;
    if (a->used > a->peak) a->peak = a->used;
    return p;
}

void *arena_grow(Arena *a, const void *old, size_t old_bytes, size_t new_bytes, Err *e)
{
    void *p = arena_alloc(a, new_bytes, e);
    size_t n = old_bytes < new_bytes ? old_bytes : new_bytes;
    if (p && old && n) memcpy(p, old, n);
    return p;
}

char *arena_strndup(Arena *a, const char *s, size_t n, Err *e)
{
    size_t len = strnlen(s, n);
    char *p = arena_alloc(a, len + 1, e);
    if (p) memcpy(p, s, len);
    return p;
}

char *arena_strdup(Arena *a, const char *s, Err *e) { return arena_strndup(a, s, strlen(s), e); }

char *arena_printf(Arena *a, Err *e, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *p = n < 0 ? NULL : arena_alloc(a, (size_t)n + 1, e);
    if (n < 0) err_set(e, ERR_FAIL, "text for arena '%s' cannot be formatted", a->name ? a->name : "unnamed");
    if (p) vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    return p;
}

ArenaMark arena_mark(const Arena *a)
{
    return (ArenaMark){.head = a->head, .head_used = a->head ? a->head->used : 0, .used = a->used};
}

void arena_release(Arena *a, ArenaMark m)
{
    while (a->head && a->head != m.head) {
        ArenaBlock *b = a->head;
        a->head = b->next;
        b->used = 0;
        POISON(b->base, b->capacity);
        b->next = a->spare;
        a->spare = b;
    }
    if (a->head) {
        a->head->used = m.head_used;
        POISON(a->head->base + m.head_used, a->head->capacity - m.head_used);
    }
    a->used = m.used;
}

void arena_free(Arena *a)
{
    arena_release(a, (ArenaMark){0});
    while (a->spare) {
        ArenaBlock *b = a->spare;
        a->spare = b->next;
        block_free(a, b);
    }
}
