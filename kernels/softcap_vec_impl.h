/* kernels/softcap_vec_impl.h: softcap.c in vectors.  All (n). */

void V(softcap_fwd)(void *y_, const void *x_, double cap, long n)
{
    float *y = y_;       /* (n) */
    const float *x = x_; /* (n) */
    const VF c = vf_set((float)cap), per = vf_set((float)(1.0 / cap));
    EACH_BLOCK(lo, len, {
        EACH_VECTOR(len, i, k, { vf_put(y + lo + i, c * vf_tanh(vf_get(x + lo + i, k) * per), k); });
    })
}

void V(softcap_bwd)(void *dx_, const void *dy_, const void *y_, double cap, long n, Mode mode)
{
    float *dx = dx_;                /* (n) */
    const float *dy = dy_, *y = y_; /* (n) */
    const VF per = vf_set((float)(1.0 / cap));
    EACH_BLOCK(lo, len, {
        EACH_VECTOR(len, i, k, {
            const VF t = vf_get(y + lo + i, k) * per;
            vf_store(dx + lo + i, vf_get(dy + lo + i, k) * vf_fnma(t, t, vf_set(1.0f)), k, mode);
        });
    })
}
