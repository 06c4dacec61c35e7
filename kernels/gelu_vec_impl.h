/* kernels/gelu_vec_impl.h: gelu.c in vectors; formulas in scalar.h, Phi in vec_math_impl.h. All (n). */

VFN VF tanh_arg(VF x) { return x * vf_fma(x * x, vf_set(0.07135481627260025f), vf_set(1.5957691216057308f)); }

VFN VF tanh_factor(VF x) { return vf_sigmoid(tanh_arg(x)); }

VFN VF tanh_grad(VF x)
{
    VF t;
    const VF s = vf_sigmoid_grad(tanh_arg(x), &t);
    const VF du = vf_fma(x * x, vf_set(0.21406444881780076f), vf_set(1.5957691216057308f));
    return s + vf_only(vf_lt(vf_set(0.0f), t), x * t * du); /* t = 0: also where du overflows */
}

VFN VF erf_grad(VF x)
{
    VF e;
    const VF p = vf_normal(x, &e);
    return vf_fma(x * e, vf_set(0.3989422804014327f), p);
}

VFN VF erf_factor(VF x)
{
    VF e;
    return vf_normal(x, &e);
}

void V(gelu_fwd)(void *y_, const void *x_, long n, bool tanh_form)
{
    float *y = y_;       /* (n) */
    const float *x = x_; /* (n) */
    EACH_BLOCK(lo, len, {
        if (tanh_form)
            EACH_VECTOR(len, i, k, {
                const VF v = vf_get(x + lo + i, k);
                vf_put(y + lo + i, v * tanh_factor(v), k);
            });
        else
            EACH_VECTOR(len, i, k, {
                const VF v = vf_get(x + lo + i, k);
                vf_put(y + lo + i, v * erf_factor(v), k);
            });
    })
}

void V(gelu_bwd)(void *dx_, const void *dy_, const void *x_, long n, bool tanh_form, Mode mode)
{
    float *dx = dx_;                /* (n) */
    const float *dy = dy_, *x = x_; /* (n) */
    EACH_BLOCK(lo, len, {
        float *to = dx + lo;
        const float *d = dy + lo, *v = x + lo;
        if (tanh_form)
            EACH_VECTOR(len, i, k,
                        { vf_store(to + i, vf_get(d + i, k) * tanh_grad(vf_get(v + i, k)), k, mode); });
        else
            EACH_VECTOR(len, i, k,
                        { vf_store(to + i, vf_get(d + i, k) * erf_grad(vf_get(v + i, k)), k, mode); });
    })
}
