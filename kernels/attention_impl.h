/* kernels/attention_impl.h: the faster attention kernels (float) put themselves into a table.
 *
 *   attention_install(&table, cpu_isa());      // after the reference has filled every slot
 */
#ifndef ATTENTION_IMPL_H
#define ATTENTION_IMPL_H
#include "core/core.h"
#include "kernels/kernels.h"

/* The versions; arguments as in kernels.def. The vector ones hand D > ATTENTION_MAX_D to the float reference:
 * their tiles are buffers of a fixed size per thread; and dropout, whose masks it draws pair by pair. */
enum { ATTENTION_MAX_D = 256 };
#define ATTENTION_VERSION(isa)                                                                               \
    void attention_fwd_##isa(void *o, void *lse, const void *q, const void *k, const void *v,                \
                             const AttnShape *a);                                                            \
    void attention_bwd_##isa(void *dq, void *dk, void *dv, const void *dO, const void *o, const void *lse,   \
                             const void *q, const void *k, const void *v, void *delta, const AttnShape *a,   \
                             Mode mq, Mode mk, Mode mv);
ATTENTION_VERSION(f32)
ATTENTION_VERSION(avx2)
ATTENTION_VERSION(avx512)
#undef ATTENTION_VERSION

/* Overwrites attention_fwd and attention_bwd of a float table with the best version not above isa; with
 * ISA_PORTABLE, or in a portable build, it leaves what is there. */
static inline void attention_install(Kernels *k, Isa isa)
{
#if defined(__x86_64__) && !defined(PORTABLE)
    if (isa >= ISA_AVX2) {
        k->attention_fwd = isa >= ISA_AVX512 ? attention_fwd_avx512 : attention_fwd_avx2;
        k->attention_bwd = isa >= ISA_AVX512 ? attention_bwd_avx512 : attention_bwd_avx2;
    }
#else
    (void)k;
    (void)isa;
#endif
}
#endif
