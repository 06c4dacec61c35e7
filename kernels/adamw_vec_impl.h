/* kernels/adamw_vec_impl.h: adamw.c in vectors; 28 bytes per element: memory is the bound. w m v g (n). */

void V(adamw)(void *w_, void *m_, void *v_, const void *g_, long n, double lr, double b1, double b2,
              double eps, double wd, double c1, double c2, double grad_scale)
{
    float *w = w_, *m = m_, *v = v_; /* (n) */
    const float *g = g_;             /* (n) */
    const float decay = (float)(lr * wd), step = (float)(lr / c1), rc2 = (float)(1.0 / sqrt(c2));
    const float f1 = (float)b1, f2 = (float)b2, n1 = (float)(1.0 - b1), n2 = (float)(1.0 - b2),
                e = (float)eps;
    const float gs = (float)grad_scale;
    EACH_BLOCK(lo, len, {
        float *wb = w + lo, *mb = m + lo, *vb = v + lo;
        const float *gb = g + lo;
        EACH_VECTOR(len, i, k, {
            const VF d = vf_get(gb + i, k) * vf_set(gs), old = vf_get(wb + i, k);
            const VF m1 = vf_fma(vf_get(mb + i, k), vf_set(f1), d * vf_set(n1));
            const VF v1 = vf_fma(vf_get(vb + i, k), vf_set(f2), d * d * vf_set(n2));
            const VF move = m1 * vf_set(step) / vf_fma(vf_sqrt(v1), vf_set(rc2), vf_set(e));
            vf_put(mb + i, m1, k);
            vf_put(vb + i, v1, k);
            vf_put(wb + i, old - vf_fma(old, vf_set(decay), move), k);
        });
    })
}
