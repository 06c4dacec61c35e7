/* kernels/swiglu_vec_impl.h: swiglu.c in vectors.  All (n). */

void V(swiglu_fwd)(void *y_, const void *g_, const void *u_, long n)
{
    float *y = y_;                /* (n) */
    const float *g = g_, *u = u_; /* (n) */
    EACH_BLOCK(lo, len, {
        EACH_VECTOR(len, i, k, {
            const VF v = vf_get(g + lo + i, k);
            vf_put(y + lo + i, v * vf_sigmoid(v) * vf_get(u + lo + i, k), k);
        });
    })
}

void V(swiglu_bwd)(void *dg_, void *du_, const void *dy_, const void *g_, const void *u_, long n, Mode mode)
{
    float *dg = dg_, *du = du_;              /* (n) or NULL */
    const float *dy = dy_, *g = g_, *u = u_; /* (n) */
    EACH_BLOCK(lo, len, {
        EACH_VECTOR(len, i, k, {
            const VF d = vf_get(dy + lo + i, k), v = vf_get(g + lo + i, k), w = vf_get(u + lo + i, k);
            VF t;
            const VF s = vf_sigmoid_grad(v, &t);
            if (dg) vf_store(dg + lo + i, d * w * vf_fma(v, t, s), k, mode);
            if (du) vf_store(du + lo + i, d * (v * s), k, mode);
        });
    })
}
