/* autograd/weight.c: products with a weight in the type it is kept in. bfloat16 (a teacher's) is widened a
 * tile at a time: half the memory at rest and half the traffic, and each tile is still in the cache when the
 * product reads it. With the builtin GEMM the bits are those of the widened matrix; a library's sums may
 * depend on how many columns a product has.
 *   y (M,N) = x (M,K) W^T,   W (N,K) */
#include "autograd/autograd.h"

/* Elements of a tile: 4 MiB of floats, two cores' share of a common L2 or L3. */
enum { TILE = 1 << 20 };

bool weight_is_half(const Tensor *w) { return w && w->dtype == DT_BF16; }

static long tile_rows(const Tensor *w)
{
    const long K = t_last(w), N = t_rows(w), n = TILE / (K > 0 ? K : 1);
    return n < 1 ? 1 : n < N ? n : N;
}

size_t weight_room(const Kernels *k, const Tensor *w)
{
    return weight_is_half(w) ? (size_t)(tile_rows(w) * t_last(w)) * k->real : 0;
}

void weight_nt(const Kernels *k, void *y, const void *x, const Tensor *w, long M, void *room)
{
    const long N = t_rows(w), K = t_last(w), step = tile_rows(w);
    if (!weight_is_half(w)) {
        k->gemm_nt(y, x, w->data, M, N, K, SET);
        return;
    }
    for (long r = 0; r < N; r += step) {
        const long n = N - r < step ? N - r : step;
        k->widen(room, (const uint16_t *)w->data + r * K, n * K);
        k->gemm_nt_at((char *)y + (size_t)r * k->real, N, x, room, M, n, K);
    }
}

void weight_rows(const Kernels *k, void *y, const Tensor *w, const int32_t *ids, long n)
{
    const long C = t_last(w);
    if (!weight_is_half(w)) {
        k->embedding_fwd(y, w->data, ids, n, C, SET);
        return;
    }
    for (long i = 0; i < n; i++)
        k->widen((char *)y + (size_t)(i * C) * k->real, (const uint16_t *)w->data + ids[i] * C, C);
}
