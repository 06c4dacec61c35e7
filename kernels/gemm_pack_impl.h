/* kernels/gemm_pack_impl.h: packing of w (n, k) as columns, after gemm_tile_impl.h and transpose(VEC
 * r[LANES]). */

/* Rows [0, n) of w (n, ldw), n <= width, to out (k, width) padded with zeros. */
static void pack_transposed(float *out, const float *w, long ldw, long n, long k, long width)
{
    for (long j = 0; j < width; j += LANES)
        for (long p = 0; p < k; p += LANES) {
            const int rest = k - p < LANES ? (int)(k - p) : LANES;
            const MASK mask = v_mask(rest);
            float *at = out + p * width + j;
            VEC r[LANES];
            UNROLL for (int i = 0; i < LANES; i++) r[i] = j + i < n ? v_load_mask(w + (j + i) * ldw + p, mask)
                                                                    : v_zero();
            transpose(r);
            if (rest == LANES) {
                UNROLL for (int i = 0; i < LANES; i++) v_store(at + i * width, r[i]);
            } else {
                UNROLL for (int i = 0; i < LANES; i++) if (i < rest) v_store(at + i * width, r[i]);
            }
        }
}
