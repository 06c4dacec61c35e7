/* bench/fma_impl.h: the FMA ceiling, written once for every vector width.
 *
 * Included by fma_*.c with WIDTH (bytes of a vector) and NAME. 16 independent chains of x = x a + b hide the
 * latency of two units; the sums are read at the end so that nothing is left out. x tends to 1.
 */
typedef float Vec __attribute__((vector_size(WIDTH)));

static Vec all(float v) { return v - (Vec){0}; }

double NAME(long rounds)
{
    enum { CHAINS = WIDTH == 64 ? 16 : 12 };
    Vec x[CHAINS];
    Vec a = all(0.999f), b = all(0.001f);
    for (int j = 0; j < CHAINS; j++) x[j] = all((float)j);
    for (long i = 0; i < rounds; i++) {
        for (int j = 0; j < CHAINS; j++) x[j] = x[j] * a + b;
        __asm__ volatile("" ::: "memory"); /* rounds are not folded into one */
    }
    Vec sum = x[0];
    for (int j = 1; j < CHAINS; j++) sum += x[j];
    volatile float sink = sum[0];
    (void)sink;
    return (double)rounds * CHAINS * (WIDTH / 4) * 2;
}
