/* bench/fma_impl.h: the FMA ceiling, written once for every vector width.
 *
 * Included by fma_*.c with WIDTH (bytes of a vector) and NAME. 12 independent chains of x = x a + b in
 * registers hide the latency of two units; the sums are read at the end so that nothing is left out. x tends
 * to 1.
 */
typedef float Vec __attribute__((vector_size(WIDTH)));
#define EACH(m) m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7) m(8) m(9) m(10) m(11)
enum { CHAINS = 12 };

static Vec all(float v) { return v - (Vec){0}; }

double NAME(long rounds)
{
    const Vec a = all(0.999f), b = all(0.001f);
    Vec sum = all(0);
#define START(j) Vec x##j = all((float)(j));
#define NEXT(j) x##j = x##j * a + b;
#define TAKE(j) sum += x##j;
    EACH(START)
    for (long i = 0; i < rounds; i++) { EACH(NEXT) }
    EACH(TAKE)
    volatile float sink = sum[0];
    (void)sink;
    return (double)rounds * CHAINS * (WIDTH / 4) * 2;
}
