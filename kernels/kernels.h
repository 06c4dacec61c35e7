/* kernels/kernels.h: floor 1. Tables of kernels and the device they run on.
 *
 *   const Kernels *k = kernels_cpu_f32();                 // reference first, AVX2 / AVX-512 / library ones
 *   overwrite
 *   k->gemm_nt(y, x, w, M, N, K, SET);                    // y (M,N) = x (M,K) w (N,K)^T
 *
 * Same stem = same job: x.c is the portable reference (compiled twice, -DREAL=float and -DREAL=double),
 * x_avx512.c, x_avx2.c, x_dnnl.c are faster float ones. Every buffer is row-major and contiguous unless a row
 * stride is passed. Kernels cannot fail, do not allocate (scratch comes in), do not print, keep no state;
 * outputs first, sizes behind. Only kernels contain `omp parallel`; bits never depend on the number of
 * threads.
 */
#ifndef KERNELS_H
#define KERNELS_H
#include "core/core.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { SET = 0, ADD = 1 } Mode; /* y = ... or y += ... */

/* One attention call. q (B,Tq,H,D), k v (B,Tkv,Hkv,D), o (B,Tq,H,D); *_stride = elements from one token's row
 * to the next (>= heads*D: a slice of a fused qkv tensor has a larger one). Query t of the call has position
 * q_offset + t and sees keys s with s <= q_offset + t (if causal), s > q_offset + t - window (if window > 0),
 * and, if seg_q/seg_kv are given (int32 (B,Tq), (B,Tkv)), only keys with the same segment id. softcap > 0:
 * cap*tanh(s/cap) on scaled scores. dropout > 0: each probability is kept with 1 - dropout and divided by it;
 * the mask depends on seed, step, stream + head, sample0 + sequence and query*Tkv + key, on nothing else. */
typedef struct AttnShape {
    long B, Tq, Tkv, H, Hkv, D;
    long q_stride, k_stride, v_stride, o_stride;
    long kv_rows; /* rows from one sequence's k/v to the next (cache capacity); 0 = Tkv */
    double scale, softcap;
    long q_offset, window; /* window 0 = unlimited */
    bool causal;
    const int32_t *seg_q, *seg_kv; /* NULL = one segment */
    double dropout;
    uint64_t seed;
    uint32_t step, stream, sample0;
} AttnShape;

/* Rotary embedding of x (rows, H, D) with row stride; positions pos (rows). inv_freq (D_rot/2) in double,
 * made by the caller (scaling rules included); mscale multiplies cos and sin. Half-split pairs (j,
 * j+D_rot/2), or interleaved (2j,2j+1). */
typedef struct RopeShape {
    long rows, H, D, D_rot, x_stride, y_stride;
    bool interleaved;
    double mscale;
    const double *inv_freq;
    const int32_t *pos;
} RopeShape;

/* One chunk of the loss: z (n,V) student logits in, dL/dz out in place (when grad), see kernels/xent.c. */
typedef struct LossAttr {
    double ce_weight;   /* weight of cross-entropy at temperature 1 */
    double kd_weight;   /* weight of the distillation term (already times T^2 when scale_t2) */
    double temperature; /* of the distillation term, both sides */
    double label_smoothing, z_loss;
    /* final logit soft-cap of the student (0 = none); the teacher's in teacher_softcap */
    double softcap;
    double teacher_softcap;
    int kind;   /* of the distillation term: LOSS_FORWARD_KL, ... */
    double mix; /* beta of LOSS_JSD and LOSS_SYMMETRIC_KL, lambda of LOSS_SKEW_KL */
} LossAttr;
/* D(p, q) of teacher p and student q at the temperature, with M = mix p + (1-mix) q (algorithms 5.1):
 * sum p log p/q; sum q log q/p; mix KL(p|M) + (1-mix) KL(q|M); (1-mix) KL(p|q) + mix KL(q|p); sum |p-q|/2;
 * KL(p|M); mean over the vocabulary of (z-zt)^2, without temperature. */
enum {
    LOSS_FORWARD_KL = 0,
    LOSS_REVERSE_KL,
    LOSS_JSD,
    LOSS_SYMMETRIC_KL,
    LOSS_TVD,
    LOSS_SKEW_KL,
    LOSS_MSE_LOGITS
};

typedef struct Kernels {
    const char *name; /* "f32 avx512+dnnl" for doctor and the run header */
    size_t real;      /* sizeof one element */
#define KERNEL(fn, args) void(*fn) args;
#include "kernels.def"
#undef KERNEL
} Kernels;

const Kernels *kernels_ref_f32(void); /* the reference, float */
const Kernels *kernels_ref_f64(void); /* the reference, double: gradient checks, --precision float64 */
/* the best of this CPU; honours PARE_ISA and PARE_BLAS=auto|dnnl|openblas|builtin */
const Kernels *kernels_cpu_f32(void);
/* a named combination (Isa of core.h), NULL if not available */
const Kernels *kernels_isa_f32(int isa, const char *blas);
/* "oneDNN 2.6.3 dnnl_sgemm", "OpenBLAS 0.3.21 SkylakeX", "builtin avx512" */
const char *kernels_blas_name(void);
/* NULL, or a sentence: e.g. OpenBLAS refused because of its core type */
const char *kernels_blas_warning(void);
#endif
