/* tests/test.h: the whole test framework. A file declares tests; the runner (runner.c) finds them by itself.
 *
 *   #include "tests/test.h"
 *   TEST(softmax, rows_sum_to_one)
 *   {
 *       Arena a = {.name = "test"};  Err e = {0};
 *       ...
 *       ASSERT(n > 0);  ASSERT_EQ(n, 3);  ASSERT_STR(e.msg, "");  ASSERT_CLOSE(sum, 1.0, 1e-6, 0);
 *       ASSERT_CLOSE_F32(y, want, n, 1e-6, 1e-7);       // whole arrays: prints the worst index
 *   }
 *
 * Each test runs in its own process: a crash or 120 s is a failure, and no test sees what another one left
 * behind. An assertion that fails ends the test there, also from inside a helper function.
 */
#ifndef TEST_H
#define TEST_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Test {
    const char *suite, *name, *file;
    int line;
    void (*run)(void);
    struct Test *next;
} Test;
void test_register(Test *t);

#define TEST(suite_, name_)                                                                                  \
    static void test_##suite_##_##name_(void);                                                               \
    __attribute__((constructor)) static void register_##suite_##_##name_(void)                               \
    {                                                                                                        \
        static Test t = {#suite_, #name_, __FILE__, __LINE__, test_##suite_##_##name_, 0};                   \
        test_register(&t);                                                                                   \
    }                                                                                                        \
    static void test_##suite_##_##name_(void)

/* A value of any scalar type, so that one comparison serves all of them and can print what it saw. */
typedef struct TestValue {
    char kind;
    long long i;
    unsigned long long u;
    double d;
    const void *p;
} TestValue;
TestValue test_int(long long v);
TestValue test_uint(unsigned long long v);
TestValue test_double(double v);
TestValue test_pointer(const void *v);
#define TEST_VALUE(x)                                                                                        \
    _Generic((x), _Bool                                                                                      \
             : test_uint, char                                                                               \
             : test_int, signed char                                                                         \
             : test_int, short                                                                               \
             : test_int, int                                                                                 \
             : test_int, long                                                                                \
             : test_int, long long                                                                           \
             : test_int, unsigned char                                                                       \
             : test_uint, unsigned short                                                                     \
             : test_uint, unsigned                                                                           \
             : test_uint, unsigned long                                                                      \
             : test_uint, unsigned long long                                                                 \
             : test_uint, float                                                                              \
             : test_double, double                                                                           \
             : test_double, default                                                                          \
             : test_pointer)(x)

/* Prints file:line and the message, ends the test. */
void test_fail(const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4), noreturn));
void test_skip(const char *why) __attribute__((noreturn));
void test_eq(const char *file, int line, const char *sa, const char *sb, TestValue a, TestValue b,
             bool want_equal);
void test_str(const char *file, int line, const char *sa, const char *sb, const char *a, const char *b);
void test_contains(const char *file, int line, const char *text, const char *part);
void test_close(const char *file, int line, const char *sa, const char *sb, double a, double b, double rtol,
                double atol);
/* Arrays: |a - b| <= atol + rtol |b| for each element; NaN equals NaN, infinities must be equal. */
void test_close_f32(const char *file, int line, const float *a, const float *b, size_t n, double rtol,
                    double atol);
void test_close_f64(const char *file, int line, const double *a, const double *b, size_t n, double rtol,
                    double atol);
void test_bytes(const char *file, int line, const void *a, const void *b, size_t n);

#define ASSERT(cond)                                                                                         \
    do {                                                                                                     \
        if (!(cond)) test_fail(__FILE__, __LINE__, "false: %s", #cond);                                      \
    } while (0)
#define ASSERT_MSG(cond, ...)                                                                                \
    do {                                                                                                     \
        if (!(cond)) test_fail(__FILE__, __LINE__, __VA_ARGS__);                                             \
    } while (0)
#define ASSERT_EQ(a, b) test_eq(__FILE__, __LINE__, #a, #b, TEST_VALUE(a), TEST_VALUE(b), true)
#define ASSERT_NE(a, b) test_eq(__FILE__, __LINE__, #a, #b, TEST_VALUE(a), TEST_VALUE(b), false)
#define ASSERT_STR(a, b) test_str(__FILE__, __LINE__, #a, #b, (a), (b))
#define ASSERT_CONTAINS(text, part) test_contains(__FILE__, __LINE__, (text), (part))
#define ASSERT_CLOSE(a, b, rtol, atol) test_close(__FILE__, __LINE__, #a, #b, (a), (b), (rtol), (atol))
#define ASSERT_CLOSE_F32(a, b, n, rtol, atol)                                                                \
    test_close_f32(__FILE__, __LINE__, (a), (b), (n), (rtol), (atol))
#define ASSERT_CLOSE_F64(a, b, n, rtol, atol)                                                                \
    test_close_f64(__FILE__, __LINE__, (a), (b), (n), (rtol), (atol))
#define ASSERT_BYTES(a, b, n) test_bytes(__FILE__, __LINE__, (a), (b), (n))
/* For an Err: shows its message. */
#define ASSERT_OK(e)                                                                                         \
    do {                                                                                                     \
        if ((e).code) test_fail(__FILE__, __LINE__, "error %d: %s", (int)(e).code, (e).msg);                 \
    } while (0)
#define SKIP(why) test_skip(why)

/* Under a sanitizer, which looks at memory and is ten times slower? Sizes that only arithmetic needs (long
 * sums, statistics, bits that the plain runs compare) are smaller then: SIZED(1024, 260). */
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif
#define SIZED(whole, sanitized) (SANITIZED ? (sanitized) : (whole))

/* A fresh empty folder, the same for one test's whole run, removed by the runner afterwards. */
const char *test_dir(void);
#endif
