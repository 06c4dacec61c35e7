/* kernels/attention_impl.h: the faster attention kernels (float) put themselves into a table.
 *
 *   attention_install(&table, cpu_isa());      // after the reference has filled every slot
 */
#ifndef ATTENTION_IMPL_H
#define ATTENTION_IMPL_H
#include "core/core.h"
#include "kernels/kernels.h"

/* Overwrites attention_fwd and attention_bwd of a float table with the best version not above isa; with ISA_PORTABLE,
 * or in a portable build, it leaves the reference. */
void attention_install(Kernels *k, Isa isa);

/* The versions themselves; D > 256 is handed to the reference. Arguments as in kernels.def. */
enum { ATTENTION_MAX_D = 256 };
#define KERNEL_ATTENTION(isa)                                                                                          \
    void attention_fwd_##isa(void *o, void *lse, const void *q, const void *k, const void *v, const AttnShape *a);     \
    void attention_bwd_##isa(void *dq, void *dk, void *dv, const void *dO, const void *o, const void *lse,             \
                             const void *q, const void *k, const void *v, void *delta, const AttnShape *a, Mode mq,    \
                             Mode mk, Mode mv);
KERNEL_ATTENTION(f32)
KERNEL_ATTENTION(f64)
KERNEL_ATTENTION(avx512)
KERNEL_ATTENTION(avx2)
#undef KERNEL_ATTENTION
#endif
